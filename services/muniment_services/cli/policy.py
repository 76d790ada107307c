"""`muniment policy`: what promotions of models take, on a running server."""

from __future__ import annotations

from typing import Annotated, Any
from urllib.parse import quote

from cyclopts import App, Parameter

from muniment_services.cli import policy_help as help
from muniment_services.cli.asked import ServerOptions, printable, query_of, server_of
from muniment_services.cli.options import AsJson
from muniment_services.cli.terminal import CliError, mendable, write, write_json

POLICIES = "/api/v1/policies/promotion"
WRONG_CALL = 2

Texts = list[str] | None
Name = Annotated[str, Parameter(help="Name of the policy.")]

app = App(name="policy", help_epilogue="", help_format="plaintext")


@app.command(name="set", help=help.SET, help_epilogue="")
def lay_down(
    name: Name,
    *,
    model: Annotated[str, Parameter(help="Models that it is for, by name; * in it as any text.")],
    stage: Annotated[
        Texts, Parameter(negative="", help="Stage that it guards; can be repeated.")
    ] = None,
    alias: Annotated[
        Texts, Parameter(negative="", help="Alias that it guards; can be repeated.")
    ] = None,
    approvals: Annotated[int, Parameter(help="How many people must approve, 0 to 20.")] = 1,
    approver_group: Annotated[
        Texts,
        Parameter(negative="", help="Members of these groups only; can be repeated."),
    ] = None,
    allow_requester: Annotated[
        bool,
        Parameter(negative="", show_default=False, help="Whoever asks may approve as well."),
    ] = False,
    allow_author: Annotated[
        bool,
        Parameter(
            negative="", show_default=False, help="Whoever made the version may approve as well."
        ),
    ] = False,
    tag: Annotated[
        Texts,
        Parameter(negative="", help="KEY or KEY=VALUE on the version; can be repeated."),
    ] = None,
    condition: Annotated[
        str | None, Parameter(help="What must be true of the source run. [default: nothing]")
    ] = None,
    require_comment: Annotated[
        bool,
        Parameter(
            negative="", show_default=False, help="Requests and approvals must give a reason."
        ),
    ] = False,
    workspace: Annotated[
        str | None, Parameter(help="Workspace that it counts in; * for all. [default: yours]")
    ] = None,
    server: ServerOptions | None = None,
    json: AsJson = False,
) -> None:
    """Make or replace a policy, and print it."""
    if not stage and not alias:
        raise CliError("a policy guards something: say --stage or --alias", WRONG_CALL)
    body = {
        "pattern": model,
        "workspace": workspace,
        "stages": stage or [],
        "aliases": alias or [],
        "approvals": approvals,
        "approver_groups": approver_group or [],
        "exclude_requester": not allow_requester,
        "exclude_author": not allow_author,
        "required_tags": tag or [],
        "condition": condition,
        "required_comment": require_comment,
    }
    with mendable():
        made = server_of(server).call("PUT", _path(name), body)["policy"]
    _print(made, json)


@app.command(name="list", help=help.LIST, help_epilogue="")
def list_all(*, server: ServerOptions | None = None, json: AsJson = False) -> None:
    """Print all policies."""
    with mendable():
        found = server_of(server).call("GET", POLICIES)
    if json:
        write_json(found)
        return
    for policy in found["policies"]:
        write(_line(policy))
    if not found["policies"]:
        write("no policies: a version moves as grants allow, or by one approval of a request")


@app.command(help=help.SHOW, help_epilogue="")
def show(name: Name, *, server: ServerOptions | None = None, json: AsJson = False) -> None:
    """Print one policy."""
    with mendable():
        found = server_of(server).call("GET", _path(name))["policy"]
    _print(found, json)


@app.command(help=help.REMOVE, help_epilogue="")
def remove(
    name: Name,
    *,
    reason: Annotated[str, Parameter(help="Why; it stays in the log.", show_default=False)] = "",
    server: ServerOptions | None = None,
) -> None:
    """Remove a policy."""
    with mendable():
        server_of(server).call("DELETE", f"{_path(name)}{query_of({'reason': reason or None})}")
    write(f"removed the policy {printable(name)}")


def _path(name: str) -> str:
    return f"{POLICIES}/{quote(name, safe='')}"


def _print(policy: dict[str, Any], as_json: bool) -> None:
    if as_json:
        write_json(policy)
    else:
        write(_line(policy))


def _line(policy: dict[str, Any]) -> str:
    targets = [*policy["stages"], *(f"@{alias}" for alias in policy["aliases"])]
    count = policy["approvals"]
    asked = [f"{count} approval{'' if count == 1 else 's'}"]
    if policy["approver_groups"]:
        asked[0] += f" by members of {' or '.join(policy['approver_groups'])}"
    if count and not policy["exclude_requester"]:
        asked.append("the requester may approve")
    if count and not policy["exclude_author"]:
        asked.append("the author may approve")
    asked += [f"the tag {tag}" for tag in policy["required_tags"]]
    asked += [policy["condition"]] if policy["condition"] else []
    asked += ["a comment"] if policy["required_comment"] else []
    return printable(
        f"{policy['name']}: {policy['pattern']} in {policy['workspace']} to "
        f"{', '.join(targets)} takes {'; '.join(asked)}"
    )

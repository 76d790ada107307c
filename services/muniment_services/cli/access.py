"""`muniment access`: grants and roles of a running server, and why one may do something."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any
from urllib.parse import quote, urlencode

from cyclopts import App, Parameter

from muniment_services.cli import access_help as help
from muniment_services.cli.asked import ServerOptions, printable, query_of, server_of
from muniment_services.cli.options import AsJson
from muniment_services.cli.terminal import CliError, mendable, write, write_json

GRANTS = "/api/v1/access/grants"
ROLES = "/api/v1/access/roles"
PRINCIPALS = "/api/v1/access/principals"
EXPLAIN = "/api/v1/access/explain"
PRINCIPAL = "principal:"
WRONG_CALL = 2

Texts = list[str] | None


To = Annotated[
    str | None,
    Parameter(help="Of these only: principal:ID or group:NAME. [default: all]"),
]
Issuer = Annotated[str | None, Parameter(help="URL of the issuer that groups and claims are of.")]

app = App(name="access", help_epilogue="", help_format="plaintext")
roles = App(name="roles", help=help.ROLES, help_epilogue="", help_format="plaintext")
app.command(roles)


@app.command(help=help.GRANT, help_epilogue="")
def grant(
    role: Annotated[str, Parameter(help="Name of the role.")],
    *,
    to: Annotated[str, Parameter(help="principal:ID, group:NAME, claims or everyone.")],
    on: Annotated[str, Parameter(help="KIND:NAME, KIND:id:ID, server or *.")],
    issuer: Issuer = None,
    claim: Annotated[
        Texts, Parameter(negative="", help="NAME=PATTERN that a token must have; can be repeated.")
    ] = None,
    workspace: Annotated[
        str | None, Parameter(help="Workspace that it counts in; * for all. [default: yours]")
    ] = None,
    stage: Annotated[
        Texts, Parameter(negative="", help="Promotions to this stage only; can be repeated.")
    ] = None,
    alias: Annotated[
        Texts, Parameter(negative="", help="Moves of this alias only; can be repeated.")
    ] = None,
    tag_key: Annotated[
        Texts, Parameter(negative="", help="Changes of this tag only; can be repeated.")
    ] = None,
    expires: Annotated[
        str | None,
        Parameter(help="When it ends, in UTC: 2027-01-31, or 12h, 90d from now. [default: never]"),
    ] = None,
    comment: Annotated[str, Parameter(help="Why; it stays in the log.", show_default=False)] = "",
    server: ServerOptions | None = None,
    json: AsJson = False,
) -> None:
    """Make a grant, and print it."""
    from muniment_services.access_text import claim_of, resource_of, subject_of, time_of

    with _understood():
        subject_kind, subject = subject_of(to)
        kind, pattern = resource_of(on)
        claims = [claim_of(text) for text in claim or ()]
        now_ms = time.time_ns() // 1_000_000
        ends_ms = None if expires is None else time_of(expires, now_ms)
    body = {
        "subject_kind": subject_kind,
        "subject": subject,
        "issuer": issuer or "",
        "claims": [{"name": c.name, "pattern": c.pattern} for c in claims],
        "role": role,
        "workspace": workspace,
        "resource_kind": kind,
        "pattern": pattern,
        "stages": stage or [],
        "aliases": alias or [],
        "tag_keys": tag_key or [],
        "expires_at_ms": ends_ms,
        "comment": comment,
    }
    with mendable():
        made = server_of(server).call("POST", GRANTS, body)["grant"]
    if json:
        write_json(made)
    else:
        write(_line(made))


@app.command(help=help.REVOKE, help_epilogue="")
def revoke(
    id: Annotated[
        str, Parameter(help="Id of the grant, or owner:KIND:ID; with --all, of the principal.")
    ],
    *,
    all: Annotated[
        bool,
        Parameter(
            negative="", show_default=False, help="All grants, tokens and sessions of a principal."
        ),
    ] = False,
    reason: Annotated[str, Parameter(help="Why; it stays in the log.", show_default=False)] = "",
    server: ServerOptions | None = None,
) -> None:
    """Take a grant back, or all that a principal was given."""
    path = f"{PRINCIPALS if all else GRANTS}/{quote(id.removeprefix(PRINCIPAL), safe=':')}"
    query = f"?{urlencode({'reason': reason})}" if reason else ""
    with mendable():
        done = server_of(server).call("DELETE", path + query)
    if not all:
        write(f"revoked {id}")
        return
    write(f"revoked {len(done['credentials'])} tokens and sessions, {len(done['grants'])} grants")
    for left in done["left"]:
        write(f"still there: {printable(left)}")
    write("its groups are its identity provider's to take; what it owns: revoke owner:KIND:ID")


@app.command(name="list", help=help.LIST, help_epilogue="")
def show(
    *,
    to: To = None,
    role: Annotated[str | None, Parameter(help="Of this role only. [default: all]")] = None,
    on: Annotated[
        str | None, Parameter(help="That count on this thing: KIND:NAME or KIND:id:ID.")
    ] = None,
    server: ServerOptions | None = None,
    json: AsJson = False,
) -> None:
    """Print grants, a line each."""
    from muniment_services.access_text import subject_of

    query = {"role": role, "resource": on}
    if to is not None:
        with _understood():
            kind, subject = subject_of(to)
        query[kind] = subject
    owner: str | None = None
    grants: list[dict[str, Any]] = []
    with mendable():
        asked = server_of(server)
        token: str | None = None
        while True:
            page = asked.call("GET", f"{GRANTS}{query_of(query, page_token=token)}")
            grants += page["grants"]
            owner = page.get("owner")
            token = page.get("next_page_token")
            if token is None:
                break
    if json:
        write_json({"grants": grants, "owner": owner})
        return
    for found in grants:
        write(_line(found))
    if owner is not None:
        write(f"created by principal:{owner}, who is its manager")
    if not grants:
        write("no grants that you may know of")


@app.command(help=help.EXPLAIN, help_epilogue="")
def explain(
    permission: Annotated[str, Parameter(help="As run:write or model:promote.")],
    resource: Annotated[str, Parameter(help="KIND:NAME, KIND:id:ID or server.")],
    *,
    stage: Annotated[str | None, Parameter(help="Stage that is moved to.")] = None,
    alias: Annotated[str | None, Parameter(help="Alias that is moved.")] = None,
    tag_key: Annotated[str | None, Parameter(help="Tag that is changed.")] = None,
    principal: Annotated[
        str | None, Parameter(help="Id of somebody else. [default: yourself]")
    ] = None,
    group: Annotated[
        Texts, Parameter(negative="", help="About whoever is in this group; can be repeated.")
    ] = None,
    claim: Annotated[
        Texts, Parameter(negative="", help="About whoever has NAME=VALUE; can be repeated.")
    ] = None,
    issuer: Issuer = None,
    workspace: Annotated[
        str | None, Parameter(help="Workspace of the thing. [default: yours]")
    ] = None,
    server: ServerOptions | None = None,
    json: AsJson = False,
) -> None:
    """Print the decision and what each grant lacks; exit status 1 when it is not allowed."""
    query = {
        "permission": permission,
        "resource": resource,
        "stage": stage,
        "alias": alias,
        "tag_key": tag_key,
        "principal": principal,
        "groups": group,
        "claims": claim,
        "issuer": issuer,
        "workspace": workspace,
    }
    with mendable():
        found = server_of(server).call("GET", f"{EXPLAIN}{query_of(query)}")
    if json:
        write_json(found)
    else:
        _print_explanation(found)
    if not found["allowed"]:
        raise CliError(f"not allowed: {found['reason']}")


@roles.default
def show_roles(*, server: ServerOptions | None = None, json: AsJson = False) -> None:
    """Print all roles and what they hold."""
    with mendable():
        found = server_of(server).call("GET", ROLES)
    if json:
        write_json(found)
        return
    for role in found["roles"]:
        write(f"{role['name']}{'' if role['built_in'] else ' (defined here)'}")
        if role["description"]:
            write(f"  {printable(role['description'])}")
        write(f"  {' '.join(role['permissions'])}")


@roles.command(help=help.ROLES_DEFINE, help_epilogue="")
def define(
    name: Annotated[str, Parameter(help="Name of the role.")],
    permissions: Annotated[
        list[str], Parameter(negative="", help="What it holds, as run:write; all of it.")
    ],
    *,
    description: Annotated[str, Parameter(help="What it is for.", show_default=False)] = "",
    server: ServerOptions | None = None,
) -> None:
    """Define a role."""
    body = {"permissions": permissions, "description": description}
    with mendable():
        server_of(server).call("PUT", f"{ROLES}/{quote(name, safe='')}", body)
    write(f"the role {name} holds {' '.join(sorted(set(permissions)))}")


@roles.command(help=help.ROLES_REMOVE, help_epilogue="")
def remove(
    name: Annotated[str, Parameter(help="Name of the role.")],
    *,
    server: ServerOptions | None = None,
) -> None:
    """Remove a role."""
    with mendable():
        server_of(server).call("DELETE", f"{ROLES}/{quote(name, safe='')}")
    write(f"removed the role {name}")


@contextmanager
def _understood() -> Iterator[None]:
    try:
        yield
    except ValueError as error:
        raise CliError(str(error), WRONG_CALL) from None


def _line(found: dict[str, Any]) -> str:
    subject = f"{found['subject_kind']}:{found['subject']}".rstrip(":")
    kind, pattern = found["resource_kind"], found["pattern"]
    thing = kind if kind == "server" or (kind, pattern) == ("*", "*") else f"{kind}:{pattern}"
    parts = [found["grant_id"], found["role"], "to", subject]
    parts += [f"of {found['issuer']}"] if found["issuer"] else []
    parts += [f"with {claim['name']}={claim['pattern']}" for claim in found["claims"]]
    parts += ["on", thing, "in", found["workspace"]]
    for word, name in (("stage", "stages"), ("alias", "aliases"), ("tag", "tag_keys")):
        parts += [f"for {word} {value}" for value in found[name]]
    if found["expires_at_ms"] is not None:
        until = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(found["expires_at_ms"] / 1000))
        parts.append(f"{'expired' if found.get('expired') else 'until'} {until}")
    if found["comment"]:
        parts.append(f"({found['comment']})")
    return printable(" ".join(parts))


def _print_explanation(found: dict[str, Any]) -> None:
    verdict = "allowed" if found["allowed"] else "not allowed"
    chain = f" by {', '.join(found['because'])}" if found["because"] else ""
    write(f"{verdict}: {printable(found['reason'])}{chain}")
    for note in found["notes"]:
        write(f"  note: {printable(note)}")
    for policy in found["policies"]:
        targets = (*policy["stages"], *(f"@{alias}" for alias in policy["aliases"]))
        asks = "; ".join(policy["asks"]) or "nothing"
        write(printable(f"  policy {policy['name']} for {', '.join(targets)} asks: {asks}"))
    for item in found["grants"]:
        write(f"  {'+' if item['matched'] else '-'} {_line(item['grant'])}")
        for lack in item["lacks"]:
            write(f"      {printable(lack)}")

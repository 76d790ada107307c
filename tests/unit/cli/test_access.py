"""`muniment access` against a running server: what it prints, and what it refuses."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from harness.server import Server, running_muniment
from unit.cli.conftest import Call

ISSUER = "https://id.example"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running_muniment(tmp_path_factory.mktemp("access") / "data") as running:
        yield running


def test_a_grant_from_its_making_to_its_end(call: Call, server: Server) -> None:
    at = ("--url", server.url)
    made = call(
        "access", "grant", "approver", "--to", "claims", "--issuer", ISSUER, "--claim",
        "repository_id=123", "--claim", "environment=prod*", "--on", "model:churn", "--stage",
        "production", "--expires", "90d", "--comment", "CI", *at,
    )  # fmt: skip
    assert made.status == 0, made.err
    grant_id = made.out.split()[0]
    assert " approver to claims of https://id.example with environment=prod*" in made.out
    assert "on model:churn in default for stage Production until 20" in made.out
    listed = json.loads(call("access", "list", "--on", "model:churn", "--json", *at).out)
    assert [grant["grant_id"] for grant in listed["grants"]] == [grant_id]
    question = ("access", "explain", "model:promote", "model:churn", "--issuer", ISSUER)
    job = (*question, "--claim", "repository_id=123", "--claim", "environment=production")
    may = call(*job, "--stage", "Production", *at)
    assert may.status == 0, may.err
    assert may.out.startswith(f"allowed: granted by grant:{grant_id}, role:approver")
    assert "policy" not in may.out
    rule = ("policy", "set", "four-eyes", "--model", "churn", "--stage", "Production", *at)
    assert call(*rule).status == 0
    asks = "  policy four-eyes for Production asks: 1 approval of a transition request"
    assert asks in call(*job, "--stage", "Production", *at).out
    may_not = call(*job, "--stage", "Staging", *at)
    assert (may_not.status, may_not.err[:21]) == (1, "muniment: not allowed")
    assert "condition: it is for stage Production only" in may_not.out
    assert call("access", "revoke", grant_id, "--reason", "done", *at).status == 0
    again = call("access", "revoke", grant_id, *at)
    assert (again.status, "No grant with id" in again.err) == (1, True)
    assert "no grants" in call("access", "list", "--to", f"principal:{grant_id}", *at).out


def test_all_that_somebody_was_given_ends_by_one_command(call: Call, server: Server) -> None:
    at = ("--url", server.url)
    whoami = httpx.get(f"{server.url}/api/v1/whoami").json()
    who = f"principal:{whoami['principal_id']}"
    for on in ("model:a", "model:b"):
        assert call("access", "grant", "viewer", "--to", who, "--on", on, *at).status == 0
    token = ("token", "create", "nightly", "--service", *at)
    assert call(*token).status == 0
    done = call("access", "revoke", who, "--all", "--reason", "left the company", *at)
    assert done.status == 0, done.err
    assert done.lines[0] == "revoked 0 tokens and sessions, 2 grants"
    assert "still there: the token " in done.lines[1]
    assert " of nightly, which it made" in done.lines[1]
    assert "identity provider's to take" in done.lines[-1]
    assert "no grants" in call("access", "list", "--to", who, *at).out
    ended = [line for line in call("events", "--type", "GrantRevoked", "--data-dir",
             server.data_dir).lines if "left the company" in line]  # fmt: skip
    assert len(ended) == 2
    again = call("access", "revoke", who, "--all", *at)
    assert again.lines[0] == "revoked 0 tokens and sessions, 0 grants"
    nobody = call("access", "revoke", f"principal:{'0' * 32}", "--all", *at)
    assert (nobody.status, nobody.out) == (1, "")


def test_a_grant_is_told_as_an_event(call: Call, server: Server) -> None:
    made = call("access", "grant", "viewer", "--to", "everyone", "--on", "*", "--url", server.url)
    assert made.status == 0, made.err
    shown = call("events", "--type", "GrantMade", "--data-dir", server.data_dir)
    assert shown.lines[-1].endswith("role=viewer to=everyone on=*:* workspace=default by=local")


def test_roles_are_shown_defined_and_removed(call: Call, server: Server) -> None:
    at = ("--url", server.url)
    defined = call("access", "roles", "define", "promoter", "model:read", "model:promote", *at)
    assert defined.out == "the role promoter holds model:promote model:read\n"
    shown = call("access", "roles", *at)
    assert "viewer\n" in shown.out
    assert "promoter (defined here)\n" in shown.out
    wrong = call("access", "roles", "define", "promoter", "model:raed", *at)
    assert (wrong.status, "model:raed" in wrong.err) == (1, True)
    assert call("access", "roles", "remove", "promoter", *at).status == 0
    roles = json.loads(call("access", "roles", "--json", *at).out)["roles"]
    assert all(role["built_in"] for role in roles)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["grant", "viewer", "--to", "bob", "--on", "experiment:a"], "'bob' is nobody"),
        (["grant", "viewer", "--to", "everyone", "--on", "run:a"], "'run:a' is no resource"),
        (["grant", "viewer", "--to", "everyone", "--on", "*", "--expires", "x"], "is no time"),
        (["grant", "viewer", "--to", "claims", "--on", "*", "--claim", "x"], "is no claim"),
        (["list", "--to", "bob"], "'bob' is nobody"),
    ],
)
def test_a_wrong_call_is_one_line(call: Call, arguments: list[str], says: str) -> None:
    ended = call("access", *arguments)
    assert (ended.status, ended.err.count("\n")) == (2, 1)
    assert says in ended.err


def test_without_a_server_one_is_told_to_name_one(call: Call, tmp_path: Path) -> None:
    ended = call("access", "list", "--data-dir", tmp_path / "none")
    assert (ended.status, "--url" in ended.err) == (1, True)

"""`muniment policy` against a running server: what it prints, and what it refuses."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.server import Server, running_muniment
from unit.cli.conftest import Call

WHOLE = (
    "--model", "credit-*", "--stage", "production", "--alias", "champion", "--approvals", "2",
    "--approver-group", "risk", "--approver-group", "audit", "--allow-author",
    "--allow-requester", "--tag", "checked=yes", "--condition", "metrics.auc > 0.8",
    "--require-comment", "--workspace", "*",
)  # fmt: skip
LINE = (
    "big quorum: credit-* in * to Production, @champion takes 2 approvals by members of risk or "
    "audit; the requester may approve; the author may approve; the tag checked=yes; "
    "metrics.auc > 0.8; a comment"
)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running_muniment(tmp_path_factory.mktemp("policy") / "data") as running:
        yield running


def test_a_policy_from_its_making_to_its_end(call: Call, server: Server) -> None:
    at = ("--url", server.url)
    assert call("policy", "list", *at).out.startswith("no policies")
    made = call("policy", "set", "big quorum", *WHOLE, *at)
    assert (made.status, made.out) == (0, LINE + "\n"), made.err
    assert call("policy", "show", "big quorum", *at).out == made.out
    shown = json.loads(call("policy", "show", "big quorum", "--json", *at).out)
    assert (shown["approvals"], shown["stages"]) == (2, ["Production"])
    listed = json.loads(call("policy", "list", "--json", *at).out)
    assert listed == {"policies": [shown]}

    elsewhere = ("policy", "set", "big quorum", "--model", "a", "--stage", "Staging", *at)
    assert "left without it" in call(*elsewhere).err, "it guards all workspaces"
    plain = (*elsewhere, "--workspace", "*")
    replaced = call(*plain)
    assert replaced.out == "big quorum: a in * to Staging takes 1 approval\n"
    assert call(*plain, "--json").status == 0, "the same again changes nothing"
    assert call("policy", "list", *at).lines == replaced.lines

    removed = call("policy", "remove", "big quorum", "--reason", "done", *at)
    assert removed.out == "removed the policy big quorum\n"
    again = call("policy", "remove", "big quorum", *at)
    assert (again.status, "no promotion policy" in again.err) == (1, True)
    assert call("policy", "show", "big quorum", *at).status == 1
    told = call("events", "--type", "PromotionPolicyRemoved", "--data-dir", server.data_dir)
    assert told.lines[-1].endswith("reason=done")


def test_what_a_policy_holds_cannot_move_the_cursor(call: Call, server: Server) -> None:
    made = call(
        *("policy", "set", "p", "--model", "*", "--stage", "Staging", "--url", server.url),
        *("--approver-group", "a\x1b[31m"),
    )
    assert (made.status, "\x1b" in made.out) == (0, False)
    assert "a\\u001b[31m" in made.out


@pytest.mark.parametrize(
    ("arguments", "status", "says"),
    [
        ([], 2, "--stage or --alias"),
        (["--stage", "Nowhere"], 1, "Nowhere"),
        (["--stage", "Staging", "--approvals", "21"], 1, "0 to 20 approvals"),
        (["--stage", "Staging", "--condition", "metrics.a <"], 1, "could not be read"),
        (["--stage", "Staging", "--approvals", "many"], 2, "--approvals"),
    ],
)
def test_a_wrong_policy_is_one_line(
    call: Call, server: Server, arguments: list[str], status: int, says: str
) -> None:
    ended = call("policy", "set", "wrong", "--model", "*", "--url", server.url, *arguments)
    assert (ended.status, ended.err.count("\n")) == (status, 1)
    assert says in ended.err
    assert call("policy", "show", "wrong", "--url", server.url).status == 1


def test_without_a_server_one_is_told_to_name_one(call: Call, tmp_path: Path) -> None:
    ended = call("policy", "list", "--data-dir", tmp_path / "none")
    assert (ended.status, "--url" in ended.err) == (1, True)

"""What an approval is worth: its evidence, and the rights that it was given by."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from harness.review_desk import Desk
from muniment_schemas import events as e
from muniment_schemas.access_events import GRANT_PREFIX, OWNER, Grant
from muniment_schemas.columns import pack
from muniment_schemas.envelope import Actor
from muniment_services import approvers
from muniment_services.domain.access import (
    EndOwnership,
    MakeGrant,
    RevokeGrant,
    granted,
    state_of,
)
from muniment_services.domain.approvals import EVIDENCE_CHANGED, NO_RIGHT, OTHER_GROUPS, SAME_HAND
from muniment_services.domain.promotion import NO_RULE, case_of
from muniment_services.domain.promotion_evidence import FileDigests, fingerprint
from muniment_services.domain.registry_life import RenameRegisteredModel
from muniment_services.domain.run_data import LogBatch, LogInputs

FILES = FileDigests(location="s3://b/x", by_path={"m": "00"}, total=1, sha256=b"s" * 32)


@pytest.fixture
def desk() -> Desk:
    made = Desk()
    made.policy(approvals=2)
    made.ask()
    return made


def grant(desk: Desk, who: str, by: str = "root", rights: tuple[str, ...] = (), **more: Any) -> str:
    """A right to approve that a grant gives; it is what `who` approves by from now on."""
    fields: dict[str, Any] = {"role": "approver", "resource_kind": "model", "pattern": "m"}
    fields |= {"subject_kind": "principal", "subject": who, **more}
    event = desk.world.decide(MakeGrant(grant=Grant(grant_id="", **fields), by=rights), by)
    assert isinstance(event, e.GrantMade)
    desk.world.fold(event)
    desk.world.rights[who] = (f"{GRANT_PREFIX}{event.grant.grant_id}",)
    return desk.world.rights[who][0]


def void(desk: Desk, files: FileDigests | None = None, name: str = "m") -> dict[str, str]:
    model = desk.world.state.named("registered_model", name)
    assert model is not None
    [request] = model.review.requests  # type: ignore[attr-defined]
    given = files or FileDigests(location="s3://b/x")
    now_ms = desk.world.now_ms
    case = case_of(desk.world.state, model, request, given, now_ms, approvers.gives)  # type: ignore[arg-type]
    return {one.approver: one.reason for one in case.weighed()[1]}


# Rights


def revoked(desk: Desk, right: str) -> None:
    record = granted(state_of(desk.world.state), right)
    assert record is not None
    desk.do("root", RevokeGrant(grant_id=record.grant.grant_id, admins_elsewhere=True))


def expired(desk: Desk, _: str) -> None:
    desk.world.now_ms += 100_000


def renamed(desk: Desk, _: str) -> None:
    desk.policy(pattern="*", approvals=2)
    desk.do("ana", RenameRegisteredModel(name="m", new_name="n"))


@pytest.mark.parametrize("ended", [revoked, expired, renamed])
def test_a_right_that_is_gone_takes_the_approval_along(
    desk: Desk, ended: Callable[[Desk, str], None]
) -> None:
    right = grant(desk, "bob", expires_at_ms=desk.world.now_ms + 50_000)
    assert desk.approve("bob").rights == (right,)
    assert void(desk) == {}
    ended(desk, right)
    name = "n" if ended is renamed else "m"
    assert void(desk, name=name) == {"bob": NO_RIGHT}
    event = desk.approve("cid", name=name)
    assert (event.completes, event.approvals_given) == (False, 1)
    assert event.not_counted == (e.VoidApproval(approver="bob", reason=NO_RIGHT),)


def test_one_of_several_rights_is_enough(desk: Desk) -> None:
    rights = (grant(desk, "bob"), grant(desk, "bob", pattern="*"))
    desk.world.rights["bob"] = rights
    desk.approve("bob")
    for right, found in zip(rights, ({}, {"bob": NO_RIGHT}), strict=True):
        revoked(desk, right)
        assert void(desk) == found


def test_an_ownership_that_ended_is_no_right(desk: Desk) -> None:
    desk.world.rights["ana"] = (OWNER,)
    desk.policy(approvals=2, exclude_requester=False, exclude_author=False)
    assert "having made the model gives no say" in desk.refused("ana")
    desk.policy(stages=("Staging",))
    model_id = desk.model.model_id
    desk.do("root", EndOwnership(resource_kind="model", resource_id=model_id))
    assert "in force any more" in desk.refused("ana")


def test_the_line_behind_a_grant_outlives_the_grants_in_it(desk: Desk) -> None:
    first = grant(desk, "max", by="ana", rights=(OWNER,), role="manager")
    second = grant(desk, "bob", by="max", rights=(first,))
    revoked(desk, first)
    record = granted(state_of(desk.world.state), second)
    assert record is not None
    assert [maker.principal_id for maker in record.makers] == ["max", "ana"]
    assert record.root == OWNER
    assert "whoever made the model" in desk.refused("bob")


def test_of_several_rights_to_grant_the_one_that_is_not_the_makers_counts(desk: Desk) -> None:
    of_maker = grant(desk, "max", by="ana", rights=(OWNER,), role="manager")
    fields = {"role": "manager", "pattern": "*"}
    of_admin = grant(desk, "max", by="root", rights=("admin-group:admins",), **fields)
    right = grant(desk, "bob", by="max", rights=(OWNER, of_maker, of_admin))
    record = granted(state_of(desk.world.state), right)
    assert record is not None
    assert record.root == "admin-group:admins"
    assert desk.approve("bob").approvals_given == 1


def test_a_grant_of_an_earlier_release_counts_unless_the_models_maker_made_it(desk: Desk) -> None:
    grant(desk, "bob", by="ana")
    assert "whoever made the model" in desk.refused("bob")
    grant(desk, "cid", by="eva")
    assert desk.approve("cid").approvals_given == 1


def test_whoever_acts_for_the_requester_does_not_choose_who_approves(desk: Desk) -> None:
    context = desk.world.context("eva")
    asks = msgspec.structs.replace(context.actor, delegation=("ana",))
    fields: dict[str, Any] = {"role": "approver", "resource_kind": "model", "pattern": "m"}
    command = MakeGrant(
        grant=Grant(grant_id="", subject_kind="principal", subject="bob", **fields),
        by=("admin-group:admins",),
    )
    event = desk.world.decide(command, "eva")
    assert isinstance(event, e.GrantMade)
    envelope = msgspec.structs.replace(event.envelope, actor=Actor(**msgspec.to_builtins(asks)))
    desk.world.fold(msgspec.structs.replace(event, envelope=envelope))
    desk.world.rights["bob"] = (f"{GRANT_PREFIX}{event.grant.grant_id}",)
    assert "whoever asks for the promotion" in desk.refused("bob")


def test_an_approval_is_void_behind_a_change_of_access_that_it_did_not_see(desk: Desk) -> None:
    right = grant(desk, "bob")
    late = desk.approval("bob")
    revoked(desk, right)
    folded = desk.world.state.fold(desk.world.record(late), late)
    assert folded.void == "access has changed"


def test_approvals_that_say_nothing_of_right_or_evidence_do_not_count(desk: Desk) -> None:
    old = desk.approval("bob")
    desk.world.fold(msgspec.structs.replace(old, rights=()))
    assert void(desk) == {"bob": NO_RIGHT}
    old = desk.approval("bob")
    evidence = msgspec.structs.replace(old.evidence, sha256=None)
    desk.world.fold(msgspec.structs.replace(old, evidence=evidence))
    assert void(desk) == {"bob": EVIDENCE_CHANGED}


def test_groups_that_are_asked_for_later_are_told_as_the_reason(desk: Desk) -> None:
    desk.approve("bob")
    desk.policy(approvals=2, approver_groups=("risk",))
    assert void(desk) == {"bob": OTHER_GROUPS}


def test_two_approvals_by_one_hand_are_one(desk: Desk) -> None:
    desk.approve("bob")
    event = desk.approval("cid")
    actor = msgspec.structs.replace(event.envelope.actor, delegation=("bob",))
    envelope = msgspec.structs.replace(event.envelope, actor=actor)
    desk.world.fold(msgspec.structs.replace(event, envelope=envelope, completes=False))
    assert void(desk) == {"cid": SAME_HAND}


# Evidence


def test_the_digest_is_what_the_schema_says(desk: Desk) -> None:
    run_id = desk.run(0.5)
    dataset = e.DatasetInput(name="d", digest="1", source_type="s", source="{}", tags={})
    desk.do("ana", LogInputs(run_id=run_id, datasets=(dataset,)))
    desk.version(run_id)
    desk.ask("3")
    location = f"runs:/{run_id}/m"
    files = msgspec.structs.replace(FILES, location=location)
    form = {
        "datasets": [["d", "1"]],
        "files": FILES.sha256.hex() if FILES.sha256 else None,
        "files_total": 1,
        "location": location,
        "metrics": {"loss": "0x1.0000000000000p-1"},
        "run_id": run_id,
        "source_commit": None,
    }
    evidence = desk.approval("bob", version="3", files=files).evidence
    text = json.dumps(form, separators=(",", ":"), sort_keys=True)
    assert evidence.sha256 == hashlib.sha256(text.encode()).digest()
    assert evidence.proven


def test_a_metric_beyond_those_that_are_listed_counts_too(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("muniment_services.domain.promotion_evidence.METRICS_MAX", 1)
    run_id = desk.run(0.5)
    desk.version(run_id)
    desk.ask("3")
    first = desk.approval("bob", version="3").evidence
    desk.do("ana", LogBatch(run_id=run_id, metrics=pack(["z"], [1.0], [1], [1])))
    second = desk.approval("bob", version="3").evidence
    assert first.metrics == second.metrics
    assert first.sha256 != second.sha256


@pytest.mark.parametrize(
    "other",
    [
        FileDigests(location="s3://b/x"),
        msgspec.structs.replace(FILES, sha256=b"t" * 32),
        msgspec.structs.replace(FILES, total=2),
    ],
)
def test_other_files_are_other_evidence(desk: Desk, other: FileDigests) -> None:
    version = desk.model.versions[1]
    assert fingerprint(FILES, NO_RULE, version, None) != fingerprint(other, NO_RULE, version, None)
    desk.approve("bob", files=FILES)
    assert void(desk, FILES) == {}
    assert void(desk, other) == {"bob": EVIDENCE_CHANGED}


def test_tags_of_the_version_are_looked_at_anew_and_void_nothing(desk: Desk) -> None:
    version = desk.model.versions[1]
    tagged = msgspec.structs.replace(version, tags={"a": "b"})
    assert fingerprint(FILES, NO_RULE, version, None) == fingerprint(FILES, NO_RULE, tagged, None)

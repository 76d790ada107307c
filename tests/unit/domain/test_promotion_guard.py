"""Policies against races, hands that act for others, and evidence that stays whole."""

from __future__ import annotations

import dataclasses
from typing import Any

import msgspec
import pytest

from harness.review_desk import Desk
from muniment_schemas import events as e
from muniment_schemas.columns import pack
from muniment_schemas.envelope import Actor, Event
from muniment_services.domain import promotion_evidence
from muniment_services.domain.commands import Command
from muniment_services.domain.deciders import DECIDERS
from muniment_services.domain.errors import Invalid, NotAllowedNow, ReviewRequired
from muniment_services.domain.model_version import (
    CreateModelVersion,
    SetModelVersionTag,
    TransitionStage,
)
from muniment_services.domain.promotion import ApproveRequest, RequestTransition
from muniment_services.domain.promotion_evidence import FileDigests
from muniment_services.domain.promotion_guard import origins_of_version
from muniment_services.domain.promotion_policy import RemovePromotionPolicy, SetPromotionPolicy
from muniment_services.domain.registry_life import RenameRegisteredModel, SetAlias
from muniment_services.domain.run_data import LogBatch, LogInputs

MOVE = TransitionStage(name="m", version="1", stage="Production")
ALIAS = SetAlias(name="m", alias="champion", version="1")


@pytest.fixture
def desk() -> Desk:
    return Desk()


def decided(desk: Desk, command: Command, who: str = "ana") -> Event:
    event = desk.world.decide(command, who)
    assert event is not None
    return event


def void(desk: Desk, event: Event) -> str | None:
    return desk.world.state.fold(desk.world.record(event), event).void


# A policy that comes between decision and record


@pytest.mark.parametrize("command", [MOVE, ALIAS], ids=["stage", "alias"])
def test_a_plain_move_is_void_behind_a_policy_that_it_did_not_see(
    desk: Desk, command: Command
) -> None:
    late = decided(desk, command)
    desk.policy(aliases=("champion",))
    before = dict(desk.world.state.catalog)
    assert void(desk, late) == "the promotion policies have changed"
    assert desk.world.state.catalog == before
    with pytest.raises(ReviewRequired, match="1 approval"):
        desk.world.decide(command, "ana")


@pytest.mark.parametrize(
    "change",
    [
        {"approvals": 2},
        {"approver_groups": ("risk",)},
        {"exclude_author": False},
        {"condition": "metrics.loss < 1"},
        {"required_tags": ("ok",)},
        {"required_comment": True},
    ],
    ids=lambda change: next(iter(change)),
)
def test_an_approval_is_void_behind_a_policy_that_asks_for_something_else(
    desk: Desk, change: dict[str, Any]
) -> None:
    desk.policy()
    desk.ask()
    late = desk.approval("bob")
    desk.policy(**change)
    assert void(desk, late) == "the promotion policies have changed"
    assert desk.stage() == "None"
    assert desk.open == [(1, "Production")]


def test_a_move_is_void_when_the_policy_that_let_it_pass_is_gone_or_was_made_anew(
    desk: Desk,
) -> None:
    desk.policy(approvals=0, required_tags=("ok",))
    desk.do("ana", SetModelVersionTag(name="m", version="1", key="ok", value="yes"))
    first, second, third = (decided(desk, MOVE) for _ in range(3))
    desk.policy(approvals=0, required_tags=("ok",))
    desk.do("root", RemovePromotionPolicy(policy="p"))
    assert void(desk, first) == "the promotion policies have changed"
    desk.policy(approvals=0, required_tags=("ok",))
    assert void(desk, second) == "the promotion policies have changed"
    assert isinstance(third, e.StageTransitioned)
    (now,) = desk.world.state.of_kind("promotion_policy")
    under = e.DecidedUnder(policy_events=(now.event_id,))  # type: ignore[attr-defined]
    told = msgspec.structs.replace(third, decided_under=under)
    assert void(desk, told) is None


def test_a_move_names_the_policies_that_it_was_decided_under(desk: Desk) -> None:
    def ids(command: Command) -> Any:
        return decided(desk, command).decided_under.policy_events  # type: ignore[attr-defined]

    assert ids(MOVE) == ids(ALIAS) == ()
    for name, stages in (("p", ("Production", "Archived")), ("q", ("Archived",))):
        desk.policy(name, approvals=0, stages=stages)
    p, q = (x.envelope.event_id for x in desk.world.events[-2:])
    assert ids(MOVE) == (p,)
    desk.do("ana", MOVE)
    other = TransitionStage(name="m", version="2", stage="Production", archive_others=True)
    assert ids(other) == tuple(sorted((p, q)))


def test_other_policies_do_not_stand_in_the_way(desk: Desk) -> None:
    late, alias = decided(desk, MOVE), decided(desk, SetAlias(name="m", alias="x", version="1"))
    desk.policy("staging", stages=("Staging",), aliases=("y",))
    desk.policy("others", pattern="n*")
    desk.policy("elsewhere", workspace="other", pattern="*")
    assert void(desk, late) is None
    assert void(desk, alias) == "another event of the same history came first"


def test_a_guarded_archive_counts_for_moves_that_archive(desk: Desk) -> None:
    desk.do("ana", MOVE)
    moves = [
        TransitionStage(name="m", version="2", stage="Production", archive_others=archive)
        for archive in (True, False)
    ]
    archiving, plain = (decided(desk, move) for move in moves)
    desk.policy("keep", stages=("Archived",))
    assert void(desk, archiving) == "the promotion policies have changed"
    assert void(desk, plain) is None


def test_a_new_name_is_void_behind_a_policy_that_it_would_lead_around(desk: Desk) -> None:
    out = decided(desk, RenameRegisteredModel(name="m", new_name="n"))
    desk.policy()
    assert void(desk, out) == "the promotion policies have changed"
    desk.do("root", RemovePromotionPolicy(policy="p"))
    desk.do("ana", MOVE)
    into = decided(desk, RenameRegisteredModel(name="m", new_name="n"))
    desk.policy(pattern="n")
    assert void(desk, into) == "the promotion policies have changed"
    assert desk.model.name == "m"


def test_what_an_older_release_recorded_counts_as_it_did(desk: Desk) -> None:
    late = decided(desk, MOVE)
    assert isinstance(late, e.StageTransitioned)
    assert late.decided_under == e.DecidedUnder(policy_events=())
    desk.policy()
    assert void(desk, msgspec.structs.replace(late, decided_under=None)) is None
    assert desk.stage() == "Production"


# Comments on plain calls


def test_a_comment_that_a_policy_asks_for_is_asked_of_plain_calls_too(desk: Desk) -> None:
    desk.policy(approvals=0, required_comment=True, aliases=("champion",))
    for command in (MOVE, ALIAS):
        with pytest.raises(ReviewRequired, match="missing: a comment"):
            desk.world.decide(command, "ana")
    said = desk.do("ana", msgspec.structs.replace(MOVE, comment="it is time"))
    assert said.versions[1].stage == "Production"


# Hands: who acts for whom


def by(desk: Desk, command: Command, who: str, *through: str) -> Event:
    actor = Actor(principal_id=who, auth_method="bearer", delegation=through)
    context = dataclasses.replace(desk.world.context(), actor=actor)
    event = DECIDERS[type(command)](desk.world.state, command, context)
    assert event is not None
    return event


ASK = RequestTransition(name="m", version="1", stage="Production")
APPROVE = ApproveRequest(name="m", version="1", stage="Production")


def test_nobody_approves_in_the_name_of_another_what_they_asked_for(desk: Desk) -> None:
    desk.policy()
    desk.world.fold(by(desk, ASK, "ana"))
    with pytest.raises(ReviewRequired, match="asks for"):
        by(desk, APPROVE, "bob", "ana")
    with pytest.raises(ReviewRequired, match="asks for"):
        by(desk, APPROVE, "bob", "console", "ana")


def test_nobody_approves_what_they_asked_for_in_the_name_of_another(desk: Desk) -> None:
    desk.policy()
    desk.world.fold(by(desk, ASK, "ana", "bob"))
    for who in ("ana", "bob"):
        with pytest.raises(ReviewRequired, match="asks for"):
            by(desk, APPROVE, who)
    assert by(desk, APPROVE, "cid").completes  # type: ignore[attr-defined]


def test_what_both_act_through_is_nobodys_hand(desk: Desk) -> None:
    desk.policy(approvals=2)
    desk.world.fold(by(desk, ASK, "ana", "console"))
    desk.world.fold(by(desk, APPROVE, "bob", "console"))
    last = by(desk, APPROVE, "cid", "console")
    assert isinstance(last, e.TransitionApproved)
    assert last.completes


def test_a_quorum_is_not_reached_by_one_who_also_acts_for_another(desk: Desk) -> None:
    desk.policy(approvals=2)
    desk.world.fold(by(desk, ASK, "ana"))
    desk.world.fold(by(desk, APPROVE, "bob"))
    with pytest.raises(ReviewRequired, match="already"):
        by(desk, APPROVE, "cid", "bob")
    desk.world.fold(by(desk, APPROVE, "cid"))
    assert desk.stage() == "Production"


def test_the_author_is_excluded_whoever_registers_for_it(desk: Desk) -> None:
    desk.world.fold(by(desk, CreateModelVersion(name="m", source="s3://b/3"), "ana", "bob"))
    desk.policy()
    desk.do("cid", RequestTransition(name="m", version="3", stage="Production"))
    for who in ("ana", "bob"):
        assert "author of the version" in desk.refused(who, version="3")
    assert desk.approval("dan", version="3").completes


# Evidence


def test_an_alias_that_is_called_like_a_stage_archives_nothing(desk: Desk) -> None:
    desk.do("ana", TransitionStage(name="m", version="2", stage="Production"))
    desk.ask(stage="@Production")
    with pytest.raises(NotAllowedNow, match="cannot archive"):
        desk.approval("bob", stage="@Production", archive_others=True)
    assert desk.approve("bob", stage="@Production").archived == ()
    assert desk.stage(2) == "Production"


@pytest.mark.parametrize("number", ["3", " 3", "+3", "03"])
def test_the_run_is_found_however_the_number_is_written(desk: Desk, number: str) -> None:
    run_id = desk.run(0.4)
    desk.version(run_id)
    assert origins_of_version(desk.world.state, "m", number) == (("run", run_id),)
    assert origins_of_version(desk.world.state, "m", "three") == ()


def test_what_a_move_archives_is_looked_at_with_its_own_run(desk: Desk) -> None:
    run_id = desk.run(0.4)
    desk.version(run_id)
    desk.do("ana", TransitionStage(name="m", version="3", stage="Production"))
    move = msgspec.structs.replace(MOVE, stage="production", archive_others=True)
    approval = ApproveRequest(name="m", version="1", stage="production", archive_others=True)
    for command in (move, approval):
        assert command.further_needs(desk.world.state) == (("run", run_id),)
    desk.policy("keep", stages=("Archived",), approvals=0, condition="metrics.loss < 0.5")
    moved = desk.do("ana", move)
    assert (moved.versions[1].stage, moved.versions[3].stage) == ("Production", "Archived")


def test_files_of_another_version_are_no_evidence(desk: Desk) -> None:
    desk.ask()
    files = FileDigests(location="s3://b/x", by_path={"a": "00"}, total=2, sha256=b"all")
    with pytest.raises(Invalid, match="replaced"):
        desk.approval("bob", files=msgspec.structs.replace(files, location="s3://b/y"))
    evidence = desk.approval("bob", files=files).evidence
    assert (evidence.artifacts, evidence.artifacts_total) == ({"a": "00"}, 2)
    assert evidence.artifacts_sha256 == b"all"
    assert desk.approval("bob").evidence.artifacts_sha256 is None


def test_datasets_of_one_name_are_all_told(desk: Desk) -> None:
    run_id = desk.run(0.4)
    datasets = tuple(
        e.DatasetInput(name="d", digest=digest, source_type="s", source="{}", tags={})
        for digest in ("1", "2")
    )
    desk.do("ana", LogInputs(run_id=run_id, datasets=datasets))
    desk.version(run_id)
    desk.ask("3")
    evidence = desk.approval("bob", version="3").evidence
    assert [(d.name, d.digest) for d in evidence.dataset_digests] == [("d", "1"), ("d", "2")]


def test_of_many_metrics_those_that_conditions_name_come_first(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(promotion_evidence, "METRICS_MAX", 3)
    run_id = desk.run(0.4)
    keys = ["a", "b", "c", "z 1"]
    desk.do("ana", LogBatch(run_id=run_id, metrics=pack(keys, [1.0] * 4, [1] * 4, [1] * 4)))
    desk.version(run_id)
    desk.policy(condition="metrics.`z 1` = 1 AND metrics.loss < 1")
    desk.ask("3")
    evidence = desk.approval("bob", version="3").evidence
    assert list(evidence.metrics) == ["loss", "z 1", "c"], "c stands in the text by chance"
    assert evidence.metrics_total == 5


def test_a_policy_is_found_at_once_among_many_things(desk: Desk) -> None:
    fields: dict[str, Any] = {"workspace": "*", "pattern": "q", "stages": ("Staging",)}
    desk.do("root", SetPromotionPolicy(policy="q", **fields))
    assert [p.policy for p in desk.world.state.of_kind("promotion_policy")] == ["q"]  # type: ignore[attr-defined]
    desk.do("root", RemovePromotionPolicy(policy="q"))
    assert list(desk.world.state.of_kind("promotion_policy")) == []

"""Promotion policies: what they may say, which are in force, and that names lead around none."""

from __future__ import annotations

from typing import Any

import pytest

from harness.review_desk import Desk
from harness.world import TestWorld
from muniment_services.domain.errors import (
    Invalid,
    NotFound,
    ReviewRequired,
)
from muniment_services.domain.model_version import (
    CreateModelVersion,
    SetModelVersionTag,
    TransitionStage,
)
from muniment_services.domain.promotion import (
    ApproveRequest,
    RequestTransition,
)
from muniment_services.domain.promotion_policy import RemovePromotionPolicy, SetPromotionPolicy
from muniment_services.domain.registered_model import require
from muniment_services.domain.registry_life import (
    CreateRegisteredModel,
    RenameRegisteredModel,
    SetAlias,
)


@pytest.fixture
def desk() -> Desk:
    return Desk()


# Several policies at once


def test_all_policies_in_force_must_be_met(desk: Desk) -> None:
    run_id = desk.run(0.4)
    desk.version(run_id)
    desk.policy("risk", approver_groups=("risk",), condition="metrics.loss < 0.5")
    desk.policy("audit", pattern="*", workspace="*", approver_groups=("audit", "law"), approvals=2)
    desk.policy("tags", required_tags=("ok=yes", "ok=yes"))
    desk.policy("elsewhere", workspace="other", approvals=9)
    desk.policy("unguarded", stages=("Staging",), approvals=9)
    desk.do("cid", RequestTransition(name="m", version="3", stage="Production"))
    of = {"version": "3"}
    assert "the tag ok=yes" in desk.refused("bob", "risk", "law", **of)
    desk.do("ana", SetModelVersionTag(name="m", version="3", key="ok", value="yes"))
    assert "audit or law and risk" in desk.refused("bob", "risk", **of)
    assert "author of the version" in desk.refused("ana", "risk", "law", **of)
    assert "asks for" in desk.refused("cid", "risk", "law", **of)
    assert desk.approve("bob", "risk", "law", "else", **of).groups == ("law", "risk")
    last = desk.approve("dan", "risk", "audit", **of)
    assert last.completes
    assert last.evidence.policies == ("audit", "risk", "tags")
    assert last.evidence.conditions == ("metrics.loss < 0.5",)
    assert (last.evidence.run_id, last.evidence.metrics) == (run_id, {"loss": 0.4})


@pytest.mark.parametrize(
    ("pattern", "name", "concerned"),
    [
        *(("*", "m", True), ("m", "m", True), ("m", "mm", False), ("m*", "m", True)),
        *(("*m*", "amb", True), ("a*b*c", "axbxc", True), ("a*b*c", "axcxb", False)),
        *(("aa*aa", "aaa", False), ("m?", "mx", False), ("M", "m", False), ("a**b", "ab", True)),
    ],
)
def test_patterns_of_names(pattern: str, name: str, concerned: bool) -> None:
    world = TestWorld()
    world.do(CreateRegisteredModel(name=name))
    world.do(CreateModelVersion(name=name, source="s3://b/x"))
    fields: dict[str, Any] = {"workspace": "*", "pattern": pattern, "stages": ("Staging",)}
    world.do(SetPromotionPolicy(policy="p", **fields))
    move = TransitionStage(name=name, version="1", stage="Staging")
    if concerned:
        with pytest.raises(ReviewRequired, match="1 approval of a transition request"):
            world.decide(move)
    else:
        world.do(move)


# Names


def test_a_new_name_leads_neither_out_of_a_policy_nor_under_it_unasked(desk: Desk) -> None:
    desk.policy(pattern="m*")
    desk.do("ana", RenameRegisteredModel(name="m", new_name="m2"))
    desk.do("ana", RenameRegisteredModel(name="m2", new_name="m"))
    with pytest.raises(ReviewRequired, match="the policy p"):
        desk.do("ana", RenameRegisteredModel(name="m", new_name="n"))
    desk.policy(pattern="n")
    desk.ask()
    desk.do("ana", TransitionStage(name="m", version="2", stage="Production"))
    with pytest.raises(ReviewRequired, match="the policy p"):
        desk.do("ana", RenameRegisteredModel(name="m", new_name="n"))
    desk.do("ana", TransitionStage(name="m", version="2", stage="Archived"))
    desk.do("ana", RenameRegisteredModel(name="m", new_name="n"))
    (kept,) = require(desk.world.state, "n").review.requests
    assert kept.version == 1
    chosen = ApproveRequest(name="n", version="1", stage="Production")
    with pytest.raises(ReviewRequired, match="asks for"):
        desk.world.decide(chosen, "ana")
    desk.do("bob", chosen)
    assert require(desk.world.state, "n").versions[1].stage == "Production"


def test_a_new_name_does_not_bring_an_alias_under_a_policy(desk: Desk) -> None:
    desk.policy(pattern="n", stages=(), aliases=("champion",))
    desk.do("ana", SetAlias(name="m", alias="champion", version="1"))
    with pytest.raises(ReviewRequired):
        desk.do("ana", RenameRegisteredModel(name="m", new_name="n"))


# What a policy may be


@pytest.mark.parametrize(
    "fields",
    [
        {"stages": ()},
        {"stages": ("Nowhere",)},
        {"aliases": ("latest",)},
        {"aliases": ("v1",)},
        {"pattern": ""},
        {"pattern": "x" * 257},
        {"approvals": -1},
        {"approvals": 21},
        {"required_tags": ("t",) * 51},
        {"name": " "},
        {"name": "a/b"},
        {"name": "x" * 101},
    ],
)
def test_what_is_no_policy(desk: Desk, fields: dict[str, Any]) -> None:
    with pytest.raises(Invalid):
        desk.policy(**fields)


def test_a_policy_that_says_the_same_is_no_event(desk: Desk) -> None:
    desk.policy(stages=("production",))
    count = len(desk.world.events)
    desk.policy()
    assert len(desk.world.events) == count
    desk.policy(approvals=2)
    assert len(desk.world.events) == count + 1
    with pytest.raises(NotFound):
        desk.do("root", RemovePromotionPolicy(policy="q"))


def test_a_policy_that_asks_for_no_approval_names_no_approvers(desk: Desk) -> None:
    with pytest.raises(Invalid, match="at least one approval"):
        desk.policy(approvals=0, approver_groups=("risk",))


def test_without_a_source_run_a_condition_is_not_met(desk: Desk) -> None:
    desk.policy(approvals=0, condition="NOT metrics.loss > 1")
    with pytest.raises(ReviewRequired, match="a source run whose artifacts"):
        desk.do("ana", TransitionStage(name="m", version="1", stage="Production"))

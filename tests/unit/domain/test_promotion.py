"""Reviewed promotion: requests and approvals while policies change, and what ends a request."""

from __future__ import annotations

from typing import Any

import pytest

from harness.review_desk import Desk
from muniment_schemas import events as e
from muniment_services.domain import promotion
from muniment_services.domain.commands import Command
from muniment_services.domain.errors import (
    AlreadyExists,
    Invalid,
    NotAllowedNow,
    NotFound,
    ReviewRequired,
)
from muniment_services.domain.model_version import (
    DeleteModelVersion,
    SetModelVersionTag,
    TransitionStage,
)
from muniment_services.domain.promotion import (
    CancelRequest,
    RejectRequest,
    RequestTransition,
)
from muniment_services.domain.promotion_policy import RemovePromotionPolicy, SetPromotionPolicy
from muniment_services.domain.registry_life import (
    CreateRegisteredModel,
    DeleteRegisteredModel,
    RenameRegisteredModel,
    SetAlias,
)


@pytest.fixture
def desk() -> Desk:
    return Desk()


# Policies that change while a request is open


def test_a_quorum_that_is_raised_counts_for_open_requests(desk: Desk) -> None:
    desk.policy(approvals=2)
    desk.ask()
    desk.approve("bob")
    desk.policy(approvals=3)
    second = desk.approve("cid")
    assert (second.completes, second.approvals_given, second.approvals_needed) == (False, 2, 3)
    assert desk.approve("dan").completes
    assert desk.stage() == "Production"


def test_a_quorum_that_is_lowered_lets_any_approver_finish_it(desk: Desk) -> None:
    desk.policy(approvals=3)
    desk.ask()
    desk.approve("bob")
    desk.approve("cid")
    assert "already" in desk.refused("cid")
    desk.policy(approvals=2)
    assert desk.stage() == "None", "a policy moves nothing by itself"
    assert desk.approve("bob").completes, "whoever has approved may say so again"
    assert desk.open == []


def test_groups_that_change_make_approvals_count_no_more(desk: Desk) -> None:
    desk.policy(approvals=2, approver_groups=("risk",))
    desk.ask()
    assert desk.approve("bob", "risk", "audit").groups == ("risk",), "what was asked for"
    desk.policy(approvals=2, approver_groups=("audit",))
    assert desk.approve("cid", "audit").approvals_given == 1, "bob's was one for risk"
    again = desk.approve("bob", "risk", "audit")
    assert (again.groups, again.completes) == (("audit",), True)


def test_an_approver_who_approves_anew_is_one_approver(desk: Desk) -> None:
    desk.policy(approvals=2, approver_groups=("risk",))
    desk.ask()
    desk.approve("bob", "risk", "audit")
    desk.policy(approvals=2, approver_groups=("audit",))
    assert not desk.approve("bob", "audit").completes
    assert [(a.approver, a.groups) for a in desk.requests[0].approvals] == [("bob", ("audit",))]


def test_exclusions_that_are_added_make_approvals_count_no_more(desk: Desk) -> None:
    desk.policy(approvals=2, exclude_requester=False, exclude_author=False)
    desk.ask()
    desk.approve("ana")
    desk.policy(approvals=2)
    assert desk.approve("bob").approvals_given == 1
    assert "asks for" in desk.refused("ana")
    assert desk.approve("cid").completes


def test_a_policy_that_is_removed_leaves_one_approval_to_give(desk: Desk) -> None:
    desk.policy(approvals=2)
    desk.ask()
    desk.do("root", RemovePromotionPolicy(policy="p"))
    event = desk.approve("ana")
    assert (event.completes, event.evidence.policies) == (True, ())


def test_a_policy_that_comes_later_counts(desk: Desk) -> None:
    desk.ask()
    desk.policy(required_comment=True, required_tags=("ok",))
    assert "comment" in desk.refused("bob")
    assert "the tag ok" in desk.refused("bob", comment="yes")


# Aliases and archiving


def test_an_alias_is_asked_for_approved_and_moved(desk: Desk) -> None:
    desk.policy(stages=(), aliases=("champion",))
    desk.do("ana", SetAlias(name="m", alias="other", version="2"))
    with pytest.raises(ReviewRequired, match="@champion"):
        desk.do("ana", SetAlias(name="m", alias="champion", version="2"))
    for version in ("1", "2"):
        desk.ask(version, "@champion")
        event = desk.approve("bob", version=version, stage="@champion")
    assert (event.from_stage, event.previous_version) == (None, 1)
    assert desk.model.aliases == {"other": 2, "champion": 2}
    assert desk.open == []
    with pytest.raises(Invalid, match="already"):
        desk.ask("2", "@champion")


def test_one_request_a_target_and_targets_are_apart(desk: Desk) -> None:
    for stage in ("Production", "Staging", "@production", "@champion"):
        desk.ask(stage=stage)
    with pytest.raises(AlreadyExists):
        desk.ask(stage="production")
    desk.approve("bob", stage="@production")
    assert desk.open == [(1, "Production"), (1, "Staging"), (1, "@champion")]
    assert desk.stage() == "None"


def test_an_approval_archives_the_others_and_ends_what_was_asked_for_them(desk: Desk) -> None:
    desk.do("ana", TransitionStage(name="m", version="2", stage="Production"))
    desk.ask("2", "Archived")
    desk.ask("2", "Staging")
    desk.policy(approvals=2)
    desk.ask()
    assert desk.approve("bob", archive_others=True).archived == ()
    last = desk.approve("cid", archive_others=True)
    assert [(a.version, a.from_stage) for a in last.archived] == [(2, "Production")]
    assert (desk.stage(1), desk.stage(2)) == ("Production", "Archived")
    assert desk.open == [(2, "Staging")], "nobody needs to archive it any more"


def test_a_plain_move_that_archives_ends_what_was_asked_for_the_others(desk: Desk) -> None:
    desk.do("ana", TransitionStage(name="m", version="2", stage="Staging"))
    desk.ask("2", "Archived")
    move = TransitionStage(name="m", version="1", stage="Staging", archive_others=True)
    desk.do("ana", move)
    assert (desk.stage(2), desk.open) == ("Archived", [])


def test_a_guarded_archive_is_not_reached_by_promoting_another(desk: Desk) -> None:
    desk.do("ana", TransitionStage(name="m", version="2", stage="Production"))
    desk.policy("keep", stages=("Archived",))
    move = TransitionStage(name="m", version="1", stage="Production", archive_others=True)
    with pytest.raises(ReviewRequired, match="keep"):
        desk.do("ana", move)
    desk.ask()
    assert "keep" in desk.refused("bob", archive_others=True)
    assert desk.approve("bob").completes
    assert (desk.stage(1), desk.stage(2)) == ("Production", "Production")


def test_an_approval_archives_for_active_stages_only(desk: Desk) -> None:
    for stage in ("Archived", "@champion"):
        desk.ask(stage=stage)
        with pytest.raises(NotAllowedNow, match="cannot archive"):
            desk.approval("bob", stage=stage, archive_others=True)


# What ends a request


def test_a_deleted_version_takes_its_requests_and_comments_along(desk: Desk) -> None:
    desk.ask()
    desk.ask("2")
    for version in ("1", "2"):
        desk.do("bob", promotion.AddComment(name="m", version=version, text="hm"))
    desk.do("ana", DeleteModelVersion(name="m", version="1"))
    assert desk.open == [(2, "Production")]
    assert [c.version for c in desk.model.review.comments.values()] == [2]
    with pytest.raises(NotFound):
        desk.approval("bob")
    with pytest.raises(NotFound):
        desk.ask()
    desk.version()
    assert [v for v, _ in desk.open] == [2], "its number is not given again"


def test_a_model_that_is_made_anew_has_nothing_open(desk: Desk) -> None:
    desk.policy()
    desk.ask()
    desk.do("ana", DeleteRegisteredModel(name="m"))
    desk.do("ana", CreateRegisteredModel(name="m"))
    desk.version()
    assert desk.open == []
    with pytest.raises(ReviewRequired):
        desk.do("ana", TransitionStage(name="m", version="1", stage="Production"))


def test_only_whoever_asked_takes_it_back(desk: Desk) -> None:
    desk.ask()
    about = {"name": "m", "version": "1", "stage": "Production"}
    for who, creator in (("bob", None), ("bob", "ana"), ("ana", "bob")):
        with pytest.raises(NotFound):
            desk.do(who, CancelRequest(**about, creator=creator))
    desk.do("ana", CancelRequest(**about, creator="ana"))
    assert desk.open == []
    with pytest.raises(NotFound):
        desk.do("bob", RejectRequest(**about))


def test_a_model_has_so_many_open_requests_at_most(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(promotion, "REQUESTS_OPEN_MAX", 2)
    desk.ask()
    desk.ask("2")
    with pytest.raises(Invalid, match="at most 2"):
        desk.ask(stage="Staging")
    desk.do("bob", RejectRequest(name="m", version="2", stage="Production"))
    desk.ask(stage="Staging")


def test_one_requester_has_so_many_open_requests_at_most(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(promotion, "REQUESTS_OF_ONE_MAX", 1)
    desk.ask()
    with pytest.raises(Invalid, match="at most 1 open"):
        desk.ask("2")
    desk.do("bob", promotion.RequestTransition(name="m", version="2", stage="Production"))
    assert len(desk.open) == 2


# Comments


def test_comments_have_limits(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(promotion, "COMMENTS_OF_ONE_MAX", 1)
    long = "x" * (promotion.COMMENT_CHARS_MAX + 1)
    for text in ("", long):
        with pytest.raises(Invalid):
            desk.do("bob", promotion.AddComment(name="m", version="1", text=text))
    with pytest.raises(Invalid):
        desk.ask(comment=long)
    desk.do("bob", promotion.AddComment(name="m", version="1", text=long[1:]))
    with pytest.raises(Invalid, match="at most 1 comments on a version"):
        desk.do("bob", promotion.AddComment(name="m", version="1", text="more"))
    desk.do("bob", promotion.AddComment(name="m", version="2", text="elsewhere"))
    desk.do("ana", promotion.AddComment(name="m", version="1", text="of another"))


def test_a_comment_is_its_authors_and_keeps_its_beginning(desk: Desk) -> None:
    desk.do("bob", promotion.AddComment(name="m", version="1", text="why?"))
    ((comment_id, made),) = desk.model.review.comments.items()
    change = promotion.UpdateComment(comment_id=comment_id, text="ah")
    delete = promotion.DeleteComment(comment_id=comment_id)
    for command in (change, delete):
        with pytest.raises(ReviewRequired):
            desk.do("ana", command)
    desk.do("bob", change)
    assert desk.do("bob", change) is None, "it says so already"
    changed = desk.model.review.comments[comment_id]
    assert (changed.text, changed.created_at_ms) == ("ah", made.created_at_ms)
    assert changed.updated_at_ms > made.updated_at_ms
    desk.do("bob", delete)
    for command in (change, delete):
        with pytest.raises(NotFound):
            desk.do("bob", command)


# Races: what was decided on a state that is gone is void


def void(desk: Desk, event: e.Event) -> str | None:
    return desk.world.state.fold(desk.world.record(event), event).void


def test_of_two_last_approvals_one_is_void(desk: Desk) -> None:
    desk.ask()
    first, second = desk.approval("bob"), desk.approval("cid")
    assert void(desk, first) is None
    assert void(desk, second) is not None
    assert desk.stage() == "Production"


@pytest.mark.parametrize(
    "between",
    [
        CancelRequest(name="m", version="1", stage="Production"),
        RejectRequest(name="m", version="1", stage="Production"),
        DeleteModelVersion(name="m", version="1"),
        SetModelVersionTag(name="m", version="1", key="ok", value="no"),
        TransitionStage(name="m", version="1", stage="Production"),
        RenameRegisteredModel(name="m", new_name="n"),
    ],
    ids=lambda command: type(command).__name__,
)
def test_an_approval_is_void_when_the_model_has_changed(desk: Desk, between: Command) -> None:
    desk.ask()
    late = desk.approval("bob")
    desk.do("ana", between)
    before = dict(desk.world.state.catalog)
    assert void(desk, late) is not None
    assert desk.world.state.catalog == before


def test_of_two_requests_for_one_target_one_is_void(desk: Desk) -> None:
    command = RequestTransition(name="m", version="1", stage="Production")
    events = [desk.world.decide(command, who) for who in ("ana", "bob")]
    assert all(event is not None for event in events)
    assert [void(desk, event) is None for event in events if event] == [True, False]
    assert [r.requester for r in desk.requests] == ["ana"]


def test_of_two_changes_of_a_policy_one_is_void(desk: Desk) -> None:
    desk.policy()
    fields: dict[str, Any] = {"workspace": "default", "pattern": "*", "stages": ("Staging",)}
    change = desk.world.decide(SetPromotionPolicy(policy="p", **fields))
    removal = desk.world.decide(RemovePromotionPolicy(policy="p"))
    assert change is not None
    assert removal is not None
    assert void(desk, removal) is None
    assert void(desk, change) is not None

"""Roles and grants: what may not be, what may not be lost, and who wins a race."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from harness.world import ACTOR, TestWorld
from muniment_auth.permissions import ROLES
from muniment_schemas import events as e
from muniment_schemas.access_events import BUILT_IN_ROLES, ClaimPattern, Grant
from muniment_services.documents import parse
from muniment_services.domain import limits
from muniment_services.domain.access import (
    EMPTY,
    KIND,
    AccessState,
    DefineRole,
    EndOwnership,
    MakeGrant,
    RemoveRole,
    RevokeGrant,
    equal_grant,
    state_of,
)
from muniment_services.domain.errors import DomainError, Invalid, NotFound, StillNeeded
from muniment_services.domain.experiment import CreateExperiment

ISSUER = "https://idp.example"
ADMIN: dict[str, Any] = {
    "role": "admin",
    "workspace": "*",
    "resource_kind": "*",
    "pattern": "*",
}


def grant(**fields: Any) -> Grant:
    chosen: dict[str, Any] = {
        "subject_kind": "principal",
        "subject": "anna",
        "role": "editor",
        "resource_kind": "model",
        "pattern": "team-*",
    }
    return Grant(grant_id="", **chosen | fields)


def make(world: TestWorld, **fields: Any) -> str:
    event = world.decide(MakeGrant(grant=grant(**fields)))
    assert isinstance(event, e.GrantMade)
    world.fold(event)
    return event.grant.grant_id


@pytest.fixture
def world() -> TestWorld:
    return TestWorld()


def test_the_domain_knows_the_built_in_roles_by_name() -> None:
    assert tuple(ROLES) == BUILT_IN_ROLES


def test_a_grant_is_kept_with_who_made_it_and_taken_back_whole(world: TestWorld) -> None:
    made = make(world, comment="for the team")
    record = state_of(world.state).grants[made]
    assert (record.granted_by, record.granted_at_ms) == ("tester", world.now_ms)
    event = world.decide(RevokeGrant(grant_id=made, reason="left"))
    assert isinstance(event, e.GrantRevoked)
    assert (event.grant, event.reason) == (record.grant, "left")
    world.fold(event)
    assert state_of(world.state).grants == {}
    with pytest.raises(NotFound):
        world.decide(RevokeGrant(grant_id=made))


def test_conditions_are_kept_in_one_form(world: TestWorld) -> None:
    made = make(world, stages=("production", "Staging"), aliases=("b", "a", "a"))
    kept = state_of(world.state).grants[made].grant
    assert (kept.stages, kept.aliases) == (("Production", "Staging"), ("a", "b"))


def test_the_same_grant_again_is_nothing_new(world: TestWorld) -> None:
    made = make(world, stages=("Staging", "Production"))
    again = grant(stages=("production", "staging"), comment="said differently")
    assert world.do(MakeGrant(grant=again)) is None
    found = equal_grant(world.state, MakeGrant(grant=again), ACTOR, world.now_ms)
    assert found is not None
    assert found.grant.grant_id == made
    assert make(world, stages=("Staging",)) != made


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"role": "emperor"}, "There is no role"),
        ({"subject_kind": "robot"}, "subject_kind"),
        ({"subject": ""}, "needs 'subject'"),
        ({"subject_kind": "everyone"}, "has no 'subject'"),
        ({"subject_kind": "group"}, "needs 'issuer'"),
        ({"subject_kind": "group", "issuer": "idp"}, "issuer's URL"),
        ({"issuer": ISSUER}, "has no 'issuer'"),
        ({"subject_kind": "claims", "subject": "", "issuer": ISSUER}, "needs 'claims'"),
        ({"resource_kind": "run"}, "resource_kind"),
        ({"resource_kind": "server", "pattern": "*"}, "workspace '*'"),
        ({"pattern": ""}, "pattern"),
        ({"pattern": "a*b*c*d*e*"}, "times '*'"),
        ({"pattern": "id:"}, "whole id"),
        ({"pattern": "id:1*"}, "whole id"),
        ({"pattern": "id:1", "resource_kind": "*"}, "name its kind"),
        ({"workspace": ""}, "workspace"),
        ({"workspace": "team-*"}, "workspace"),
        ({"stages": ("Nowhere",)}, "stage"),
        ({"stages": ("Staging",), "resource_kind": "experiment"}, "on models and prompts"),
        ({"aliases": ("a b",)}, "alias"),
        ({"tag_keys": ("",)}, "tag_keys"),
        ({"tag_keys": tuple(map(str, range(51)))}, "50 items"),
        ({"expires_at_ms": 5}, "in the future"),
        ({"comment": "x" * 1001}, "comment"),
    ],
)
def test_what_cannot_be_a_grant_is_refused(
    world: TestWorld, fields: dict[str, Any], says: str
) -> None:
    with pytest.raises(Invalid) as refused:
        world.decide(MakeGrant(grant=grant(**fields)))
    assert says in refused.value.message


@pytest.mark.parametrize(
    ("claims", "refused"),
    [
        ((("sub", "*"), ("repository", "org/app")), True),
        ((("sub", "**"),), True),
        ((("repository", "*"),), True),
        ((("repository", "*"), ("ref", "*")), True),
        ((("", "x"),), True),
        ((("ref", ""),), True),
        ((("repository", "*"), ("ref", "refs/heads/main")), False),
        ((("sub", "repo:org/*"),), False),
    ],
)
def test_claims_must_say_something(
    world: TestWorld, claims: tuple[tuple[str, str], ...], refused: bool
) -> None:
    wanted = tuple(ClaimPattern(name=name, pattern=pattern) for name, pattern in claims)
    command = MakeGrant(
        grant=grant(subject_kind="claims", subject="", issuer=ISSUER, claims=wanted)
    )
    if refused:
        with pytest.raises(Invalid):
            world.decide(command)
    else:
        assert world.do(command) is not None


def test_the_last_admin_stays(world: TestWorld) -> None:
    first = make(world, **ADMIN)
    brief = make(world, **ADMIN, expires_at_ms=world.now_ms + 1000)
    make(world, **(ADMIN | {"workspace": "lab"}))
    with pytest.raises(StillNeeded):
        world.decide(RevokeGrant(grant_id=first))
    assert world.decide(RevokeGrant(grant_id=brief)) is not None
    second = make(world, **ADMIN | {"subject": "eva"})
    assert world.decide(RevokeGrant(grant_id=first)) is not None
    world.do(RevokeGrant(grant_id=second))
    world.now_ms += 2000
    with pytest.raises(StillNeeded):
        world.decide(RevokeGrant(grant_id=first))
    world.do(RevokeGrant(grant_id=brief))
    world.do(RevokeGrant(grant_id=first, admins_elsewhere=True))
    assert first not in state_of(world.state).grants


def test_of_two_revocations_that_would_leave_no_admin_one_is_void(world: TestWorld) -> None:
    first, second = make(world, **ADMIN), make(world, **ADMIN | {"subject": "eva"})
    events = [world.decide(RevokeGrant(grant_id=made)) for made in (first, second)]
    assert all(events)
    folded = [world.state.fold(world.record(event), event) for event in events if event]
    assert [item.void is None for item in folded] == [True, False]
    with pytest.raises(StillNeeded):
        world.decide(RevokeGrant(grant_id=second))


def test_roles_are_defined_changed_and_removed(world: TestWorld) -> None:
    role = DefineRole(name="promoter", permissions=("model:promote", "model:read"))
    world.do(role)
    assert world.do(role) is None
    world.do(DefineRole(name="promoter", permissions=("model:read",), description="less"))
    made = make(world, role="promoter")
    with pytest.raises(StillNeeded, match=made):
        world.decide(RemoveRole(name="promoter"))
    world.do(RevokeGrant(grant_id=made))
    world.do(RemoveRole(name="promoter"))
    assert state_of(world.state).roles == {}


@pytest.mark.parametrize(
    "command",
    [
        DefineRole(name="admin", permissions=("run:read",)),
        DefineRole(name="Big Role", permissions=("run:read",)),
        DefineRole(name="", permissions=("run:read",)),
        DefineRole(name="x" * 65, permissions=("run:read",)),
        DefineRole(name="none", permissions=()),
        DefineRole(name="odd", permissions=("run",)),
        RemoveRole(name="viewer"),
        RemoveRole(name="nobody"),
        EndOwnership(resource_kind="server", resource_id="1"),
        EndOwnership(resource_kind="experiment", resource_id="1"),
    ],
)
def test_what_cannot_be_done_is_refused(
    world: TestWorld, command: DefineRole | RemoveRole | EndOwnership
) -> None:
    with pytest.raises(DomainError):
        world.decide(command)


def test_an_ownership_ends_once(world: TestWorld) -> None:
    world.do(CreateExperiment(name="e", artifact_location=None, artifact_root="mlflow-artifacts:"))
    command = EndOwnership(resource_kind="experiment", resource_id="1", reason="left")
    event = world.decide(command)
    assert isinstance(event, e.OwnershipEnded)
    assert event.resource_name == "e"
    world.fold(event)
    assert world.do(command) is None
    assert state_of(world.state).ended == {("experiment", "1")}


def test_grants_have_a_limit(world: TestWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    assert limits.GRANTS_MAX == 10_000
    monkeypatch.setattr("muniment_services.domain.access.GRANTS_MAX", 2)
    make(world, subject="a")
    make(world, subject="b")
    with pytest.raises(Invalid, match="2 grants"):
        world.decide(MakeGrant(grant=grant(subject="c")))


def test_who_is_no_admin_has_a_limit_of_their_own(
    world: TestWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert limits.GRANTS_OF_MAKER_MAX < limits.GRANTS_MAX
    monkeypatch.setattr("muniment_services.domain.access.GRANTS_OF_MAKER_MAX", 1)
    make(world, subject="a")
    with pytest.raises(Invalid, match="made 1 grants"):
        world.decide(MakeGrant(grant=grant(subject="b"), bounded=True))
    world.do(MakeGrant(grant=grant(subject="b")))


def test_the_state_is_read_back_as_it_was(world: TestWorld) -> None:
    wanted = (ClaimPattern(name="sub", pattern="repo:*"),)
    make(world, subject_kind="claims", subject="", issuer=ISSUER, claims=wanted)
    world.do(DefineRole(name="promoter", permissions=("model:promote",)))
    state = state_of(world.state)
    assert isinstance(state, AccessState)
    kept = msgspec.structs.replace(state, ended=frozenset({("experiment", "1")}))
    assert parse(KIND, msgspec.msgpack.encode(kept)) == kept
    assert state_of(TestWorld().state) is EMPTY

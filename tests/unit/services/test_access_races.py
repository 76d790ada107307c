"""Two servers on one log cannot use a right that the other has taken away."""

from __future__ import annotations

import pytest

from harness.world import TestWorld
from muniment_schemas import events as e
from muniment_schemas.access_events import Grant
from muniment_services.domain.access import (
    AccessCommand,
    DefineRole,
    EndOwnership,
    MakeGrant,
    RemoveRole,
    RevokeGrant,
    state_of,
)
from muniment_services.domain.errors import Superseded
from muniment_services.domain.experiment import CreateExperiment


def grant(subject: str) -> Grant:
    return Grant(
        grant_id="",
        subject_kind="principal",
        subject=subject,
        role="manager",
        resource_kind="experiment",
        pattern="*",
    )


@pytest.fixture
def world() -> TestWorld:
    found = TestWorld()
    found.do(MakeGrant(grant=grant("anna")))
    found.do(DefineRole(name="own", permissions=("run:read",)))
    found.do(CreateExperiment(name="e", artifact_location=None, artifact_root="mlflow-artifacts:"))
    return found


def commands(world: TestWorld, seen: int) -> list[AccessCommand]:
    (made,) = state_of(world.state).grants
    return [
        MakeGrant(grant=grant("eva"), seen_version=seen),
        RevokeGrant(grant_id=made, seen_version=seen, admins_elsewhere=True),
        DefineRole(name="x", permissions=("run:read",), seen_version=seen),
        RemoveRole(name="own", seen_version=seen),
        EndOwnership(resource_kind="experiment", resource_id="1", seen_version=seen),
    ]


def test_a_command_is_decided_on_the_state_that_its_right_was_checked_on(
    world: TestWorld,
) -> None:
    now = state_of(world.state).version
    for command in commands(world, now):
        assert world.decide(command) is not None
    for command in commands(world, now - 1):
        with pytest.raises(Superseded):
            world.decide(command)


def test_what_another_server_recorded_first_makes_it_void(world: TestWorld) -> None:
    seen = state_of(world.state).version
    (made,) = state_of(world.state).grants
    late = world.decide(MakeGrant(grant=grant("eva"), seen_version=seen))
    first = world.decide(RevokeGrant(grant_id=made, seen_version=seen))
    assert isinstance(late, e.GrantMade)
    assert isinstance(first, e.GrantRevoked)
    assert world.state.fold(world.record(first), first).void is None
    assert world.state.fold(world.record(late), late).void is not None
    assert state_of(world.state).grants == {}

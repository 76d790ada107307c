"""Decisions on a run's life: create, update, delete, restore."""

from __future__ import annotations

from collections.abc import Callable

from muniment_schemas import events as e
from muniment_services.domain import experiment as experiments
from muniment_services.domain import hold
from muniment_services.domain.commands import AggregateKey, Command, Context, World
from muniment_services.domain.errors import Invalid
from muniment_services.domain.experiment import ACTIVE, DELETED
from muniment_services.domain.limits import unique_tags
from muniment_services.domain.run import KIND, RUN_NAME_TAG, lifecycle_of, require, require_active
from muniment_services.domain.run_names import random_run_name

STATUSES = frozenset({"RUNNING", "SCHEDULED", "FINISHED", "FAILED", "KILLED"})


class CreateRun(Command, frozen=True, kw_only=True):
    """Start a run. An empty name is replaced by the runName tag or a made-up one."""

    experiment_id: str
    name: str
    user_id: str
    start_time_ms: int
    tags: tuple[tuple[str, str], ...] = ()


class UpdateRun(Command, frozen=True, kw_only=True):
    """Change status, end or name; None and an empty name change nothing."""

    run_id: str
    status: str | None = None
    end_time_ms: int | None = None
    name: str | None = None

    def needs(self) -> tuple[AggregateKey, ...]:
        """The run."""
        return ((KIND, self.run_id),)


class DeleteRun(Command, frozen=True, kw_only=True):
    """Move a run to the deleted stage."""

    run_id: str

    def needs(self) -> tuple[AggregateKey, ...]:
        """The run."""
        return ((KIND, self.run_id),)


class RestoreRun(Command, frozen=True, kw_only=True):
    """Make a deleted run active again."""

    run_id: str

    def needs(self) -> tuple[AggregateKey, ...]:
        """The run."""
        return ((KIND, self.run_id),)


def create(world: World, command: CreateRun, context: Context) -> e.RunCreated:
    """Raises NotFound or Invalid for the experiment, Invalid for two different names."""
    experiment = experiments.require_active(world, command.experiment_id)
    tags = unique_tags(command.tags)
    tagged = tags.get(RUN_NAME_TAG, "")
    if command.name and tagged and command.name != tagged:
        raise Invalid(
            "Both 'run_name' argument and 'mlflow.runName' tag are specified, but with different "
            f"values (run_name='{command.name}', mlflow.runName='{tagged}')."
        )
    name = command.name or tagged or _made_up(context.random)
    run_id = context.new_id(command.start_time_ms or context.now_ms)
    return e.RunCreated(
        envelope=context.envelope(
            e.RunCreated, run_id, occurred_at_ms=command.start_time_ms or None
        ),
        experiment_id=command.experiment_id,
        name=name,
        user_id=command.user_id,
        start_time_ms=command.start_time_ms,
        artifact_uri=f"{experiment.artifact_location.rstrip('/')}/{run_id}/artifacts",
        tags={**tags, RUN_NAME_TAG: name},
    )


def update(world: World, command: UpdateRun, context: Context) -> e.RunUpdated | None:
    """None when the command changes nothing. Raises NotFound, Invalid for a deleted run, Held for
    another name."""
    run = require_active(world, command.run_id)
    name = command.name or None
    status = command.status if command.status in STATUSES else None
    if name is None and status is None and command.end_time_ms is None:
        return None
    if name is not None and name != run.name:
        hold.refuse(hold.on_run(world, run), f"The run {run.run_id}")
    return e.RunUpdated(
        envelope=context.envelope(e.RunUpdated, run.run_id, occurred_at_ms=command.end_time_ms),
        status=status,
        end_time_ms=command.end_time_ms,
        name=name,
    )


def delete(world: World, command: DeleteRun, context: Context) -> e.RunDeleted | None:
    """None when it is deleted already."""
    run = require(world, command.run_id)
    if lifecycle_of(world, run) == DELETED:
        return None
    hold.refuse(hold.on_run(world, run), f"The run {run.run_id}")
    return e.RunDeleted(envelope=context.envelope(e.RunDeleted, run.run_id))


def restore(world: World, command: RestoreRun, context: Context) -> e.RunRestored | None:
    """None when it is active already."""
    run = require(world, command.run_id)
    if lifecycle_of(world, run) == ACTIVE:
        return None
    return e.RunRestored(envelope=context.envelope(e.RunRestored, run.run_id))


def _made_up(random: Callable[[int], bytes]) -> str:
    return random_run_name(random)

"""Experiments: created once, renamed, tagged, deleted and restored. Names are unique for ever.

Deleting an experiment deletes its runs: a run's effective stage is whichever changed later, its own
or its experiment's (`effective_lifecycle`), so that no event has to list the runs.
"""

from __future__ import annotations

from itertools import chain
from urllib.parse import urlparse

import msgspec

from muniment_schemas import events as e
from muniment_services.domain import hold
from muniment_services.domain import workspace as workspaces
from muniment_services.domain.artifact import is_here, owners, path_of
from muniment_services.domain.commands import AggregateKey, Command, Context, State, World
from muniment_services.domain.errors import AlreadyExists, Invalid, NotFound, Void, WrongState
from muniment_services.domain.limits import (
    ARTIFACT_LOCATION_CHARS_MAX,
    EXPERIMENT_NAME_CHARS_MAX,
    EXPERIMENT_TAG_VALUE_CHARS_MAX,
    KEY_CHARS_MAX,
    check_key,
    check_length,
    shown,
)

KIND = "experiment"
ACTIVE = "active"
DELETED = "deleted"
DEFAULT_ID = "0"
DEFAULT_NAME = "Default"


class Experiment(State, frozen=True, kw_only=True):
    """An experiment. Times are milliseconds since 1970 by the server's clock.

    created_by: the principal that made it, and so is its manager.
    """

    experiment_id: str
    name: str
    artifact_location: str
    lifecycle: str
    lifecycle_changed_at_ms: int
    created_at_ms: int
    updated_at_ms: int
    tags: dict[str, str]
    created_by: str
    workspace: str


class CreateExperiment(Command, frozen=True, kw_only=True):
    """Create an experiment; without a location, its artifacts go below `artifact_root`."""

    name: str
    artifact_location: str | None
    artifact_root: str
    tags: tuple[tuple[str, str], ...] = ()
    experiment_id: str | None = None

    def serial(self) -> AggregateKey:
        """New ids are numbers, so creations go one at a time."""
        return (KIND, "")


class RenameExperiment(Command, frozen=True, kw_only=True):
    """Give an active experiment another name."""

    experiment_id: str
    name: str

    def serial(self) -> AggregateKey:
        """One history."""
        return (KIND, self.experiment_id)


class DeleteExperiment(Command, frozen=True, kw_only=True):
    """Move an experiment to the deleted stage."""

    experiment_id: str

    def further_needs(self, world: World) -> tuple[AggregateKey, ...]:
        """What may be in it and has to stay."""
        return hold.origins_held(world)

    def serial(self) -> AggregateKey:
        """One history."""
        return (KIND, self.experiment_id)


class RestoreExperiment(Command, frozen=True, kw_only=True):
    """Make a deleted experiment active again."""

    experiment_id: str

    def serial(self) -> AggregateKey:
        """One history."""
        return (KIND, self.experiment_id)


class SetExperimentTag(Command, frozen=True, kw_only=True):
    """Set one tag."""

    experiment_id: str
    key: str
    value: str

    def serial(self) -> AggregateKey:
        """One history."""
        return (KIND, self.experiment_id)


class DeleteExperimentTag(Command, frozen=True, kw_only=True):
    """Remove one tag."""

    experiment_id: str
    key: str

    def serial(self) -> AggregateKey:
        """One history."""
        return (KIND, self.experiment_id)


def checked_id(experiment_id: str) -> str:
    """The id in its one form, without zeros before it. Raises Invalid when it is no integer."""
    try:
        return str(int(experiment_id))
    except ValueError:
        raise Invalid(
            f"Invalid experiment ID '{experiment_id}'. Experiment ID must be a valid integer."
        ) from None


def require(world: World, experiment_id: str) -> Experiment:
    """The experiment, deleted or not; raises NotFound, or Invalid for an id that is no integer."""
    found = world.get(KIND, experiment_id)
    if found is None:
        checked_id(experiment_id)
        raise NotFound(f"No Experiment with id={experiment_id} exists")
    assert isinstance(found, Experiment)
    return found


def require_active(world: World, experiment_id: str) -> Experiment:
    """The experiment if it is active; raises NotFound or Invalid with MLflow's message."""
    experiment = require(world, experiment_id)
    if experiment.lifecycle != ACTIVE:
        raise Invalid(
            f"The experiment {experiment_id} must be in the 'active' state. "
            f"Current state is {experiment.lifecycle}."
        )
    return experiment


def effective_lifecycle(own: str, own_changed_at_ms: int, experiment: Experiment | None) -> str:
    """A run's stage: its own, unless its experiment was deleted or restored since.

    Within one millisecond the experiment counts: it is deleted after its runs were made.
    """
    if experiment is not None and experiment.lifecycle_changed_at_ms >= own_changed_at_ms:
        return experiment.lifecycle
    return own


def create(world: World, command: CreateExperiment, context: Context) -> e.ExperimentCreated:
    """Raises AlreadyExists when the name is taken, by a deleted experiment too."""
    check_length("name", command.name, EXPERIMENT_NAME_CHARS_MAX)
    for key, value in command.tags:
        _check_tag(key, value)
    _check_location(world, command.artifact_location or "", context.workspace)
    if len(dict(command.tags)) < len(command.tags):
        raise AlreadyExists(
            f"Experiment(name={command.name}) already exists. Error: a tag is given more than once."
        )
    if world.taken(KIND, command.name) is not None:
        raise AlreadyExists(
            f"Experiment(name={command.name}) already exists. Error: the name is taken by an "
            "experiment, perhaps a deleted one; restore that one or choose another name."
        )
    experiment_id = command.experiment_id or world.next_experiment_id()
    location = command.artifact_location or f"{command.artifact_root}/{experiment_id}"
    return e.ExperimentCreated(
        envelope=context.envelope(e.ExperimentCreated, experiment_id, expected_version=0),
        name=command.name,
        artifact_location=location,
        tags=dict(command.tags),
    )


def rename(world: World, command: RenameExperiment, context: Context) -> e.ExperimentRenamed:
    """Raises WrongState for a deleted experiment, AlreadyExists for a taken name."""
    experiment = require(world, command.experiment_id)
    if experiment.lifecycle != ACTIVE:
        raise WrongState("Cannot rename a non-active experiment.")
    check_length("name", command.name, EXPERIMENT_NAME_CHARS_MAX)
    if command.name != experiment.name:
        hold.refuse(hold.on_experiment(world, experiment), f"The experiment {experiment.name}")
    holder = world.taken(KIND, command.name)
    if holder is not None and holder is not experiment:
        raise AlreadyExists(
            f"Experiment(name={command.name}) already exists. Error: the name is taken by another "
            "experiment, perhaps a deleted one."
        )
    return e.ExperimentRenamed(
        envelope=_envelope(context, e.ExperimentRenamed, experiment),
        name=command.name,
        previous_name=experiment.name,
    )


def delete(world: World, command: DeleteExperiment, context: Context) -> e.ExperimentDeleted:
    """Raises NotFound when it is deleted already, as MLflow does."""
    experiment = require(world, command.experiment_id)
    _require_lifecycle(experiment, ACTIVE)
    # Its runs go with it, also those that a version under a hold comes from.
    inside = hold.on_origins_in(world, experiment.experiment_id)
    holds = chain(hold.on_experiment(world, experiment), inside)
    hold.refuse(holds, f"The experiment {experiment.name}")
    return e.ExperimentDeleted(envelope=_envelope(context, e.ExperimentDeleted, experiment))


def restore(world: World, command: RestoreExperiment, context: Context) -> e.ExperimentRestored:
    """Raises NotFound when it is active already, as MLflow does."""
    experiment = require(world, command.experiment_id)
    _require_lifecycle(experiment, DELETED)
    return e.ExperimentRestored(envelope=_envelope(context, e.ExperimentRestored, experiment))


def set_tag(world: World, command: SetExperimentTag, context: Context) -> e.ExperimentTagSet:
    """Raises Invalid for a bad key, an over-long value or a deleted experiment."""
    _check_tag(command.key, command.value)
    experiment = require_active(world, command.experiment_id)
    return e.ExperimentTagSet(
        envelope=_envelope(context, e.ExperimentTagSet, experiment),
        key=command.key,
        value=command.value,
        previous_value=experiment.tags.get(command.key),
    )


def delete_tag(
    world: World, command: DeleteExperimentTag, context: Context
) -> e.ExperimentTagDeleted:
    """Raises NotFound when there is no such tag."""
    experiment = require_active(world, command.experiment_id)
    if command.key not in experiment.tags:
        raise NotFound(
            f"No tag with name: {command.key} in experiment with id {command.experiment_id}"
        )
    return e.ExperimentTagDeleted(
        envelope=_envelope(context, e.ExperimentTagDeleted, experiment),
        key=command.key,
        previous_value=experiment.tags[command.key],
    )


def evolve(state: Experiment | None, event: e.Event) -> Experiment:
    """The experiment behind an event. Raises Void when the event does not fit the state."""
    at_ms = event.envelope.recorded_at_ms
    if isinstance(event, e.ExperimentCreated):
        if state is not None:
            raise Void("the experiment exists already")
        return Experiment(
            version=1,
            experiment_id=event.envelope.aggregate_id,
            name=event.name,
            artifact_location=event.artifact_location,
            lifecycle=ACTIVE,
            lifecycle_changed_at_ms=at_ms,
            created_at_ms=at_ms,
            updated_at_ms=at_ms,
            tags=event.tags,
            created_by=event.envelope.actor.principal_id,
            workspace=event.envelope.workspace,
        )
    if state is None:
        raise Void("the experiment does not exist")
    return msgspec.structs.replace(state, version=state.version + 1, **_changes(state, event))


def _changes(state: Experiment, event: e.Event) -> dict[str, object]:
    at_ms = event.envelope.recorded_at_ms
    match event:
        case e.ExperimentRenamed():
            return {"name": event.name, "updated_at_ms": at_ms}
        case e.ExperimentDeleted():
            return {"lifecycle": DELETED, "lifecycle_changed_at_ms": at_ms, "updated_at_ms": at_ms}
        case e.ExperimentRestored():
            return {"lifecycle": ACTIVE, "lifecycle_changed_at_ms": at_ms, "updated_at_ms": at_ms}
        case e.ExperimentTagSet():
            return {"tags": {**state.tags, event.key: event.value}}
        case e.ExperimentTagDeleted():
            return {"tags": {k: v for k, v in state.tags.items() if k != event.key}}
    raise AssertionError(f"{type(event).__name__} is no event of an experiment")


def _check_location(world: World, location: str, workspace: str) -> None:
    try:
        parts = urlparse(location)
    except ValueError:
        raise Invalid(f"'artifact_location' is no URL: {shown(location)}") from None
    if parts.fragment or parts.params:
        raise Invalid("'artifact_location' URL can't include fragments or params.")
    if location.startswith("runs:"):
        raise Invalid(f"Artifact location cannot be a runs:/ URI. Given: '{location}'")
    if len(location) > ARTIFACT_LOCATION_CHARS_MAX:
        raise Invalid(
            "Invalid artifact path length. The length of the artifact path cannot be greater than "
            f"{ARTIFACT_LOCATION_CHARS_MAX} characters."
        )
    if not is_here(location):
        return
    try:
        path = path_of(location)
    except Invalid:
        raise Invalid(
            "An 'artifact_location' on this server must be a plain path, without '.' or '..'. "
            f"Given: {shown(location)}"
        ) from None
    # Judged by its form alone, so that nothing is told of what is there.
    if owners(path):
        raise Invalid(
            "An 'artifact_location' on this server cannot be in the folder of a run, logged model "
            f"or trace, whose files others may read and remove. Given: {shown(location)}"
        )
    if workspaces.at(world, path) != workspace:
        raise Invalid(
            f"An 'artifact_location' on this server must be in the workspace's own folder. Given: "
            f"{shown(location)}"
        )


def _check_tag(key: str, value: str) -> None:
    check_key(key, "key")
    check_length("key", key, KEY_CHARS_MAX)
    check_length("value", value, EXPERIMENT_TAG_VALUE_CHARS_MAX)


def _require_lifecycle(experiment: Experiment, lifecycle: str) -> None:
    if experiment.lifecycle != lifecycle:
        raise NotFound(f"No Experiment with id={experiment.experiment_id} exists")


def _envelope(context: Context, event: type[e.Event], experiment: Experiment) -> e.Envelope:
    return context.envelope(event, experiment.experiment_id, expected_version=experiment.version)

"""Logged models: created pending, finalized once their files are uploaded, tagged, deleted.

A deleted one cannot be read or searched any more, yet MLflow still lets it be tagged and finalized.
Its params keep their first value; its metrics are points of runs that name the model.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from muniment_schemas import events as e
from muniment_services.domain import experiment as experiments
from muniment_services.domain import hold
from muniment_services.domain.commands import AggregateKey, Command, Context, State, World
from muniment_services.domain.errors import Invalid, NotFound, Void
from muniment_services.domain.experiment import ACTIVE, DELETED
from muniment_services.domain.run_names import random_run_name
from muniment_services.domain.tags import without_tag

KIND = "logged_model"
PENDING = "LOGGED_MODEL_PENDING"
UNSPECIFIED = "LOGGED_MODEL_STATUS_UNSPECIFIED"
STATUSES = (UNSPECIFIED, PENDING, "LOGGED_MODEL_READY", "LOGGED_MODEL_UPLOAD_FAILED")
"""MLflow's names, in the order of their numbers."""

NAME_FORBIDS = ("/", ":", ".", "%", '"', "'")


class KeyTaken(Invalid):
    """A param or tag key is given twice, or a param has been logged already."""


class LoggedModel(State, frozen=True, kw_only=True):
    """A logged model. Times are milliseconds since 1970 by the server's clock.

    created_by: the principal that created it; created_through: those that acted for it.
    """

    model_id: str
    experiment_id: str
    name: str
    artifact_uri: str
    status: str
    model_type: str
    source_run_id: str
    params: dict[str, str]
    tags: dict[str, str]
    lifecycle: str
    created_at_ms: int
    updated_at_ms: int
    created_by: str = ""
    created_through: tuple[str, ...] = ()


class CreateLoggedModel(Command, frozen=True, kw_only=True):
    """Create a logged model; an empty name is replaced by a made-up one."""

    experiment_id: str
    name: str = ""
    model_type: str = ""
    source_run_id: str = ""
    params: tuple[tuple[str, str], ...] = ()
    tags: tuple[tuple[str, str], ...] = ()

    def needs(self) -> tuple[AggregateKey, ...]:
        """The run that it is from."""
        return (("run", self.source_run_id),) if self.source_run_id else ()


class ChangeLoggedModel(Command, frozen=True, kw_only=True):
    """Base of the commands on one logged model."""

    model_id: str

    def needs(self) -> tuple[AggregateKey, ...]:
        """The logged model."""
        return ((KIND, self.model_id),)


class FinalizeLoggedModel(ChangeLoggedModel, frozen=True, kw_only=True):
    """Set the status: how the upload of its files ended."""

    status: str


class DeleteLoggedModel(ChangeLoggedModel, frozen=True, kw_only=True):
    """Move a logged model to the deleted stage."""


class SetLoggedModelTags(ChangeLoggedModel, frozen=True, kw_only=True):
    """Set tags; of a key that is given twice, the last value counts."""

    tags: tuple[tuple[str, str], ...]


class DeleteLoggedModelTag(ChangeLoggedModel, frozen=True, kw_only=True):
    """Remove one tag."""

    key: str


class LogLoggedModelParams(ChangeLoggedModel, frozen=True, kw_only=True):
    """Log params that the model does not have yet."""

    params: tuple[tuple[str, str], ...]


def require(world: World, model_id: str) -> LoggedModel:
    """The logged model, deleted or not; raises NotFound."""
    found = world.get(KIND, model_id)
    if found is None:
        raise NotFound(f"Logged model with ID '{model_id}' not found.")
    assert isinstance(found, LoggedModel)
    return found


def require_active(world: World, model_id: str) -> LoggedModel:
    """The logged model unless it is deleted; raises NotFound."""
    found = require(world, model_id)
    if found.lifecycle != ACTIVE:
        raise NotFound(f"Logged model with ID '{model_id}' not found.")
    return found


def create(world: World, command: CreateLoggedModel, context: Context) -> e.LoggedModelCreated:
    """Raises NotFound or Invalid for the experiment, Invalid for the name or a repeated key."""
    _check_name(command.name)
    experiment = experiments.require_active(world, command.experiment_id)
    _refuse_repeats("param", command.params)
    _refuse_repeats("tag", command.tags)
    model_id = f"m-{context.new_id(context.now_ms)}"
    location = experiment.artifact_location.rstrip("/")
    return e.LoggedModelCreated(
        envelope=context.envelope(e.LoggedModelCreated, model_id),
        experiment_id=command.experiment_id,
        name=command.name or random_run_name(context.random),
        artifact_uri=f"{location}/models/{model_id}/artifacts",
        source_run_id=command.source_run_id,
        model_type=command.model_type,
        params=dict(command.params),
        tags=dict(command.tags),
    )


def finalize(
    world: World, command: FinalizeLoggedModel, context: Context
) -> e.LoggedModelFinalized:
    """Any status may follow any other, on a deleted model too. Raises NotFound."""
    model = require(world, command.model_id)
    return e.LoggedModelFinalized(
        envelope=context.envelope(e.LoggedModelFinalized, model.model_id), status=command.status
    )


def delete(world: World, command: DeleteLoggedModel, context: Context) -> e.LoggedModelDeleted:
    """Deleting twice moves the time of the last update, as with MLflow. Raises NotFound."""
    model = require(world, command.model_id)
    hold.refuse(hold.on_logged_model(world, model), f"The logged model {model.model_id}")
    return e.LoggedModelDeleted(envelope=context.envelope(e.LoggedModelDeleted, model.model_id))


def set_tags(
    world: World, command: SetLoggedModelTags, context: Context
) -> e.LoggedModelTagsSet | None:
    """None when there are none. Raises NotFound."""
    model = require(world, command.model_id)
    if not command.tags:
        return None
    return e.LoggedModelTagsSet(
        envelope=context.envelope(e.LoggedModelTagsSet, model.model_id), tags=dict(command.tags)
    )


def delete_tag(
    world: World, command: DeleteLoggedModelTag, context: Context
) -> e.LoggedModelTagDeleted:
    """Raises NotFound when there is no such tag or model."""
    model = require(world, command.model_id)
    if command.key not in model.tags:
        raise NotFound(
            f"No tag with key {command.key!r} found for model with ID {command.model_id!r}."
        )
    return e.LoggedModelTagDeleted(
        envelope=context.envelope(e.LoggedModelTagDeleted, model.model_id), key=command.key
    )


def log_params(
    world: World, command: LogLoggedModelParams, context: Context
) -> e.LoggedModelParamsLogged | None:
    """None when there are none. Raises NotFound, or KeyTaken: even the same value is refused."""
    model = require(world, command.model_id)
    _refuse_repeats("param", command.params)
    taken = [key for key, _ in command.params if key in model.params]
    if taken:
        raise KeyTaken(
            f"Params {taken} of the logged model '{model.model_id}' are logged already; a param "
            "keeps its first value."
        )
    if not command.params:
        return None
    return e.LoggedModelParamsLogged(
        envelope=context.envelope(e.LoggedModelParamsLogged, model.model_id),
        params=dict(command.params),
    )


def evolve(state: LoggedModel | None, event: e.Event) -> LoggedModel:
    """The logged model behind an event. Raises Void when the event does not fit the state."""
    if isinstance(event, e.LoggedModelCreated):
        return _created(state, event)
    if state is None:
        raise Void("the logged model does not exist")
    return msgspec.structs.replace(state, version=state.version + 1, **_changes(state, event))


def _created(state: LoggedModel | None, event: e.LoggedModelCreated) -> LoggedModel:
    if state is not None:
        raise Void("the logged model exists already")
    at_ms = event.envelope.recorded_at_ms
    return LoggedModel(
        version=1,
        model_id=event.envelope.aggregate_id,
        experiment_id=event.experiment_id,
        name=event.name,
        artifact_uri=event.artifact_uri,
        status=PENDING,
        model_type=event.model_type or "",
        source_run_id=event.source_run_id or "",
        params=event.params,
        tags=event.tags,
        lifecycle=ACTIVE,
        created_at_ms=at_ms,
        updated_at_ms=at_ms,
        created_by=event.envelope.actor.principal_id,
        created_through=event.envelope.actor.delegation,
    )


def _changes(state: LoggedModel, event: e.Event) -> dict[str, object]:
    at_ms = event.envelope.recorded_at_ms
    match event:
        case e.LoggedModelFinalized():
            return {"status": event.status, "updated_at_ms": at_ms}
        case e.LoggedModelDeleted():
            return {"lifecycle": DELETED, "updated_at_ms": at_ms}
        case e.LoggedModelTagsSet():
            return {"tags": {**state.tags, **event.tags}}
        case e.LoggedModelTagDeleted():
            return {"tags": without_tag(state.tags, event.key)}
        case e.LoggedModelParamsLogged():
            if any(key in state.params for key in event.params):
                raise Void("a param was logged already")
            return {"params": {**state.params, **event.params}}
    raise AssertionError(f"{type(event).__name__} is no event of a logged model")


def _check_name(name: str) -> None:
    if any(character in name for character in NAME_FORBIDS):
        raise Invalid(
            f"Invalid model name ({name!r}) provided. Model name must be a non-empty string and "
            f"cannot contain the following characters: {NAME_FORBIDS}"
        )


def _refuse_repeats(what: str, pairs: Sequence[tuple[str, str]]) -> None:
    keys = [key for key, _ in pairs]
    if len(set(keys)) != len(keys):
        raise KeyTaken(f"A {what} key is given twice in {keys}.")

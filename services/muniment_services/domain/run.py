"""Runs: their state, and how it follows from events. What changes a run is decided in `run_life`
(create, update, delete, restore) and `run_data` (params, tags, metrics, inputs, outputs).

Most run events carry no expected version, since their order does not matter or the last one counts.
What must hold is decided by `evolve`: nothing applies to a deleted run, and a param keeps its first
value; an event against that is void.
"""

from __future__ import annotations

import msgspec

from muniment_schemas import events as e
from muniment_services.domain.commands import State, World
from muniment_services.domain.errors import Invalid, NotFound, Void
from muniment_services.domain.experiment import ACTIVE, DELETED, Experiment, effective_lifecycle
from muniment_services.domain.latest import Metric, merge_latest
from muniment_services.domain.tags import without_tag

KIND = "run"
RUN_NAME_TAG = "mlflow.runName"
RUNNING = "RUNNING"


class Run(State, frozen=True, kw_only=True):
    """A run with its params, tags and latest metric values; `lifecycle` is its own stage only.

    created_by: the principal that created it. user_id: what the client says of that.
    """

    run_id: str
    experiment_id: str
    name: str
    user_id: str
    status: str
    start_time_ms: int
    end_time_ms: int | None
    artifact_uri: str
    lifecycle: str
    lifecycle_changed_at_ms: int
    params: dict[str, str]
    tags: dict[str, str]
    metrics: dict[str, Metric]
    datasets: tuple[e.DatasetInput, ...] = ()
    model_inputs: tuple[str, ...] = ()
    model_outputs: tuple[e.ModelOutput, ...] = ()
    created_by: str = ""


def require(world: World, run_id: str) -> Run:
    """The run, deleted or not; raises NotFound."""
    found = world.get(KIND, run_id)
    if found is None:
        raise NotFound(f"Run with id={run_id} not found")
    assert isinstance(found, Run)
    return found


def lifecycle_of(world: World, run: Run) -> str:
    """The run's effective stage, its experiment's deletion taken into account."""
    experiment = world.known("experiment", run.experiment_id)
    assert experiment is None or isinstance(experiment, Experiment)
    return effective_lifecycle(run.lifecycle, run.lifecycle_changed_at_ms, experiment)


def require_active(world: World, run_id: str) -> Run:
    """The run if it is active; raises NotFound or Invalid with MLflow's message."""
    run = require(world, run_id)
    lifecycle = lifecycle_of(world, run)
    if lifecycle != ACTIVE:
        raise Invalid(
            f"The run {run_id} must be in the 'active' state. Current state is {lifecycle}."
        )
    return run


def evolve(state: Run | None, event: e.Event) -> Run:
    """The run behind an event. Raises Void when the event does not fit the state."""
    if isinstance(event, e.RunCreated):
        return _created(state, event)
    if state is None:
        raise Void("the run does not exist")
    version = state.version + 1
    at_ms = event.envelope.recorded_at_ms
    if isinstance(event, e.BatchLogged):
        return _batch_logged(state, event, version)
    match event:
        case e.RunDeleted():
            changes: dict[str, object] = {"lifecycle": DELETED, "lifecycle_changed_at_ms": at_ms}
        case e.RunRestored():
            changes = {"lifecycle": ACTIVE, "lifecycle_changed_at_ms": at_ms}
        case e.RunUpdated():
            changes = _updated(state, event)
        case e.RunTagDeleted():
            changes = {"tags": without_tag(state.tags, event.key)}
        case e.InputsLogged():
            changes = _inputs_logged(state, event)
        case e.OutputsLogged():
            changes = {"model_outputs": (*state.model_outputs, *event.models)}
        case _:
            raise AssertionError(f"{type(event).__name__} is no event of a run")
    return msgspec.structs.replace(state, version=version, **changes)


def _created(state: Run | None, event: e.RunCreated) -> Run:
    if state is not None:
        raise Void("the run exists already")
    return Run(
        version=1,
        run_id=event.envelope.aggregate_id,
        experiment_id=event.experiment_id,
        name=event.name,
        user_id=event.user_id,
        status=RUNNING,
        start_time_ms=event.start_time_ms,
        end_time_ms=None,
        artifact_uri=event.artifact_uri,
        lifecycle=ACTIVE,
        lifecycle_changed_at_ms=event.envelope.recorded_at_ms,
        params={},
        tags=event.tags,
        metrics={},
        created_by=event.envelope.actor.principal_id,
    )


def _batch_logged(state: Run, event: e.BatchLogged, version: int) -> Run:
    # The hottest path of all: copies only what the event changes.
    changes: dict[str, object] = {"version": version}
    if event.params:
        for key, value in event.params.items():
            if state.params.get(key, value) != value:
                raise Void(f"param {key!r} has another value already")
        changes["params"] = {**state.params, **event.params}
    if event.tags:
        changes["tags"] = {**state.tags, **event.tags}
        # An empty text in the tag leaves the name, as MLflow does.
        changes["name"] = event.tags.get(RUN_NAME_TAG) or state.name
    if event.metrics is not None:
        changes["metrics"] = merge_latest(state.metrics, event.metrics)
    return msgspec.structs.replace(state, **changes)


def _updated(state: Run, event: e.RunUpdated) -> dict[str, object]:
    changes: dict[str, object] = {}
    if event.status is not None:
        changes["status"] = event.status
    if event.end_time_ms is not None:
        changes["end_time_ms"] = event.end_time_ms
    if event.name is not None:
        changes["name"] = event.name
        changes["tags"] = {**state.tags, RUN_NAME_TAG: event.name}
    return changes


def _inputs_logged(state: Run, event: e.InputsLogged) -> dict[str, object]:
    known = {(dataset.name, dataset.digest) for dataset in state.datasets}
    fresh = {(d.name, d.digest): d for d in event.datasets if (d.name, d.digest) not in known}
    return {
        "datasets": (*state.datasets, *fresh.values()),
        "model_inputs": tuple(dict.fromkeys((*state.model_inputs, *event.models))),
    }

"""Legal holds: what they cover is not deleted, replaced, renamed away or erased.

Every decider that would take something away asks here first. What is in the catalog is asked again
when the event is folded, since a hold may have come into the log before it
(`deciders.FOLD_CHECKS`): that event is void then. Runs, traces and files have partitions of their
own, so of them the decision alone counts. A released hold leaves memory; the log keeps both events.

A hold looks at names, at who made a thing and at when. A run, trace or logged model goes by its
experiment's name and maker, and by when it began itself; what a held model's version comes from is
held with it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from muniment_schemas import events as e
from muniment_schemas.patterns import matches
from muniment_services.domain.commands import AggregateKey, Command, Context, State, World
from muniment_services.domain.errors import AlreadyExists, Held, Invalid, NotFound, Void
from muniment_services.domain.limits import check_length, shown

KIND = "hold"
ANY_WORKSPACE = "*"
HOLDS_MAX = 1_000
"""Every deletion looks at all of them."""

PATTERN_CHARS_MAX = 256
REASON_CHARS_MAX = 1_000

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")

MODEL, EXPERIMENT = "registered_model", "experiment"
RUN, LOGGED_MODEL = "run", "logged_model"


class Hold(State, frozen=True, kw_only=True):
    """A hold that is in force; what the fields mean: `HoldPlaced`. hold: its name and id."""

    hold: str
    reason: str
    workspace: str
    models: str | None
    experiments: str | None
    principal_id: str | None
    from_ms: int | None
    until_ms: int | None
    placed_by: str
    placed_at_ms: int

    def covers(self, kind: str, name: str, workspace: str, made_by: str, at_ms: int) -> bool:
        """Whether it covers a model or version, or what belongs to an experiment."""
        pattern = self.models if kind == MODEL else self.experiments
        if pattern is None and self.is_by_name:
            return False
        return (
            (pattern is None or matches(pattern, name))
            and self.workspace in (ANY_WORKSPACE, workspace)
            and self.principal_id in (None, made_by)
            and (self.from_ms is None or at_ms >= self.from_ms)
            and (self.until_ms is None or at_ms < self.until_ms)
        )

    @property
    def is_by_name(self) -> bool:
        """Whether it is about models or experiments of some names."""
        return self.models is not None or self.experiments is not None


class PlaceHold(Command, frozen=True, kw_only=True):
    """Place a hold. At least one condition besides the workspace is given."""

    hold: str
    reason: str
    workspace: str
    models: str | None = None
    experiments: str | None = None
    principal_id: str | None = None
    from_ms: int | None = None
    until_ms: int | None = None

    def serial(self) -> AggregateKey:
        """One history."""
        return (KIND, self.hold)


class ReleaseHold(Command, frozen=True, kw_only=True):
    """Release a hold."""

    hold: str
    reason: str

    def serial(self) -> AggregateKey:
        """One history."""
        return (KIND, self.hold)


_CONDITIONS = ("models", "experiments", "principal_id", "from_ms", "until_ms")


def place(world: World, command: PlaceHold, context: Context) -> e.HoldPlaced:
    """Raises Invalid, AlreadyExists."""
    if _NAME.fullmatch(command.hold) is None:
        raise Invalid(
            f"{shown(command.hold)} is no name of a hold. It has 1 to 100 letters, digits, '.', "
            "'_' and '-', and begins with a letter or digit."
        )
    _check_reason(command.reason)
    given = {name: getattr(command, name) for name in _CONDITIONS}
    if all(value is None for value in given.values()):
        raise Invalid(
            "A hold says what it covers: models, experiments, principal_id, from_ms or until_ms. "
            "models='*' with experiments='*' covers everything."
        )
    for name in ("models", "experiments"):
        check_length(name, given[name] or "", PATTERN_CHARS_MAX)
    if None not in (begin := command.from_ms, end := command.until_ms) and begin >= end:  # type: ignore[operator]
        raise Invalid("'from_ms' must be before 'until_ms'.")
    if world.known(KIND, command.hold) is not None:
        raise AlreadyExists(f"There is a hold {command.hold} already; give this one another name.")
    if len(list(world.known_of_kind(KIND))) >= HOLDS_MAX:
        raise Invalid(f"{HOLDS_MAX} holds are in force; release one, or widen one that is there.")
    return e.HoldPlaced(
        envelope=context.envelope(e.HoldPlaced, command.hold, expected_version=0),
        reason=command.reason,
        workspace=command.workspace,
        **given,
    )


def release(world: World, command: ReleaseHold, context: Context) -> e.HoldReleased:
    """Raises Invalid, NotFound."""
    _check_reason(command.reason)
    found = world.known(KIND, command.hold)
    if found is None:
        raise NotFound(f"There is no hold {shown(command.hold)}.")
    return e.HoldReleased(
        envelope=context.envelope(e.HoldReleased, command.hold, expected_version=found.version),
        reason=command.reason,
    )


def evolve(state: Hold | None, event: e.Event) -> Hold | None:
    """The hold behind an event; None once it is released."""
    if isinstance(event, e.HoldReleased):
        return None
    assert isinstance(event, e.HoldPlaced)
    return Hold(
        version=1,
        hold=event.envelope.aggregate_id,
        reason=event.reason,
        workspace=event.workspace,
        **{name: getattr(event, name) for name in _CONDITIONS},
        placed_by=event.envelope.actor.principal_id,
        placed_at_ms=event.envelope.recorded_at_ms,
    )


def in_force(world: World) -> Iterator[Hold]:
    """All holds, whoever asks."""
    for found in world.known_of_kind(KIND):
        assert isinstance(found, Hold)
        yield found


def on_model(world: World, model: Any) -> Iterator[Hold]:
    """Holds on a registered model or any of its versions."""
    for hold in in_force(world):
        if _covers_model(hold, model) or any(
            _covers_version(hold, model, version) for version in model.versions.values()
        ):
            yield hold


def on_version(world: World, model: Any, version: Any) -> Iterator[Hold]:
    """Holds on one version."""
    return (hold for hold in in_force(world) if _covers_version(hold, model, version))


def on_experiment(world: World, experiment: Any) -> Iterator[Hold]:
    """Holds on an experiment. Its deletion takes its runs along, whenever they began."""
    for hold in in_force(world):
        began = hold.from_ms if hold.from_ms is not None else experiment.created_at_ms
        if hold.until_ms is not None and experiment.created_at_ms >= hold.until_ms:
            continue
        at_ms = max(experiment.created_at_ms, began)
        if _covers_in(hold, experiment, at_ms):
            yield hold


def origins_held(world: World) -> tuple[AggregateKey, ...]:
    """Runs and logged models that versions under holds on models come from."""
    return tuple(dict.fromkeys(origin for origin, _ in _origins(world)))


def on_origins_in(world: World, experiment_id: str) -> Iterator[Hold]:
    """Holds on what is in an experiment as what a held version comes from.

    `origins_held` must have been loaded.
    """
    for (kind, origin), hold in _origins(world):
        found: Any = world.known(kind, origin)
        if found is not None and found.experiment_id == experiment_id:
            yield hold


def _origins(world: World) -> Iterator[tuple[AggregateKey, Hold]]:
    holds = [hold for hold in in_force(world) if hold.models is not None]
    models: Any = world.known_of_kind(MODEL) if holds else ()
    for model in models:
        for version in model.versions.values():
            for hold in holds:
                if _covers_version(hold, model, version):
                    if version.run_id:
                        yield (RUN, version.run_id), hold
                    if version.logged_model_id:
                        yield (LOGGED_MODEL, version.logged_model_id), hold


def on_run(world: World, run: Any) -> Iterator[Hold]:
    """Holds on a run: by its experiment, or as what a held version comes from."""
    yield from _within(world, run.experiment_id, run.start_time_ms)
    yield from _as_origin(world, "run_id", run.run_id)


def on_logged_model(world: World, model: Any) -> Iterator[Hold]:
    """Holds on a logged model: by its experiment, or as what a held version comes from."""
    yield from _within(world, model.experiment_id, model.created_at_ms)
    yield from _as_origin(world, "logged_model_id", model.model_id)


def on_trace(world: World, trace: Any) -> Iterator[Hold]:
    """Holds on a trace, by its experiment."""
    yield from _within(world, trace.experiment_id, trace.request_time_ms)


def on_principal(world: World, principal_id: str) -> Iterator[Hold]:
    """Holds on who a principal is: those that name it or anybody, and those on what it made."""
    for hold in in_force(world):
        if hold.principal_id == principal_id or (
            hold.principal_id is None
            and (not hold.is_by_name or _covers_any_of(world, hold, principal_id))
        ):
            yield hold


def refuse(holds: Iterator[Hold], what: str) -> None:
    """Raise Held when there is a hold."""
    names = list(dict.fromkeys(hold.hold for hold in holds))
    if names:
        raise Held(
            f"{what} is under the legal hold {', '.join(names)} and stays as it is. Whoever "
            f"administers the server can end a hold: `muniment hold release {names[0]}`."
        )


def check_model_deleted(world: World, before: State | None, _: e.RegisteredModelDeleted) -> None:
    """Raise Void when a hold on the model came first."""
    _void(on_model(world, before) if before is not None else iter(()))


def check_version_deleted(world: World, before: State | None, event: e.ModelVersionDeleted) -> None:
    """Raise Void when a hold on the version came first."""
    model: Any = before
    version = None if model is None else model.versions.get(event.version)
    _void(iter(()) if version is None else on_version(world, model, version))


def check_experiment_deleted(world: World, before: State | None, _: e.ExperimentDeleted) -> None:
    """Raise Void when a hold on the experiment came first."""
    _void(on_experiment(world, before) if before is not None else iter(()))


def check_erased(world: World, _: State | None, event: e.PrincipalErased) -> None:
    """Raise Void when a hold on the principal came first."""
    _void(on_principal(world, event.envelope.aggregate_id))


def _void(holds: Iterator[Hold]) -> None:
    if next(holds, None) is not None:
        raise Void("a legal hold came first")


def _covers_model(hold: Hold, model: Any) -> bool:
    return hold.covers(MODEL, model.name, model.workspace, model.created_by, model.created_at_ms)


def _covers_version(hold: Hold, model: Any, version: Any) -> bool:
    return hold.covers(
        MODEL, model.name, model.workspace, version.created_by, version.created_at_ms
    )


def _covers_in(hold: Hold, experiment: Any, at_ms: int) -> bool:
    return hold.covers(
        EXPERIMENT, experiment.name, experiment.workspace, experiment.created_by, at_ms
    )


def _within(world: World, experiment_id: str, at_ms: int) -> Iterator[Hold]:
    experiment = world.known(EXPERIMENT, experiment_id)
    if experiment is not None:
        yield from (hold for hold in in_force(world) if _covers_in(hold, experiment, at_ms))


def _as_origin(world: World, field: str, origin: str) -> Iterator[Hold]:
    holds = [hold for hold in in_force(world) if hold.models is not None or not hold.is_by_name]
    if not holds:
        return
    for model in world.known_of_kind(MODEL):
        found: Any = model
        for version in found.versions.values():
            if getattr(version, field) == origin:
                yield from (hold for hold in holds if _covers_version(hold, found, version))


def _covers_any_of(world: World, hold: Hold, principal_id: str) -> bool:
    models: Any = world.known_of_kind(MODEL)
    for model in models:
        if model.created_by == principal_id and _covers_model(hold, model):
            return True
        for version in model.versions.values():
            if version.created_by == principal_id and _covers_version(hold, model, version):
                return True
    experiments: Any = world.known_of_kind(EXPERIMENT)
    return any(
        experiment.created_by == principal_id
        and _covers_in(hold, experiment, experiment.created_at_ms)
        for experiment in experiments
    )


def _check_reason(reason: str) -> None:
    if not reason.strip():
        raise Invalid("Say why: 'reason' stays in the log for auditors; no personal data.")
    check_length("reason", reason, REASON_CHARS_MAX)

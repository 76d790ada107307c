"""What MLflow says when calls come one after the other: models that histories are checked against.

Four kinds of objects, none of which shares state with another: a few names of registered models
(renames go between them), a name of experiments, one param and one tag of a run. States are
immutable and compare by value. Nothing here looks at the server's own code.

A version's number is never given twice while its model lives. What comes back of a model is a
ModelView, of a version a VersionView.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from typing import Any, Final, NamedTuple

from harness.histories import OK, Call, Reply

MISSING = Reply("RESOURCE_DOES_NOT_EXIST")
EXISTS = Reply("RESOURCE_ALREADY_EXISTS")
INVALID = Reply("INVALID_PARAMETER_VALUE")
WRONG_STATE = Reply("INVALID_STATE")
DONE = Reply(OK)
ARCHIVED = "Archived"
ACTIVE = "active"
DELETED = "deleted"

Pairs = frozenset[tuple[str, str]]
NO_PAIRS: Final[Pairs] = frozenset()


class Version(NamedTuple):
    """One version of a model."""

    number: int
    stage: str
    description: str
    tags: Pairs


class RegisteredModel(NamedTuple):
    """A model. versions: by rising number; aliases: (alias, number); last: highest number given."""

    description: str
    tags: Pairs
    aliases: frozenset[tuple[str, int]]
    versions: tuple[Version, ...]
    last: int


class ModelView(NamedTuple):
    """What an answer shows of a model. latest: (stage, highest number in it)."""

    name: str
    description: str
    tags: Pairs
    aliases: frozenset[tuple[str, int]]
    latest: frozenset[tuple[str, int]]


class VersionView(NamedTuple):
    """What an answer shows of a version."""

    number: int
    stage: str
    description: str
    tags: Pairs
    aliases: frozenset[str]


Models = tuple[tuple[str, RegisteredModel], ...]
Step = tuple[Reply, Any]


def model_view(name: str, model: RegisteredModel) -> ModelView:
    """A model as `registered-models/get` shows it."""
    latest = frozenset({version.stage: version.number for version in model.versions}.items())
    return ModelView(name, model.description, model.tags, model.aliases, latest)


def version_view(model: RegisteredModel, version: Version) -> VersionView:
    """A version as `model-versions/get` shows it."""
    aliases = frozenset(alias for alias, number in model.aliases if number == version.number)
    return VersionView(version.number, version.stage, version.description, version.tags, aliases)


def put(pairs: frozenset[tuple[str, Any]], key: str, value: Any) -> frozenset[tuple[str, Any]]:
    """Pairs with one key set; None removes it."""
    rest = frozenset(pair for pair in pairs if pair[0] != key)
    return rest if value is None else rest | {(key, value)}


class Registry:
    """Registered models under a few names, with versions, aliases, stages and tags."""

    reads = ("get_model", "get_alias", "get_version")

    def initial(self) -> Hashable:
        """No model."""
        return ()

    def step(self, state: Hashable, call: Call, _: Reply | None) -> Step:
        """Names are the first argument of every call."""
        models: dict[str, RegisteredModel] = dict(state)  # type: ignore[call-overload]
        name = str(call.args[0])
        if call.name == "create_model":
            if name in models:
                return EXISTS, state
            created = RegisteredModel("", NO_PAIRS, frozenset(), (), 0)
            return Reply(OK, model_view(name, created)), _with(models, name, created)
        if name not in models:
            return MISSING, state
        if call.name == "delete_model":
            return DONE, _with(models, name, None)
        if call.name == "rename_model":
            return _renamed(state, models, name, str(call.args[1]))
        reply, after = MODEL_STEPS[call.name](name, models[name], *call.args[1:])
        return reply, _with(models, name, after)


def _with(
    models: Mapping[str, RegisteredModel], name: str, model: RegisteredModel | None
) -> Models:
    rest = {other: m for other, m in models.items() if other != name}
    return tuple(sorted({**rest, **({} if model is None else {name: model})}.items()))


def _renamed(state: Any, models: dict[str, RegisteredModel], name: str, new_name: str) -> Step:
    if new_name != name and new_name in models:
        return EXISTS, state
    model = models.pop(name)
    return Reply(OK, model_view(new_name, model)), _with(models, new_name, model)


def _get(name: str, model: RegisteredModel) -> Step:
    return Reply(OK, model_view(name, model)), model


def _describe(name: str, model: RegisteredModel, text: str) -> Step:
    return _get(name, model._replace(description=text))


def _set_tag(_: str, model: RegisteredModel, key: str, value: str) -> Step:
    return DONE, model._replace(tags=put(model.tags, key, value))


def _delete_tag(_: str, model: RegisteredModel, key: str) -> Step:
    return DONE, model._replace(tags=put(model.tags, key, None))


def _set_alias(_: str, model: RegisteredModel, alias: str, number: int) -> Step:
    if _version(model, number) is None:
        return MISSING, model
    return DONE, model._replace(aliases=put(model.aliases, alias, number))


def _delete_alias(_: str, model: RegisteredModel, alias: str) -> Step:
    return DONE, model._replace(aliases=put(model.aliases, alias, None))


def _get_alias(_: str, model: RegisteredModel, alias: str) -> Step:
    number = dict(model.aliases).get(alias)
    if number is None:
        return INVALID, model
    return _get_version(_, model, number)


def _create_version(_: str, model: RegisteredModel) -> Step:
    created = Version(model.last + 1, "None", "", NO_PAIRS)
    after = model._replace(versions=(*model.versions, created), last=created.number)
    return Reply(OK, version_view(after, created)), after


def _get_version(_: str, model: RegisteredModel, number: int) -> Step:
    found = _version(model, number)
    return (MISSING if found is None else Reply(OK, version_view(model, found))), model


def _transition(
    _: str, model: RegisteredModel, number: int, stage: str, archive_others: bool
) -> Step:
    if _version(model, number) is None:
        return MISSING, model
    after = model
    for other in model.versions:
        if archive_others and other.stage == stage and other.number != number:
            after = _changed(after, other.number, stage=ARCHIVED)
    after = _changed(after, number, stage=stage)
    return _get_version(_, after, number)[0], after


def _describe_version(_: str, model: RegisteredModel, number: int, text: str) -> Step:
    if _version(model, number) is None:
        return MISSING, model
    after = _changed(model, number, description=text)
    return _get_version(_, after, number)[0], after


def _set_version_tag(_: str, model: RegisteredModel, number: int, key: str, value: str) -> Step:
    found = _version(model, number)
    if found is None:
        return MISSING, model
    return DONE, _changed(model, number, tags=put(found.tags, key, value))


def _delete_version_tag(_: str, model: RegisteredModel, number: int, key: str) -> Step:
    found = _version(model, number)
    if found is None:
        return MISSING, model
    return DONE, _changed(model, number, tags=put(found.tags, key, None))


def _delete_version(_: str, model: RegisteredModel, number: int) -> Step:
    if _version(model, number) is None:
        return MISSING, model
    return DONE, model._replace(
        versions=tuple(v for v in model.versions if v.number != number),
        aliases=frozenset(pair for pair in model.aliases if pair[1] != number),
    )


def _version(model: RegisteredModel, number: int) -> Version | None:
    return next((v for v in model.versions if v.number == number), None)


def _changed(model: RegisteredModel, number: int, **changes: Any) -> RegisteredModel:
    versions = tuple(v._replace(**changes) if v.number == number else v for v in model.versions)
    return model._replace(versions=versions)


MODEL_STEPS: Final[Mapping[str, Callable[..., Step]]] = {
    "get_model": _get,
    "describe_model": _describe,
    "set_model_tag": _set_tag,
    "delete_model_tag": _delete_tag,
    "set_alias": _set_alias,
    "delete_alias": _delete_alias,
    "get_alias": _get_alias,
    "create_version": _create_version,
    "get_version": _get_version,
    "transition": _transition,
    "describe_version": _describe_version,
    "set_version_tag": _set_version_tag,
    "delete_version_tag": _delete_version_tag,
    "delete_version": _delete_version,
}


class ExperimentEntry(NamedTuple):
    """An experiment. experiment_id: None while only its creation's lost answer knew it."""

    experiment_id: str | None
    name: str
    lifecycle: str


class Experiments:
    """The experiments that ever had one name: created once each, renamed away, deleted, restored.

    A deleted experiment keeps its name. The server chooses ids, so a creation takes over the id
    that was answered; where that is unknown, the first reader of the name learns it.
    """

    reads = ("get_by_name",)

    def initial(self) -> Hashable:
        """No experiment."""
        return ()

    def step(self, state: Hashable, call: Call, seen: Reply | None) -> Step:
        """`create_experiment` and `get_by_name` go by name, all else by id."""
        entries: tuple[ExperimentEntry, ...] = state  # type: ignore[assignment]
        named = _find(entries, "name", call.args[0])
        if call.name == "create_experiment":
            return _experiment_created(entries, str(call.args[0]), named, seen)
        if call.name == "get_by_name":
            return _read(entries, named, seen)
        entry = _find(entries, "experiment_id", call.args[0])
        if entry is None:
            return MISSING, state
        if call.name == "rename_experiment":
            if entry.lifecycle != ACTIVE:
                return WRONG_STATE, state
            if _find(entries, "name", call.args[1]) not in (None, entry):
                return EXISTS, state
            return DONE, _replaced(entries, entry, name=call.args[1])
        before, after = (ACTIVE, DELETED) if call.name == "delete_experiment" else (DELETED, ACTIVE)
        if entry.lifecycle != before:
            return MISSING, state
        return DONE, _replaced(entries, entry, lifecycle=after)


def _experiment_created(
    entries: tuple[ExperimentEntry, ...],
    name: str,
    named: ExperimentEntry | None,
    seen: Reply | None,
) -> Step:
    if named is not None:
        return EXISTS, entries
    new_id = str(seen.value) if seen is not None and seen.code == OK else None
    if new_id is not None and _find(entries, "experiment_id", new_id) is not None:
        return Reply(OK, "an id that nobody has"), entries
    return Reply(OK, new_id), _sorted((*entries, ExperimentEntry(new_id, name, ACTIVE)))


def _read(
    entries: tuple[ExperimentEntry, ...], named: ExperimentEntry | None, seen: Reply | None
) -> Step:
    if named is None:
        return MISSING, entries
    if named.experiment_id is None and seen is not None and isinstance(seen.value, tuple):
        told = str(seen.value[0])
        if _find(entries, "experiment_id", told) is None:
            entries = _replaced(entries, named, experiment_id=told)
            named = named._replace(experiment_id=told)
    return Reply(OK, (named.experiment_id, named.lifecycle)), entries


def _find(
    entries: tuple[ExperimentEntry, ...], field: str, value: object
) -> ExperimentEntry | None:
    return next((entry for entry in entries if getattr(entry, field) == value), None)


def _replaced(
    entries: tuple[ExperimentEntry, ...], entry: ExperimentEntry, **changes: Any
) -> tuple[ExperimentEntry, ...]:
    return _sorted(tuple(entry._replace(**changes) if e is entry else e for e in entries))


def _sorted(entries: tuple[ExperimentEntry, ...]) -> tuple[ExperimentEntry, ...]:
    return tuple(sorted(entries, key=lambda e: (e.experiment_id or "", e.name)))


class Param:
    """One param of one run: the first value stays, and who brings another is told the first."""

    reads = ("get_param",)

    def initial(self) -> Hashable:
        """Not logged."""
        return None

    def step(self, state: Hashable, call: Call, _: Reply | None) -> Step:
        """`log_param(value)` and `get_param()`."""
        if call.name == "get_param":
            return Reply(OK, state), state
        (value,) = call.args
        if state is None or state == value:
            return DONE, value
        return Reply(INVALID.code, state), state


class Tag:
    """One tag of one run: the last value counts."""

    reads = ("get_tag",)

    def initial(self) -> Hashable:
        """Not set."""
        return None

    def step(self, state: Hashable, call: Call, _: Reply | None) -> Step:
        """`set_tag(value)`, `delete_tag()` and `get_tag()`."""
        if call.name == "get_tag":
            return Reply(OK, state), state
        if call.name == "set_tag":
            return DONE, call.args[0]
        return (MISSING, None) if state is None else (DONE, None)

"""Registered models: their state with all versions and aliases, and how it follows from events.

One aggregate is one model (or prompt): it has an id of its own, so that a model that is created
again under a deleted one's name is another model. Names are unique among those that live; version
numbers are never given twice while the model lives. What changes a model is decided in
`registry_life` (the model, its tags and aliases) and `model_version` (its versions).

Every event carries the model's version that it was decided on, so a model has one history without
gaps; `evolve` refuses what cannot follow from it all the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import msgspec

from muniment_schemas import events as e
from muniment_schemas.promotion_events import ALIAS, STAGE
from muniment_services.domain import review
from muniment_services.domain.commands import AggregateKey, Command, Context, State, World
from muniment_services.domain.errors import Invalid, NotFound, Void
from muniment_services.domain.registry_names import (
    ARCHIVED,
    LATEST,
    NONE,
    check_alias,
    check_model_name,
    version_number,
)
from muniment_services.domain.review import NOTHING_ASKED, Hand, Review, Target

KIND = "registered_model"


class ModelCommand(Command, frozen=True, kw_only=True):
    """A command about the model of a name."""

    name: str

    def serial(self) -> AggregateKey:
        """One history per name; a concurrent rename is settled by the log's order."""
        return (KIND, self.name)


class ModelVersion(msgspec.Struct, frozen=True, kw_only=True):
    """One version. Texts that were not given are empty; a description may also be None.

    logged_model_id: the logged model that was registered. created_by: the principal that registered
    the version; created_through: those that acted for it. copied_from: who registered the versions
    that it is a copy of. Times: milliseconds since 1970.
    """

    name: str
    version: int
    created_at_ms: int
    updated_at_ms: int
    description: str | None
    stage: str
    source: str
    storage_location: str
    run_id: str
    run_link: str
    logged_model_id: str | None
    tags: dict[str, str]
    created_by: str
    created_through: tuple[str, ...] = ()
    copied_from: tuple[Hand, ...] = ()

    @property
    def author(self) -> Hand:
        """Who registered the version, and through whom."""
        return Hand(self.created_by, self.created_through)


class RegisteredModel(State, frozen=True, kw_only=True):
    """A registered model. last_version: the highest number ever given, deleted ones included.

    created_by: the principal that made it, and so is its manager. reviewed: the versions that got
    by an approval under a policy to where they still are.
    """

    model_id: str
    name: str
    description: str | None
    created_at_ms: int
    updated_at_ms: int
    tags: dict[str, str]
    versions: dict[int, ModelVersion]
    aliases: dict[str, int]
    last_version: int
    created_by: str
    workspace: str
    review: Review = NOTHING_ASKED
    reviewed: tuple[tuple[int, Target], ...] = ()


def require(world: World, name: str) -> RegisteredModel:
    """The model of a name; raises NotFound, or Invalid for what cannot be a name."""
    check_model_name(name)
    found = world.named(KIND, name)
    if found is None:
        raise NotFound(f"Registered Model with name={name} not found")
    assert isinstance(found, RegisteredModel)
    return found


def require_version(world: World, name: str, version: str) -> tuple[RegisteredModel, ModelVersion]:
    """A model and its version, by the version's number as text; raises NotFound or Invalid."""
    check_model_name(name)
    number = version_number(version)
    model = world.named(KIND, name)
    assert model is None or isinstance(model, RegisteredModel)
    if model is None or number not in model.versions:
        raise NotFound(f"Model Version (name={name}, version={number}) not found")
    return model, model.versions[number]


def require_alias(world: World, name: str, alias: str) -> ModelVersion:
    """The version that an alias points at; `latest` is the newest. Raises NotFound or Invalid."""
    check_model_name(name)
    check_alias(alias)
    model = require(world, name)
    if alias.lower() == LATEST:
        if not model.versions:
            raise NotFound(f"Latest version not found for model {name}.")
        return model.versions[max(model.versions)]
    if alias not in model.aliases:
        raise Invalid(f"Registered model alias {alias} not found.")
    return model.versions[model.aliases[alias]]


def latest_versions(model: RegisteredModel) -> list[ModelVersion]:
    """The highest version of each stage, in the order in which the stages first occur."""
    by_stage: dict[str, ModelVersion] = {}
    for number in sorted(model.versions):
        by_stage[model.versions[number].stage] = model.versions[number]
    return list(by_stage.values())


def aliases_of(model: RegisteredModel, version: int) -> list[str]:
    """The aliases that point at a version, sorted."""
    return sorted(alias for alias, target in model.aliases.items() if target == version)


def reached(model: RegisteredModel, version: ModelVersion) -> Iterator[Target]:
    """The stage and the aliases that a version has."""
    yield Target(STAGE, version.stage)
    for alias in aliases_of(model, version.version):
        yield Target(ALIAS, alias)


def envelope(context: Context, event: type[e.Event], model: RegisteredModel) -> e.Envelope:
    """The envelope of a further event of a model."""
    return context.envelope(event, model.model_id, expected_version=model.version)


def evolve(state: RegisteredModel | None, event: e.Event) -> RegisteredModel | None:
    """The model behind an event, None when it was deleted. Raises Void when it does not fit."""
    if isinstance(event, e.RegisteredModelCreated):
        return _created(state, event)
    if state is None:
        raise Void("the registered model does not exist")
    if isinstance(event, e.RegisteredModelDeleted):
        return None
    changes = _model_changes(state, event)
    if changes is None:
        changes = _version_changes(state, event)
    asked = review.evolve(state.review, event)
    after = msgspec.structs.replace(state, version=state.version + 1, review=asked, **changes)
    return msgspec.structs.replace(after, reviewed=_reviewed(after, event))


def _reviewed(after: RegisteredModel, event: e.Event) -> tuple[tuple[int, Target], ...]:
    found = dict.fromkeys(after.reviewed)
    if isinstance(event, e.TransitionApproved) and event.completes and event.evidence.policies:
        found[event.version, Target(event.target_kind, event.target)] = None
    return tuple(
        (number, target)
        for number, target in found
        if number in after.versions and target in reached(after, after.versions[number])
    )


def _created(state: RegisteredModel | None, event: e.RegisteredModelCreated) -> RegisteredModel:
    if state is not None:
        raise Void("the registered model exists already")
    at_ms = event.envelope.recorded_at_ms
    return RegisteredModel(
        version=1,
        model_id=event.envelope.aggregate_id,
        name=event.name,
        description=event.description,
        created_at_ms=at_ms,
        updated_at_ms=at_ms,
        tags=event.tags,
        versions={},
        aliases={},
        last_version=0,
        created_by=event.envelope.actor.principal_id,
        workspace=event.envelope.workspace,
    )


def _model_changes(state: RegisteredModel, event: e.Event) -> dict[str, object] | None:
    """What an event about the model as a whole changes; None for an event about a version."""
    at_ms = event.envelope.recorded_at_ms
    match event:
        case e.RegisteredModelUpdated():
            return {"description": event.description, "updated_at_ms": at_ms}
        case e.RegisteredModelRenamed():
            renamed = {
                number: msgspec.structs.replace(version, name=event.name, updated_at_ms=at_ms)
                for number, version in state.versions.items()
            }
            return {"name": event.name, "updated_at_ms": at_ms, "versions": renamed}
        case e.RegisteredModelTagSet():
            return {"tags": {**state.tags, event.key: event.value}}
        case e.RegisteredModelTagDeleted():
            return {"tags": _without(state.tags, event.key)}
        case e.AliasSet():
            _version_of(state, event.version)
            return {"aliases": {**state.aliases, event.alias: event.version}}
        case e.AliasDeleted():
            return {"aliases": {k: v for k, v in state.aliases.items() if k != event.alias}}
    return None


def _version_changes(state: RegisteredModel, event: e.Event) -> dict[str, object]:
    at_ms = event.envelope.recorded_at_ms
    match event:
        case e.ModelVersionCreated():
            return _version_created(state, event)
        case e.ModelVersionUpdated():
            changed = _version_of(state, event.version)
            changed = msgspec.structs.replace(
                changed, description=event.description, updated_at_ms=at_ms
            )
            return {"versions": {**state.versions, event.version: changed}}
        case e.StageTransitioned():
            return _stage_transitioned(state, event)
        case e.ModelVersionDeleted():
            _version_of(state, event.version)
            return {
                "versions": {k: v for k, v in state.versions.items() if k != event.version},
                "aliases": {k: v for k, v in state.aliases.items() if v != event.version},
                "updated_at_ms": at_ms,
            }
        case e.ModelVersionTagSet():
            tags = {**_version_of(state, event.version).tags, event.key: event.value}
            return _tagged(state, event.version, tags)
        case e.ModelVersionTagDeleted():
            return _tagged(
                state, event.version, _without(_version_of(state, event.version).tags, event.key)
            )
        case e.TransitionApproved():
            return _approved(state, event)
    if isinstance(event, review.EVENTS):
        _version_of(state, event.version)
        return {}
    raise AssertionError(f"{type(event).__name__} is no event of a registered model")


def _version_created(state: RegisteredModel, event: e.ModelVersionCreated) -> dict[str, object]:
    if event.version <= state.last_version:
        raise Void(f"version {event.version} was given already")
    at_ms = event.envelope.recorded_at_ms
    created = ModelVersion(
        name=state.name,
        version=event.version,
        created_at_ms=at_ms,
        updated_at_ms=at_ms,
        description=event.description or "",
        stage=NONE,
        source=event.source,
        storage_location=event.storage_location,
        run_id=event.run_id or "",
        run_link=event.run_link or "",
        logged_model_id=event.logged_model_id,
        tags=event.tags,
        created_by=event.envelope.actor.principal_id,
        created_through=event.envelope.actor.delegation,
        copied_from=tuple(Hand(one.principal_id, one.delegation) for one in event.copied_authors),
    )
    return {
        "versions": {**state.versions, event.version: created},
        "last_version": event.version,
        "updated_at_ms": at_ms,
    }


def _approved(state: RegisteredModel, event: e.TransitionApproved) -> dict[str, object]:
    """The last approval moves the version by the same event."""
    _version_of(state, event.version)
    if not event.completes:
        return {}
    if event.target_kind == ALIAS:
        return {"aliases": {**state.aliases, event.target: event.version}}
    return _moved(state, event.version, event.target, event.archived, event)


def _stage_transitioned(state: RegisteredModel, event: e.StageTransitioned) -> dict[str, object]:
    return _moved(state, event.version, event.to_stage, event.archived, event)


def _moved(
    state: RegisteredModel,
    version: int,
    to_stage: str,
    others: Iterable[e.ArchivedVersion],
    event: e.Event,
) -> dict[str, object]:
    at_ms = event.envelope.recorded_at_ms
    stages = {archived.version: ARCHIVED for archived in others}
    stages[version] = to_stage
    moved = {
        number: msgspec.structs.replace(
            _version_of(state, number), stage=stage, updated_at_ms=at_ms
        )
        for number, stage in stages.items()
    }
    return {"versions": {**state.versions, **moved}, "updated_at_ms": at_ms}


def _tagged(state: RegisteredModel, number: int, tags: dict[str, str]) -> dict[str, object]:
    changed = msgspec.structs.replace(_version_of(state, number), tags=tags)
    return {"versions": {**state.versions, number: changed}}


def _version_of(state: RegisteredModel, number: int) -> ModelVersion:
    found = state.versions.get(number)
    if found is None:
        raise Void(f"version {number} does not exist")
    return found


def _without(tags: dict[str, str], key: str) -> dict[str, str]:
    return {k: v for k, v in tags.items() if k != key}

"""Writes the registry: registered models, their versions, and the intervals of their history."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol, cast

import msgspec

from muniment_projections.base import Connection, Folded, applied, document
from muniment_projections.registry import intervals, tables
from muniment_projections.search.entities.registry import PROMPT_TAG
from muniment_schemas import events as e

KIND = "registered_model"


class VersionRow(Protocol):
    """What `model_versions` needs of a version."""

    name: str
    version: int
    source: str
    run_id: str
    stage: str
    created_at_ms: int
    updated_at_ms: int
    tags: Mapping[str, str]


class ModelRow(Protocol):
    """What the tables need of a registered model's state."""

    model_id: str
    name: str
    description: str | None
    created_at_ms: int
    updated_at_ms: int
    tags: Mapping[str, str]
    created_by: str
    workspace: str
    versions: Mapping[int, VersionRow]


class RegistryProjection:
    """One row per model, one per version, one per interval."""

    name = "registry"

    def create(self, tx: Connection) -> None:
        """Create the tables."""
        tx.execute(tables.CREATE)
        tx.execute(tables.CREATE_WORKSPACES)
        intervals.create(tx)

    def apply(self, tx: Connection, batch: Sequence[Folded]) -> None:
        """Replace the rows of what the batch changed; begin and end intervals."""
        items = [item for item in applied(batch) if item.event.AGGREGATE == KIND]
        if not items:
            return
        models = {
            item.event.envelope.aggregate_id: cast(ModelRow | None, item.after) for item in items
        }
        _write_models(tx, models)
        made = [item.event for item in items if isinstance(item.event, e.RegisteredModelCreated)]
        if made:
            ids = [event.envelope.aggregate_id for event in made]
            places = [event.envelope.workspace for event in made]
            kinds = [_is_prompt(event.tags) for event in made]
            tx.execute(tables.INSERT_WORKSPACES, [ids, places, kinds])
        _write_versions(tx, models, [item.event for item in items])
        intervals.apply(tx, items)


def _write_models(tx: Connection, models: Mapping[str, ModelRow | None]) -> None:
    tx.execute(tables.DELETE_MODELS, [list(models)])
    living = [model for model in models.values() if model is not None]
    if living:
        tx.execute(tables.INSERT_MODELS, _model_columns(living))


def _model_columns(models: Sequence[ModelRow]) -> list[list[object]]:
    return [
        [model.model_id for model in models],
        [model.name for model in models],
        [model.description for model in models],
        [model.created_at_ms for model in models],
        [model.updated_at_ms for model in models],
        [list(model.tags.keys()) for model in models],
        [list(model.tags.values()) for model in models],
        [_is_prompt(model.tags) for model in models],
        [model.created_by for model in models],
        [model.workspace for model in models],
        [document(cast(msgspec.Struct, model)) for model in models],
    ]


def _write_versions(
    tx: Connection, models: Mapping[str, ModelRow | None], events: Iterable[e.Event]
) -> None:
    wholly, singly = _changed_versions(events)
    if wholly:
        tx.execute(tables.DELETE_ALL_VERSIONS, [list(wholly)])
    if singly:
        ids, numbers = zip(*singly, strict=True)
        tx.execute(tables.DELETE_VERSIONS, [list(ids), list(numbers)])
    rows = [
        (model, version)
        for model_id, model in models.items()
        if model is not None
        for number, version in model.versions.items()
        if model_id in wholly or (model_id, number) in singly
    ]
    prompts = {
        model_id: any(_is_prompt(version.tags) for version in model.versions.values())
        for model_id, model in models.items()
        if model is not None
    }
    if rows:
        tx.execute(tables.INSERT_VERSIONS, _version_columns(rows, prompts))
    tx.execute(tables.MARK_PROMPTS, [list(prompts.keys()), list(prompts.values())])


def _changed_versions(events: Iterable[e.Event]) -> tuple[set[str], set[tuple[str, int]]]:
    """Models of which all versions changed, and (model, version) of those that did singly."""
    wholly: set[str] = set()
    singly: set[tuple[str, int]] = set()
    for event in events:
        model_id = event.envelope.aggregate_id
        match event:
            case e.RegisteredModelRenamed() | e.RegisteredModelDeleted():
                wholly.add(model_id)
            case e.StageTransitioned() | e.TransitionApproved():
                archived = ((model_id, other.version) for other in event.archived)
                singly.update(((model_id, event.version), *archived))
            case (
                e.ModelVersionCreated()
                | e.ModelVersionUpdated()
                | e.ModelVersionDeleted()
                | e.ModelVersionTagSet()
                | e.ModelVersionTagDeleted()
            ):
                singly.add((model_id, event.version))
    return wholly, singly


def _version_columns(
    rows: Sequence[tuple[ModelRow, VersionRow]], prompts: Mapping[str, bool]
) -> list[list[object]]:
    versions = [version for _, version in rows]
    return [
        [model.model_id for model, _ in rows],
        [version.name for version in versions],
        [version.version for version in versions],
        [version.source for version in versions],
        [version.run_id for version in versions],
        [version.stage for version in versions],
        [version.created_at_ms for version in versions],
        [version.updated_at_ms for version in versions],
        [list(version.tags.keys()) for version in versions],
        [list(version.tags.values()) for version in versions],
        [prompts[model.model_id] for model, _ in rows],
        [document(cast(msgspec.Struct, version)) for version in versions],
    ]


def _is_prompt(tags: Mapping[str, str]) -> bool:
    return tags.get(PROMPT_TAG) == "true"

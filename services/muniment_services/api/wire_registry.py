"""Registered models and versions to MLflow's JSON.

A version's number is a text there. A model shows the newest version of each stage; aliases stand in
the model, and in a version only where one version is asked for.
Source: MLflow 3.17 REST API; answers of its server.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from muniment_services.api.wire import Json, tags, without_none
from muniment_services.domain.registered_model import (
    ModelVersion,
    RegisteredModel,
    aliases_of,
    latest_versions,
)

READY = "READY"
"""A version's status: its files are where they are, nothing is copied."""


def registered_model(state: RegisteredModel) -> Json:
    """MLflow's RegisteredModel; an empty description is left out."""
    answer: Json = {
        "name": state.name,
        "creation_timestamp": state.created_at_ms,
        "last_updated_timestamp": state.updated_at_ms,
    }
    if state.description:
        answer["description"] = state.description
    if state.versions:
        answer["latest_versions"] = [model_version(v) for v in latest_versions(state)]
    if state.tags:
        answer["tags"] = tags(state.tags)
    if state.aliases:
        answer["aliases"] = [
            {"alias": alias, "version": str(state.aliases[alias])}
            for alias in sorted(state.aliases)
        ]
    return answer


def model_version(version: ModelVersion, aliases: Sequence[str] = ()) -> Json:
    """MLflow's ModelVersion."""
    answer = without_none(
        name=version.name,
        version=str(version.version),
        creation_timestamp=version.created_at_ms,
        last_updated_timestamp=version.updated_at_ms,
        current_stage=version.stage,
        description=version.description,
        source=version.source,
        run_id=version.run_id,
        status=READY,
    )
    if version.tags:
        answer["tags"] = tags(version.tags)
    answer["run_link"] = version.run_link
    if aliases:
        answer["aliases"] = list(aliases)
    return answer


def with_aliases(model: RegisteredModel, versions: Iterable[ModelVersion]) -> list[Json]:
    """Versions of one model, each with its aliases."""
    return [model_version(v, aliases_of(model, v.version)) for v in versions]

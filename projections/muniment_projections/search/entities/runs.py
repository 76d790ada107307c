"""Runs: metrics, params, tags, attributes and datasets.

Their lifecycle is their own or their experiment's, whichever changed last.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import ClassVar, Final

from muniment_projections.search.entities.base import (
    PATTERNS_AND_LISTS,
    Attribute,
    Entity,
    Names,
    compare,
    shown,
    string,
    strings,
)
from muniment_projections.search.errors import SearchError
from muniment_projections.search.predicate import Predicate
from muniment_projections.search.tree import Comparison, Constant, Field, Value

LIFECYCLE = (
    "CASE WHEN e.lifecycle_changed_at_ms >= t.lifecycle_changed_at_ms"
    " THEN e.lifecycle ELSE t.lifecycle END"
)
"""A deleted experiment's runs appear deleted, and restoring it restores them."""

_NAME_ALIASES = ("run name", "Run name", "Run Name")
_TIME_ALIASES = ("created", "Created")
_NAME = Attribute("t.name")
_STARTED = Attribute("t.start_time_ms", "integer")
_ORDERABLE: Final = {
    "run_id": Attribute("t.run_id"),
    "run_name": _NAME,
    "status": Attribute("t.status"),
    "user_id": Attribute("t.user_id"),
    "artifact_uri": Attribute("t.artifact_uri"),
    "start_time": _STARTED,
    "end_time": Attribute("t.end_time_ms", "integer", nullable=True),
    **dict.fromkeys(_TIME_ALIASES, _STARTED),
}


class RunEntity(Entity):
    """Adds datasets to the common rules."""

    DATASET_KEYS: ClassVar[Names] = frozenset({"name", "digest", "context"})

    def identify(self, text: str, keys: Collection[str]) -> Field:
        """Datasets have three keys only."""
        found = super().identify(text, keys)
        if found.kind == "dataset" and found.key not in self.DATASET_KEYS:
            raise SearchError(
                f"Invalid dataset key '{found.key}' specified. "
                f"Valid keys are '{shown(self.DATASET_KEYS)}'"
            )
        return found

    def value(self, found: Field, constant: Constant) -> Value:
        """Datasets take strings and lists of them."""
        if found.kind != "dataset":
            return super().value(found, constant)
        if constant.form in ("string", "name"):
            return string(constant)
        if constant.form == "list":
            return strings(constant)
        raise SearchError(
            f"Expected a quoted string value for dataset attributes. Got value {constant.text}"
        )

    def check(self, comparison: Comparison) -> Comparison:
        """Datasets compare as string attributes do."""
        if comparison.field.kind == "dataset" and comparison.operator not in PATTERNS_AND_LISTS:
            raise SearchError(
                f"Invalid comparator '{comparison.operator}' "
                f"not one of '{shown(PATTERNS_AND_LISTS)}"
            )
        return super().check(comparison)

    def condition(self, comparison: Comparison) -> Predicate:
        """A run matches when one of its datasets does."""
        if comparison.field.kind != "dataset":
            return super().condition(comparison)
        item = Predicate(f"d.{comparison.field.key}")
        inner = compare(item, comparison.operator, comparison.value)
        matching = f"len(list_filter(t.datasets, lambda d: {inner.sql})) > 0"
        return Predicate(matching, inner.parameters)


RUNS = RunEntity(
    name="runs",
    table="runs",
    source="runs AS t JOIN experiments AS e ON e.experiment_id = t.experiment_id",
    identifiers={
        **dict.fromkeys(("metric", "metrics"), "metric"),
        **dict.fromkeys(("parameter", "parameters", "param", "params"), "parameter"),
        **dict.fromkeys(("tag", "tags"), "tag"),
        **dict.fromkeys(("attribute", "attributes", "attr", "run"), "attribute"),
        **dict.fromkeys(("dataset", "datasets"), "dataset"),
    },
    kinds_shown=("metric", "parameter", "tag", "attribute", "dataset"),
    attributes={**_ORDERABLE, **dict.fromkeys(_NAME_ALIASES, _NAME)},
    orderable=_ORDERABLE,
    key_aliases={
        **dict.fromkeys(_NAME_ALIASES, "run_name"),
        **dict.fromkeys(_TIME_ALIASES, "start_time"),
    },
    maps={"metric": "t.metrics", "parameter": "t.params", "tag": "t.tags"},
    lists=frozenset({"run_id"}),
    tie_breakers=(("start_time", False), ("run_id", True)),
    extra=(LIFECYCLE,),
)

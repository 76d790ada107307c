"""Registered models and their versions: attributes and tags; no prompts unless asked for."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Final

from muniment_projections.search.entities.base import (
    NUMERIC,
    PATTERNS,
    PATTERNS_AND_LISTS,
    Attribute,
    Entity,
    number,
    string,
    strings,
    unquoted,
)
from muniment_projections.search.entities.experiments import PREFIXES
from muniment_projections.search.errors import SearchError
from muniment_projections.search.grammar import parse_order
from muniment_projections.search.predicate import TRUE, Predicate
from muniment_projections.search.tree import Comparison, Constant, Field, Order, Value

PROMPT_TAG = "mlflow.prompt.is_prompt"


class RegistryEntity(Entity):
    """What models and versions share."""

    def refused(self, text: str, pieces: Sequence[str]) -> str:
        """Without quotes."""
        return f"Invalid clause(s) in filter string: {', '.join(pieces)}"

    def kind(self, prefix: str) -> str:
        """Only the three prefixes, unquoted."""
        if prefix not in PREFIXES:
            raise SearchError(f"Invalid entity type '{prefix}'. Valid entity types are {PREFIXES}")
        return self.identifiers[prefix]

    def identify(self, text: str, keys: Collection[str]) -> Field:
        """Attributes must not be quoted in filters; in orders they may be."""
        prefix, dot, rest = text.partition(".")
        kind = self.kind(prefix) if dot else "attribute"
        key = rest if dot else prefix
        if keys is not self.attributes:
            key = unquoted(key)
        if kind == "attribute":
            self.check_attribute(key, keys)
        return Field(kind, unquoted(key))

    def check_existence(self, found: Field) -> None:
        """Nowhere; MLflow's own answer to it is a fault."""
        raise SearchError(f"Invalid comparator for {found.kind}: IS NULL")

    def attribute_value(self, key: str, constant: Constant) -> Value:
        """Strings, lists of them, and for versions numbers."""
        if constant.form in ("string", "name"):
            return string(constant)
        if constant.form == "list":
            self.check_list(key)
            return strings(constant)
        if constant.form == "number" and self.takes_numbers(key):
            return number(constant.text)
        raise SearchError(
            "Expected a quoted string value or a list of quoted string values for "
            f"attributes. Got value {constant.text}"
        )

    def takes_numbers(self, key: str) -> bool:
        """Whether an attribute may be compared with a number. May raise SearchError."""
        return False

    def check(self, comparison: Comparison) -> Comparison:
        """Strings take patterns and lists, tags patterns."""
        if comparison.field.kind == "tag" and comparison.operator not in PATTERNS:
            raise SearchError(f"Invalid comparator for tag: {comparison.operator}")
        return super().check(comparison)

    def check_attribute_comparator(self, comparison: Comparison) -> None:
        """The registry has a message of its own."""
        if comparison.operator not in PATTERNS_AND_LISTS:
            raise SearchError(f"Invalid comparator for attribute: {comparison.operator}")

    def narrowing(self, comparisons: Sequence[Comparison]) -> tuple[list[Comparison], Predicate]:
        """Prompts appear only when the filter's first prompt clause asks for them."""
        asked = [c for c in comparisons if c.field == Field("tag", PROMPT_TAG)]
        if asked and (asked[0].operator, str(asked[0].value).lower()) in (
            ("=", "true"),
            ("!=", "false"),
        ):
            return list(comparisons), TRUE
        return [c for c in comparisons if c not in asked], Predicate("NOT t.is_prompt")


class RegisteredModelEntity(RegistryEntity):
    """Orders are names without prefixes; both timestamps mean the last update."""

    def order(self, item: str) -> Order:
        """One of three names."""
        key, ascending = parse_order(item)
        if key not in self.orderable:
            raise SearchError(
                f"Invalid order by key '{key}' specified. Valid keys are '{{'name', 'timestamp'}}'"
            )
        return Order(self.meant(Field("attribute", key)), ascending)


class ModelVersionEntity(RegistryEntity):
    """Adds the version number."""

    def takes_numbers(self, key: str) -> bool:
        """Numbers suit integer columns."""
        if self.attributes[key].type != "integer":
            names = "{'creation_timestamp', 'last_updated_timestamp', 'version_number'}"
            raise SearchError(
                f"Only the '{names}' attributes support comparison with numeric values."
            )
        return True

    def check(self, comparison: Comparison) -> Comparison:
        """A version number may be quoted, but must be an integer."""
        found = comparison.field
        if found.kind == "attribute" and self.attributes[found.key].type == "integer":
            if comparison.operator not in NUMERIC:
                raise SearchError(
                    f"Invalid comparator for attribute {found.key}: {comparison.operator}"
                )
            comparison = replace(comparison, value=_integer(found.key, comparison.value))
        return super().check(comparison)

    def check_attribute_comparator(self, comparison: Comparison) -> None:
        """Numbers were checked; strings are those of the registry, lists for two of them."""
        if self.attributes[comparison.field.key].type == "text":
            super().check_attribute_comparator(comparison)

    def order(self, item: str) -> Order:
        """Four attributes."""
        text, ascending = parse_order(item)
        found = self.identify(text, self.orderable)
        if found.key not in self.orderable:
            names = "{" + ", ".join(repr(name) for name in sorted(self.orderable)) + "}"
            raise SearchError(
                f"Invalid order by key '{found.key}' specified. Valid keys are {names}"
            )
        return Order(Field("attribute", found.key), ascending)


def _integer(key: str, value: Value) -> int:
    if isinstance(value, str | int):
        try:
            return int(value)
        except ValueError:
            pass
    raise SearchError(f"Invalid value for numeric attribute '{key}': {value!r}")


_PREFIX_KINDS: Final = {"attribute": "attribute", "tag": "tag", "tags": "tag"}
_NAME = Attribute("t.name")
_UPDATED = Attribute("t.updated_at_ms", "integer")

REGISTERED_MODELS = RegisteredModelEntity(
    name="registered_models",
    table="registered_models",
    source="registered_models AS t",
    identifiers=_PREFIX_KINDS,
    attributes={"name": _NAME},
    orderable={"name": _NAME, "timestamp": _UPDATED, "last_updated_timestamp": _UPDATED},
    key_aliases={"timestamp": "last_updated_timestamp"},
    maps={"tag": "t.tags"},
    lists=frozenset({"name"}),
    tie_breakers=(("name", True),),
)

MODEL_VERSIONS = ModelVersionEntity(
    name="model_versions",
    table="model_versions",
    source="model_versions AS t",
    identifiers=_PREFIX_KINDS,
    attributes={
        "name": _NAME,
        "version_number": Attribute("t.version", "integer"),
        "run_id": Attribute("t.run_id", nullable=True),
        "source_path": Attribute("t.source", nullable=True),
    },
    orderable={
        "name": _NAME,
        "version_number": Attribute("t.version", "integer"),
        "creation_timestamp": Attribute("t.created_at_ms", "integer"),
        "last_updated_timestamp": _UPDATED,
    },
    maps={"tag": "t.tags"},
    lists=frozenset({"name", "run_id"}),
    order_default=("last_updated_timestamp DESC", "name ASC", "version_number DESC"),
    tie_breakers=(("name", True), ("version_number", False)),
)

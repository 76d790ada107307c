"""Logged models: attributes, params, tags, and metrics on datasets, which `model_points` holds.

Orders come as objects from clients; `order_item` writes one as the string that a search takes.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

from muniment_projections.search.entities.base import (
    Attribute,
    Entity,
    metric_condition,
    strings,
)
from muniment_projections.search.errors import SearchError
from muniment_projections.search.keyset import SortKey
from muniment_projections.search.predicate import TRUE, Predicate, any_of
from muniment_projections.search.tree import Clause, Comparison, Constant, Field, Order, Value

Datasets = tuple[tuple[str, str | None], ...]
"""(name, digest) of datasets that metrics are narrowed to; a digest of None means any."""

_NAME = re.compile(r"([a-z]+)\.(.+)", re.DOTALL)
_NUMERIC_SHOWN = ("<", "<=", ">", ">=", "=", "!=")
_STRING_SHOWN = ("=", "!=", "LIKE", "ILIKE", "IN", "NOT IN")


def order_item(
    field_name: str,
    ascending: bool = True,
    dataset_name: str | None = None,
    dataset_digest: str | None = None,
) -> str:
    """One order_by object of a request as the string that `Search.order_by` takes."""
    return json.dumps([field_name, ascending, dataset_name or "", dataset_digest or ""])


@dataclass(frozen=True, kw_only=True)
class LoggedModelEntity(Entity):
    """datasets: what metrics in the filter are narrowed to."""

    datasets: Datasets = ()

    def refused(self, text: str, pieces: Sequence[str]) -> str:
        """The whole filter is shown."""
        return (
            f"Invalid filter string: {text!r}. Expected a list of comparisons separated by 'AND' "
            "(e.g. 'metrics.loss > 0.1 AND params.lr = 0.01')."
        )

    def read(self, clause: Clause) -> Comparison:
        """Comparators are checked before values."""
        found = self._named(clause.field)
        if clause.value is None:
            raise SearchError(
                f"Invalid comparison: {clause.field}{clause.operator}. "
                "Expected a comparison with 3 tokens."
            )
        shown, operator = self._operators(found), clause.operator.upper()
        if operator not in shown:
            prefix = next(p for p, kind in self.identifiers.items() if kind == found.kind)
            entity = f"{prefix}.{found.key}"
            raise SearchError(
                f"Invalid comparison operator for {entity}: {operator!r}. Expected one of {shown}."
            )
        if found.kind == "attribute":
            self.check_attribute(found.key, self.attributes)
        return Comparison(self.meant(found), operator, self.value(found, clause.value))

    def _operators(self, found: Field) -> tuple[str, ...]:
        attribute = self.attributes.get(found.key) if found.kind == "attribute" else None
        numeric = found.kind == "metric" or (attribute is not None and attribute.type == "integer")
        return _NUMERIC_SHOWN if numeric else _STRING_SHOWN

    def identify(self, text: str, keys: Collection[str]) -> Field:
        """Prefixes in the plural only; a bare name is an attribute."""
        found = self._named(text)
        if found.kind == "attribute":
            self.check_attribute(found.key, keys)
        return found

    def _named(self, text: str) -> Field:
        match = _NAME.fullmatch(text)
        prefix = match.group(1) if match else "attributes"
        key = (match.group(2) if match else text).strip("`")
        if prefix not in self.identifiers:
            raise SearchError(
                f"Invalid entity type: {prefix!r}. Expected one of {list(self.identifiers)}."
            )
        return Field(self.identifiers[prefix], key)

    def value(self, found: Field, constant: Constant) -> Value:
        """Numbers for metrics and times; a list's elements, or a text without single quotes."""
        if self._operators(found) == _NUMERIC_SHOWN:
            if constant.form != "number":
                raise SearchError(
                    f"Expected numeric value type for {found.key}. Found {constant.text}"
                )
            return float(constant.text)
        return strings(constant) if constant.form == "list" else constant.text.strip("'")

    def check(self, comparison: Comparison) -> Comparison:
        """Comparators were checked; lists belong to IN."""
        if comparison.field.kind == "attribute":
            return super().check(comparison)
        listed = isinstance(comparison.value, tuple)
        if listed != (comparison.operator in ("IN", "NOT IN")):
            raise SearchError(f"Invalid comparison operator for a list: {comparison.operator!r}.")
        return comparison

    def narrowing(self, comparisons: Sequence[Comparison]) -> tuple[list[Comparison], Predicate]:
        """Datasets without a metric filter: models with any metric on one of them."""
        if not self.datasets or any(c.field.kind == "metric" for c in comparisons):
            return list(comparisons), TRUE
        return list(comparisons), self._with_points(TRUE)

    def condition(self, comparison: Comparison) -> Predicate:
        """A metric matches when one of its points on the datasets does, the latest or not."""
        if comparison.field.kind != "metric":
            return super().condition(comparison)
        assert isinstance(comparison.value, float)
        point = metric_condition(Predicate("m.value"), comparison.operator, comparison.value)
        named = Predicate(f"m.key = ? AND {point.sql}", (comparison.field.key, *point.parameters))
        return self._with_points(named)

    def _with_points(self, condition: Predicate) -> Predicate:
        on_datasets = any_of(map(_on_dataset, self.datasets)) if self.datasets else TRUE
        return Predicate(
            "t.model_id IN (SELECT m.model_id FROM model_points AS m"
            f" WHERE ({condition.sql}) AND ({on_datasets.sql}))",
            condition.parameters + on_datasets.parameters,
        )

    def order(self, item: str) -> Order:
        """A metric, perhaps on a dataset, or an attribute."""
        name, ascending, dataset, digest = json.loads(item)
        if "." not in name:
            if name not in self.orderable:
                raise SearchError(f"Invalid order by field name: {name}")
            return Order(self.meant(Field("attribute", name)), ascending)
        prefix, _, key = name.partition(".")
        if prefix != "metrics":
            raise SearchError(f"Invalid order by field name: {name}. Only metrics are supported.")
        return Order(Field("metric", key), ascending, (dataset, digest))

    def sort_keys(self, order_by: Sequence[str]) -> tuple[SortKey, ...]:
        """A name given twice sorts once: the second adds nothing."""
        unique = {
            (o.field, o.dataset): o for o in reversed([self.order(item) for item in order_by])
        }
        orders = list(reversed(unique.values()))
        named = [order.field for order in orders]
        for key, ascending in self.tie_breakers:
            if Field("attribute", key) not in named:
                orders.append(Order(Field("attribute", key), ascending))
        return tuple(self.sort_key(order) for order in orders)

    def sort_key(self, order: Order) -> SortKey:
        """A metric sorts by its latest point: timestamp, step, then the first run id."""
        if order.field.kind != "metric":
            return super().sort_key(order)
        dataset, digest = order.dataset
        wanted = ["m.model_id = t.model_id AND m.key = ?"]
        parameters = [order.field.key]
        for column, value in (("dataset_name", dataset), ("dataset_digest", digest)):
            if value:
                wanted.append(f"m.{column} = ?")
                parameters.append(value)
        latest = (
            "(SELECT first(m.value ORDER BY m.timestamp_ms DESC, m.step DESC, m.run_id)"
            f" FROM model_points AS m WHERE {' AND '.join(wanted)})"
        )
        return SortKey(Predicate(latest, tuple(parameters)), "double", order.ascending, True)


def _on_dataset(dataset: tuple[str, str | None]) -> Predicate:
    name, digest = dataset
    if digest is None:
        return Predicate("m.dataset_name = ?", (name,))
    return Predicate("m.dataset_name = ? AND m.dataset_digest = ?", (name, digest))


_CREATED = Attribute("t.created_at_ms", "integer")
_UPDATED = Attribute("t.updated_at_ms", "integer")
_ATTRIBUTES: Mapping[str, Attribute] = {
    "name": Attribute("t.name"),
    "model_id": Attribute("t.model_id"),
    "experiment_id": Attribute("t.experiment_id"),
    "model_type": Attribute("t.model_type", nullable=True),
    "status": Attribute("replace(t.status, 'LOGGED_MODEL_', '')"),
    "source_run_id": Attribute("t.source_run_id", nullable=True),
    **dict.fromkeys(("creation_timestamp", "creation_time", "creation_timestamp_ms"), _CREATED),
    **dict.fromkeys(("last_updated_timestamp", "last_updated_timestamp_ms"), _UPDATED),
}

LOGGED_MODELS = LoggedModelEntity(
    name="logged_models",
    table="logged_models",
    source="logged_models AS t",
    identifiers={
        "attributes": "attribute",
        "metrics": "metric",
        "params": "parameter",
        "tags": "tag",
    },
    attributes=_ATTRIBUTES,
    orderable=_ATTRIBUTES,
    maps={"parameter": "t.params", "tag": "t.tags"},
    lists=None,
    tie_breakers=(("creation_timestamp", False), ("model_id", True)),
    key_aliases={
        "creation_time": "creation_timestamp",
        "creation_timestamp_ms": "creation_timestamp",
        "last_updated_timestamp_ms": "last_updated_timestamp",
    },
)


def on_datasets(datasets: Datasets) -> LoggedModelEntity:
    """Logged models with the metrics in their filter narrowed to datasets."""
    return replace(LOGGED_MODELS, datasets=datasets)

"""Traces: attributes, tags, metadata, spans, assessments, linked runs and prompts.

Some attributes are other things by another name: `name` and `prompt` are tags, `run_id` is metadata
or a link, `text` is the content of spans. All conditions on spans must hold for one and the same
span.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import ClassVar, Final

from muniment_projections.search.entities.base import (
    EXISTENCE,
    NUMERIC,
    PATTERNS,
    PATTERNS_AND_LISTS,
    Attribute,
    Entity,
    Names,
    compare,
    number,
    shown,
    string,
    strings,
)
from muniment_projections.search.entities.spans import check_span, span_condition
from muniment_projections.search.errors import SearchError
from muniment_projections.search.predicate import TRUE, Predicate, all_of
from muniment_projections.search.tree import Clause, Comparison, Constant, Field, Value

NAME_TAG = "mlflow.traceName"
PROMPTS_TAG = "mlflow.linkedPrompts"
SOURCE_RUN = "mlflow.sourceRun"

METADATA = "request_metadata"
ASSESSMENTS = ("feedback", "expectation")
_RELATIONS: Names = NUMERIC - {"=", "!="}
_ASSESSMENT_COMPARATORS: Names = NUMERIC | PATTERNS | EXISTENCE | {"RLIKE"}
_METADATA_COMPARATORS: Names = PATTERNS | EXISTENCE | {"RLIKE"}

_ELSEWHERE: Final = {
    "name": ("tag", NAME_TAG),
    "prompt": ("tag", PROMPTS_TAG),
    "run_id": (METADATA, SOURCE_RUN),
    "text": ("span", "content"),
}


class TraceEntity(Entity):
    """The rules of traces."""

    tag_comparators: ClassVar[Names] = PATTERNS | EXISTENCE | {"RLIKE"}
    orderable_kinds: ClassVar[tuple[str, ...]] = ("attribute", "tag", METADATA)
    LISTS_SHOWN: ClassVar[Names] = frozenset(
        {"name", "status", "request_id", "run_id", "client_request_id"}
    )

    def kind(self, prefix: str) -> str:
        """The message shows a set."""
        if prefix.strip("`") not in self.identifiers:
            valid = shown(self.identifiers.keys())
            raise SearchError(f"Invalid entity type '{prefix}'. Valid values are {valid}")
        return super().kind(prefix)

    def read(self, clause: Clause) -> Comparison:
        """Values are read for the name as it was written, comparators checked for what it means."""
        found = self.identify(clause.field, self.attributes)
        operator = clause.operator.upper()
        value: Value = None
        if clause.value is not None:
            if found.kind in ASSESSMENTS:
                _check_assessment_value(found.kind, operator, clause.value)
            value = self.value(found, clause.value)
        if found.kind == "span":
            check_span(found.key, clause.operator)
        return Comparison(self.meant(found), operator, value)

    def meant(self, found: Field) -> Field:
        """MLflow looks at the key alone: `tag.name` is the trace's name too."""
        if found.kind == "span":
            return found
        kind, key = _ELSEWHERE.get(found.key.lower(), (found.kind, found.key))
        return Field(kind, self.key_aliases.get(key, key))

    def value(self, found: Field, constant: Constant) -> Value:
        """Strings; lists for tags, spans and some attributes; numbers for times and scores."""
        if found.kind == "attribute":
            return self.attribute_value(found.key, constant)
        if constant.form in ("string", "name"):
            return string(constant)
        if constant.form == "list" and found.kind in ("tag", "span"):
            return strings(constant)
        if found.kind in ASSESSMENTS and constant.form == "number":
            return float(constant.text)
        raise SearchError(
            f"Expected a quoted string value for {found.kind} (e.g. 'my-value'). "
            f"Got value {constant.text}"
        )

    def attribute_value(self, key: str, constant: Constant) -> Value:
        """Numbers may be quoted."""
        integer = self.attributes[key].type == "integer"
        if constant.form in ("string", "name"):
            return _quoted_number(key, string(constant)) if integer else string(constant)
        if constant.form == "list":
            if key not in self.LISTS_SHOWN:
                raise SearchError(
                    f"Only attributes in {shown(self.LISTS_SHOWN)} "
                    "supports comparison with a list of quoted string values."
                )
            return strings(constant)
        if constant.form == "number":
            if not integer:
                numeric = [k for k, column in self.attributes.items() if column.type == "integer"]
                raise SearchError(
                    f"Only the '{shown(numeric)}' attributes support comparison with "
                    "numeric values."
                )
            return number(constant.text)
        raise SearchError(
            "Expected a quoted string value or a list of quoted string values for "
            f"attributes. Got value {constant.text}"
        )

    def check(self, comparison: Comparison) -> Comparison:
        """Comparators by what the field means."""
        kind, key, operator = comparison.field.kind, comparison.field.key, comparison.operator
        if kind == "issue":
            _check_issue(key, operator)
        elif kind == METADATA and operator not in _METADATA_COMPARATORS:
            allowed = shown(_METADATA_COMPARATORS)
            raise SearchError(f"Invalid comparator '{operator}' not one of '{allowed}'")
        elif kind in ASSESSMENTS and operator not in _ASSESSMENT_COMPARATORS:
            allowed = shown(_ASSESSMENT_COMPARATORS)
            raise SearchError(f"assessment.{key} comparator '{operator}' not one of '{allowed}'")
        elif kind == "span":
            check_span(key, operator)
        checked = super().check(comparison)
        if kind == "tag" and key == PROMPTS_TAG:
            _check_prompt(operator, comparison.value)
        return checked

    def check_attribute_comparator(self, comparison: Comparison) -> None:
        """Strings take RLIKE too."""
        if self.attributes[comparison.field.key].type == "integer":
            allowed, named = NUMERIC, PATTERNS_AND_LISTS | {"RLIKE"}
        else:
            allowed = named = PATTERNS_AND_LISTS | {"RLIKE"}
        if comparison.operator not in allowed:
            raise SearchError(
                f"Invalid comparator '{comparison.operator}' not one of '{shown(named)}'"
            )

    def narrowing(self, comparisons: Sequence[Comparison]) -> tuple[list[Comparison], Predicate]:
        """All conditions on spans become one."""
        spans = [c for c in comparisons if c.field.kind == "span"]
        if not spans:
            return list(comparisons), TRUE
        return [c for c in comparisons if c not in spans], _has_span(spans)

    def condition(self, comparison: Comparison) -> Predicate:
        """A checked comparison as SQL."""
        found, value = comparison.field, comparison.value
        if found.kind == "span":
            return _has_span([comparison])
        if found.kind == "issue":
            return _has_assessment(Predicate("a.kind = 'issue' AND a.name = ?", (str(value),)))
        if found.kind in ASSESSMENTS:
            return _assessed(comparison)
        if found == Field("tag", PROMPTS_TAG):
            return Predicate("list_contains(t.prompts, ?)", (str(value),))
        plain = super().condition(comparison)
        if found == Field(METADATA, SOURCE_RUN) and comparison.operator == "=":
            return Predicate(
                f"list_contains(t.run_ids, ?) OR {plain.sql}", (str(value), *plain.parameters)
            )
        return plain


def _quoted_number(key: str, text: str) -> int | float:
    try:
        return number(text) if text.strip() == text else float(text)
    except ValueError as e:
        raise SearchError(f"Invalid value for numeric attribute '{key}': {text!r}") from e


def _check_assessment_value(kind: str, operator: str, constant: Constant) -> None:
    relation = operator in _RELATIONS
    if constant.form not in (("number",) if relation else ("string", "name")):
        message = (
            f"Expected a numeric value for {kind} when using comparator '{operator}'. "
            if relation
            else f"Expected a quoted string value for {kind} (e.g. 'my-value'). "
        )
        raise SearchError(f"{message}Got value {constant.text}")


def _check_issue(key: str, operator: str) -> None:
    if key != "id":
        raise SearchError(f"Invalid issue attribute '{key}'. Supported attributes: id")
    if operator != "=":
        raise SearchError(f"issue.{key} comparator '{operator}' not one of '{{'='}}'")


def _check_prompt(operator: str, value: Value) -> None:
    if operator != "=":
        raise SearchError(
            f"Invalid comparator '{operator}' for prompts filter. "
            "Only '=' is supported with format: prompt = \"name/version\""
        )
    if not isinstance(value, str) or value.count("/") != 1:
        raise SearchError(
            f"Invalid prompts filter value '{value}'. Expected format: prompt = \"name/version\""
        )


def _has_span(comparisons: Sequence[Comparison]) -> Predicate:
    inner = all_of(map(span_condition, comparisons))
    return Predicate(
        f"t.trace_id IN (SELECT s.trace_id FROM trace_spans AS s WHERE {inner.sql})",
        inner.parameters,
    )


def _has_assessment(condition: Predicate) -> Predicate:
    return Predicate(
        f"len(list_filter(t.assessments, lambda a: {condition.sql})) > 0", condition.parameters
    )


def _assessed(comparison: Comparison) -> Predicate:
    """A valid assessment of that name has the value, which is kept as JSON text."""
    found, operator, value = comparison.field, comparison.operator, comparison.value
    named = Predicate("a.kind = ? AND a.name = ? AND a.valid", (found.kind, found.key))
    if operator == "IS NOT NULL":
        return _has_assessment(named)
    if operator == "IS NULL":
        having = _has_assessment(named)
        return Predicate(f"NOT ({having.sql})", having.parameters)
    if operator in _RELATIONS:
        valued = compare(Predicate("a.number"), operator, value)
    elif operator in ("=", "!="):
        either = "a.value IN (?, ?)" if operator == "=" else "a.value NOT IN (?, ?)"
        valued = Predicate(either, (str(value), json.dumps(value)))
    else:
        valued = compare(Predicate("a.value"), operator, value)
    return _has_assessment(all_of([named, valued]))


_TIME = Attribute("t.request_time_ms", "integer")
_DURATION = Attribute("t.execution_duration_ms", "integer", nullable=True)
_END = Attribute("t.request_time_ms + coalesce(t.execution_duration_ms, 0)", "integer")
_BOTH: Final = {
    "request_id": Attribute("t.trace_id"),
    "status": Attribute("t.state"),
    **dict.fromkeys(("timestamp", "timestamp_ms"), _TIME),
    **dict.fromkeys(("execution_time", "execution_time_ms"), _DURATION),
    **dict.fromkeys(("end_time", "end_time_ms"), _END),
    "name": Attribute(f"t.tags['{NAME_TAG}']", nullable=True),
    "run_id": Attribute(f"t.metadata['{SOURCE_RUN}']", nullable=True),
}

TRACES = TraceEntity(
    name="traces",
    table="traces",
    source="traces AS t",
    identifiers={
        **dict.fromkeys(("tag", "tags"), "tag"),
        **dict.fromkeys((METADATA, "metadata"), METADATA),
        **dict.fromkeys(("attribute", "attributes", "trace"), "attribute"),
        **{kind: kind for kind in ("span", "feedback", "expectation", "issue")},
    },
    attributes={
        **_BOTH,
        "client_request_id": Attribute("t.client_request_id", nullable=True),
        "prompt": Attribute("t.prompts"),
        "text": Attribute("t.trace_id"),
    },
    orderable={**_BOTH, "experiment_id": Attribute("CAST(t.experiment_id AS BIGINT)", "integer")},
    maps={"tag": "t.tags", METADATA: "t.metadata"},
    lists=None,
    key_aliases={
        "timestamp": "timestamp_ms",
        "execution_time": "execution_time_ms",
        "end_time": "end_time_ms",
    },
    tie_breakers=(("timestamp_ms", False), ("request_id", True)),
)

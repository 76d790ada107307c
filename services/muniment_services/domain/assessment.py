"""Assessments of traces: feedback, expectations, references to issues; by people, code or models.

An assessment is kept in the form of MLflow's REST API, so that what was logged is what comes back.
A field that was not given is absent.
"""

from __future__ import annotations

import json
import math
from datetime import UTC, datetime
from typing import Any

import msgspec
from msgspec import UNSET, UnsetType

FEEDBACK = "feedback"
EXPECTATION = "expectation"
ISSUE = "issue"

TIME_MS_MIN = -62_135_596_800_000
TIME_MS_MAX = 253_402_300_799_999
"""The years 1 to 9999, which RFC 3339 can write."""


class Source(msgspec.Struct, frozen=True, kw_only=True):
    """Who assessed."""

    source_type: str
    source_id: str | UnsetType = UNSET


class AssessmentError(msgspec.Struct, frozen=True, kw_only=True):
    """Why a judge could not give a value."""

    error_code: str | UnsetType = UNSET
    error_message: str | UnsetType = UNSET
    stack_trace: str | UnsetType = UNSET


class Feedback(msgspec.Struct, frozen=True, kw_only=True):
    """A judgement; `value` is any JSON."""

    value: Any = None
    error: AssessmentError | UnsetType = UNSET


class SerializedValue(msgspec.Struct, frozen=True, kw_only=True):
    """A value as JSON text."""

    serialization_format: str
    value: str


class Expectation(msgspec.Struct, frozen=True, kw_only=True):
    """What should have come out: a plain value, or lists and objects as JSON text."""

    value: Any = UNSET
    serialized_value: SerializedValue | UnsetType = UNSET


class IssueReference(msgspec.Struct, frozen=True, kw_only=True):
    """A known problem that the trace shows."""

    issue_name: str = ""


class Assessment(msgspec.Struct, frozen=True, kw_only=True):
    """One assessment of one trace. Times are RFC 3339 texts, as the REST API has them."""

    assessment_id: str
    assessment_name: str
    trace_id: str
    span_id: str | UnsetType = UNSET
    source: Source
    create_time: str
    last_update_time: str
    feedback: Feedback | UnsetType = UNSET
    expectation: Expectation | UnsetType = UNSET
    issue: IssueReference | UnsetType = UNSET
    rationale: str | UnsetType = UNSET
    metadata: dict[str, str] | UnsetType = UNSET
    overrides: str | UnsetType = UNSET
    valid: bool = True

    @property
    def kind(self) -> str:
        """feedback, expectation or issue."""
        if self.feedback is not UNSET:
            return FEEDBACK
        return EXPECTATION if self.expectation is not UNSET else ISSUE

    @property
    def name(self) -> str:
        """What is assessed."""
        return self.assessment_name

    @property
    def value(self) -> str:
        """The value as JSON text."""
        if self.expectation is not UNSET and self.expectation.serialized_value is not UNSET:
            return self.expectation.serialized_value.value
        return json.dumps(msgspec.to_builtins(self._plain))

    @property
    def number(self) -> float | None:
        """The value when it is a finite number (true and false are none)."""
        value = self._plain
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            return None
        return float(value) if math.isfinite(value) else None

    @property
    def _plain(self) -> Any:
        if self.feedback is not UNSET:
            return self.feedback.value
        if self.expectation is not UNSET:
            return None if self.expectation.value is UNSET else self.expectation.value
        return self.issue


def parsed(text: str) -> Assessment:
    """An assessment out of an event."""
    return msgspec.json.decode(text, type=Assessment)


def dumped(assessment: Assessment) -> str:
    """An assessment for an event."""
    return msgspec.json.encode(assessment).decode()


def rfc3339(at_ms: int) -> str:
    """A time (TIME_MS_MIN to TIME_MS_MAX) as ProtoJSON writes it: no fraction, or three digits."""
    seconds, millis = divmod(at_ms, 1000)
    text = datetime.fromtimestamp(seconds, UTC).replace(tzinfo=None).isoformat()
    return f"{text}.{millis:03d}Z" if millis else f"{text}Z"

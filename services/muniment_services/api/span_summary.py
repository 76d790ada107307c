"""What the spans of one request say about their trace: read once, and kept in the event."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from muniment_projections.traces import conventions
from muniment_projections.traces.otlp import ReadSpan, text_of
from muniment_schemas.events import SpansSummary, SpanUsage
from muniment_services.domain.errors import Invalid
from muniment_services.domain.limits import check_length
from muniment_services.domain.spans import COST_KEY, TOKENS_KEY
from muniment_services.domain.trace_data import (
    SESSION_CHARS_MAX,
    TAG_VALUE_CHARS_MAX,
    check_tag_key,
    counts,
)

PREVIEW_CHARS_MAX = 1000
TRACE_TAG = "mlflow.traceTag."
_SESSIONS = ("session.id", "gen_ai.conversation.id")
_USER = "user.id"
_RESOURCE_KEPT_BACK = ("telemetry.sdk.", "mlflow.")
"""Resource attributes about the SDK itself, and names that are the server's own."""

_NS_PER_MS = 1_000_000


def summarise(spans: Sequence[ReadSpan]) -> SpansSummary:
    """spans: at least one, all of one trace. Raises Invalid for a session id that is too long."""
    roots = [span for span in spans if span.parent_span_id is None]
    root = roots[-1].attributes if roots else {}
    ends = [span.end_ns // _NS_PER_MS for span in spans if span.end_ns]
    session = next(filter(None, (_session(span) for span in spans)), None)
    check_length("Session ID", session or "", SESSION_CHARS_MAX)
    return SpansSummary(
        first_start_ms=min(span.start_ns for span in spans) // _NS_PER_MS,
        last_end_ms=max(ends, default=None),
        root_state=("ERROR" if roots[0].status == "ERROR" else "OK") if roots else None,
        request_preview=preview(root.get(conventions.INPUTS), "user"),
        response_preview=preview(root.get(conventions.OUTPUTS), "assistant"),
        session_id=session,
        user_id=next((text_of(s.attributes[_USER]) for s in spans if _USER in s.attributes), None),
        tags={**_resource_tags(spans), **_trace_tags(roots)},
        usages=tuple(_usage(span) for span in spans),
    )


def preview(text: str | None, role: str) -> str | None:
    """The start of a JSON text; of a conversation, the last message of that role."""
    if not text:
        return None
    messages = _messages(_loads(text))
    shown = (_last(messages, role) if messages else "") or text
    if len(shown) <= PREVIEW_CHARS_MAX:
        return shown
    return shown[: PREVIEW_CHARS_MAX - 3] + "..."


def _loads(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _messages(body: Any) -> list[Mapping[str, Any]]:
    """The messages of a chat completion's or a response's request or answer."""
    while isinstance(body, dict):
        match body:
            case {"messages": [_, *_] as found}:
                return [m for m in found if _is_message(m)]
            case {"choices": [{"message": message}, *_]} if _is_message(message):
                return [message]
            case {"input": [_, *_] as found} | {"output": [_, *_] as found}:
                return [m for m in found if _is_message(m)]
        body = body.get("request")
    return []


def _is_message(item: object) -> bool:
    return isinstance(item, dict) and "role" in item and "content" in item


def _last(messages: Sequence[Mapping[str, Any]], role: str) -> str:
    chosen = next((m for m in reversed(messages) if m["role"] == role), messages[-1])
    content = chosen["content"]
    if isinstance(content, str):
        return content
    for part in content if isinstance(content, list) else ():
        if isinstance(part, str):
            return part
        if isinstance(part, dict) and part.get("type") in ("text", "output_text"):
            return str(part.get("text") or "")
    return ""


def _session(span: ReadSpan) -> str | None:
    return next(
        (text_of(span.attributes[key]) for key in _SESSIONS if key in span.attributes), None
    )


def _resource_tags(spans: Sequence[ReadSpan]) -> dict[str, str]:
    resource = next((span.resource for span in spans if span.resource), {})
    return _valid_tags(
        (key, value if isinstance(value, str) else json.dumps(value, default=str))
        for key, value in resource.items()
        if not key.startswith(_RESOURCE_KEPT_BACK)
    )


def _trace_tags(roots: Sequence[ReadSpan]) -> dict[str, str]:
    return _valid_tags(
        (key.removeprefix(TRACE_TAG), text_of(value) or "")
        for root in roots
        for key, value in root.attributes.items()
        if key.startswith(TRACE_TAG)
    )


def _valid_tags(pairs: Any) -> dict[str, str]:
    """Those that may be tags; spans come from any library, and are not refused for their names."""
    tags = {}
    for key, value in pairs:
        try:
            check_tag_key(key)
        except Invalid:
            continue
        tags[key] = value[:TAG_VALUE_CHARS_MAX]
    return tags


def _usage(span: ReadSpan) -> SpanUsage:
    return SpanUsage(
        span_id=span.span_id,
        parent_span_id=span.parent_span_id,
        tokens=counts(span.attributes.get(conventions.TOKENS), TOKENS_KEY),
        cost=counts(span.attributes.get(conventions.COST), COST_KEY),
    )

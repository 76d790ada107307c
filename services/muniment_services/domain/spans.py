"""What the spans of a trace add up to, however they are split over requests.

A trace's info and its spans arrive apart and in any order. What spans say is kept on its own, and
is laid under the info (`trace.Trace`), so that the order makes no difference.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TypeVar

import msgspec

from muniment_schemas import events as e

SPANS_COUNTED_MAX = 10_000
"""Spans of one trace whose tokens and cost are added up; what further spans report is not."""

TOKEN_KINDS = (
    "input_tokens",
    "output_tokens",
    "total_tokens",
    "cache_read_input_tokens",
    "cache_creation_input_tokens",
    "cache_creation_input_tokens_above_1hr",
)
COST_KINDS = ("input_cost", "output_cost", "total_cost")
_ALWAYS_SHOWN = 3  # the first kinds of each are shown even when no span names them

TOKENS_KEY = "mlflow.trace.tokenUsage"
COST_KEY = "mlflow.trace.cost"
SESSION_KEY = "mlflow.trace.session"
USER_KEY = "mlflow.trace.user"

N = TypeVar("N", int, float)


class Spans(msgspec.Struct, frozen=True, kw_only=True):
    """All spans of a trace so far, as far as the trace itself shows them."""

    first_start_ms: int
    last_end_ms: int | None
    root_state: str | None
    request_preview: str | None
    response_preview: str | None
    session_id: str | None
    user_id: str | None
    usages: dict[str, e.SpanUsage]

    @property
    def metadata(self) -> dict[str, str]:
        """Trace metadata that follow from spans: session, user, tokens, cost."""
        tokens = total({key: (u.parent_span_id, u.tokens) for key, u in self.usages.items()}, 0)
        cost = total({key: (u.parent_span_id, u.cost) for key, u in self.usages.items()}, 0.0)
        found = {
            SESSION_KEY: self.session_id,
            USER_KEY: self.user_id,
            TOKENS_KEY: _dumped(tokens, TOKEN_KINDS),
            COST_KEY: _dumped(cost, COST_KINDS),
        }
        return {key: value for key, value in found.items() if value is not None}


def merged(spans: Spans | None, summary: e.SpansSummary) -> Spans:
    """The spans with those of one more request. A span that was sent again replaces itself."""
    usages = dict(spans.usages) if spans is not None else {}
    for usage in summary.usages:
        if usage.span_id in usages or len(usages) < SPANS_COUNTED_MAX:
            usages[usage.span_id] = usage
    if spans is None:
        return Spans(
            first_start_ms=summary.first_start_ms,
            last_end_ms=summary.last_end_ms,
            root_state=summary.root_state,
            request_preview=summary.request_preview,
            response_preview=summary.response_preview,
            session_id=summary.session_id,
            user_id=summary.user_id,
            usages=usages,
        )
    ends = [end for end in (spans.last_end_ms, summary.last_end_ms) if end is not None]
    return Spans(
        first_start_ms=min(spans.first_start_ms, summary.first_start_ms),
        last_end_ms=max(ends, default=None),
        root_state=spans.root_state or summary.root_state,
        request_preview=_first(spans.request_preview, summary.request_preview),
        response_preview=_first(spans.response_preview, summary.response_preview),
        session_id=_first(spans.session_id, summary.session_id),
        user_id=_first(spans.user_id, summary.user_id),
        usages=usages,
    )


def total(
    nodes: Mapping[str, tuple[str | None, Mapping[str, N] | None]], zero: N
) -> dict[str, N] | None:
    """The sum over a span tree, None when no span reports anything.

    nodes: span id to (parent's id, what the span reports). A span below one that reports is not
    added: libraries set a parent's usage to the sum of its children's.
    """
    totals: dict[str, N] = {}
    found = False
    for parent, reported in nodes.values():
        if reported is None or _reported_above(nodes, parent):
            continue
        found = True
        for kind, amount in reported.items():
            totals[kind] = totals.get(kind, zero) + amount
    return totals if found else None


def _reported_above(
    nodes: Mapping[str, tuple[str | None, Mapping[str, N] | None]], parent: str | None
) -> bool:
    # Bounded, since spans are a client's: a chain that closes into a ring must not hang the fold.
    for _ in range(len(nodes)):
        if parent is None or parent not in nodes:
            return False
        parent, reported = nodes[parent]
        if reported is not None:
            return True
    return False


def _dumped(totals: Mapping[str, int | float] | None, kinds: tuple[str, ...]) -> str | None:
    if totals is None:
        return None
    shown = {
        kind: totals.get(kind, 0)
        for index, kind in enumerate(kinds)
        if index < _ALWAYS_SHOWN or kind in totals
    }
    return json.dumps(shown)


def _first(one: str | None, other: str | None) -> str | None:
    return one if one is not None else other

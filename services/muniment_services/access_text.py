"""Grants as people write them, in a file or on a command line: `group:NAME`, `experiment:team-*`.

Raises ValueError with words for whoever wrote it; whether the grant makes sense is the domain's.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, date, datetime, time

from muniment_schemas.access_events import ANYTHING, RESOURCE_KINDS, ClaimPattern

_FROM_NOW = re.compile(r"(\d{1,9})([mhdw])")
_UNIT_MS: Mapping[str, int] = {
    "m": 60_000,
    "h": 3_600_000,
    "d": 86_400_000,
    "w": 604_800_000,
}


def subject_of(text: str) -> tuple[str, str]:
    """`principal:ID`, `group:NAME`, `claims` or `everyone` as kind and subject."""
    kind, _, subject = text.partition(":")
    if kind in ("principal", "group") and subject:
        return kind, subject
    if text in ("claims", "everyone"):
        return text, ""
    raise ValueError(f"{text!r} is nobody; say principal:ID, group:NAME, claims or everyone")


def resource_of(text: str) -> tuple[str, str]:
    """`experiment:NAME`, `model:id:ID`, `server` or `*` as kind and pattern."""
    if text in ("server", ANYTHING):
        return text, ANYTHING
    kind, _, pattern = text.partition(":")
    if kind in RESOURCE_KINDS and kind != "server" and pattern:
        return kind, pattern
    raise ValueError(
        f"{text!r} is no resource; say experiment:NAME, model:NAME or prompt:NAME (where * in NAME "
        "stands for any characters, and id:ID is one thing by its id), server, or *"
    )


def claim_of(text: str) -> ClaimPattern:
    """`NAME=PATTERN`."""
    name, equals, pattern = text.partition("=")
    if not (name and equals and pattern):
        raise ValueError(f"{text!r} is no claim; say NAME=PATTERN, as repository=org/app")
    return ClaimPattern(name=name, pattern=pattern)


def time_of(text: str | date, now_ms: int | None = None) -> int:
    """A time in UTC (a date is its beginning), or with now_ms also `30d` from now, in ms."""
    if isinstance(text, str):
        from_now = _FROM_NOW.fullmatch(text)
        if from_now is not None and now_ms is not None:
            return now_ms + int(from_now[1]) * _UNIT_MS[from_now[2]]
        try:
            text = datetime.fromisoformat(text)
        except ValueError:
            example = "2027-01-31" if now_ms is None else "2027-01-31 or 30d"
            raise ValueError(f"{text!r} is no time; say for example {example}") from None
    if not isinstance(text, datetime):
        text = datetime.combine(text, time())
    if text.tzinfo is None:
        text = text.replace(tzinfo=UTC)
    return int(text.timestamp() * 1000)

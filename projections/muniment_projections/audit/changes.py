"""What an event changed, as two small documents: the fields that differ, before and after.

They are made of the aggregate's states around the event, never of what the event claims. States
share what did not change, so comparing them touches little more than the difference.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any, Final

import msgspec

CHANGE_BYTES_MAX = 64 * 1024
"""Of a longer document the trail keeps length and SHA-256; the log has the event."""

UNSHOWN = frozenset({"version", "updated_at_ms"})
"""Fields of a state that change with every event and say nothing."""

_NOTHING: Final = object()


def changed(
    before: msgspec.Struct | None, after: msgspec.Struct | None
) -> tuple[str | None, str | None]:
    """(before, after) as JSON objects; None for a side on which there is nothing."""
    if before is after:
        return None, None
    old, new = _difference(before, after, UNSHOWN)
    return _document(old), _document(new)


def _difference(old: Any, new: Any, skipped: frozenset[str] = frozenset()) -> tuple[Any, Any]:
    left, right = _fields(old), _fields(new)
    if left is None or right is None or not (left or right):
        return _shown(old), _shown(new)
    was: dict[str, Any] = {}
    now: dict[str, Any] = {}
    for name in (*left, *(name for name in right if name not in left)):
        one, other = left.get(name, _NOTHING), right.get(name, _NOTHING)
        if name in skipped or one is other or _equal(one, other):
            continue
        if one is not _NOTHING and other is not _NOTHING:
            one, other = _difference(one, other)
        if one is not _NOTHING:
            was[str(name)] = _shown(one)
        if other is not _NOTHING:
            now[str(name)] = _shown(other)
    return was, now


def _equal(one: Any, other: Any) -> bool:
    return one is not _NOTHING and other is not _NOTHING and bool(one == other)


def _fields(value: Any) -> Mapping[Any, Any] | None:
    if value is None or value is _NOTHING:
        return {}
    if isinstance(value, msgspec.Struct):
        return {name: getattr(value, name) for name in value.__struct_fields__}
    return value if isinstance(value, Mapping) else None


def _shown(value: Any) -> Any:
    # Bytes are secrets' digests and sealed names: nothing to read, and nothing to spread.
    if isinstance(value, bytes):
        return f"{len(value)} bytes"
    if isinstance(value, msgspec.Struct):
        return {name: _shown(getattr(value, name)) for name in value.__struct_fields__}
    if isinstance(value, Mapping):
        return {str(key): _shown(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_shown(item) for item in value]
    if isinstance(value, frozenset | set):
        return sorted((_shown(item) for item in value), key=repr)
    return value


def _document(value: Any) -> str | None:
    if not value:
        return None
    text = msgspec.json.encode(value)
    if len(text) <= CHANGE_BYTES_MAX:
        return text.decode()
    cut = {"truncated": True, "bytes": len(text), "sha256": hashlib.sha256(text).hexdigest()}
    return msgspec.json.encode(cut).decode()

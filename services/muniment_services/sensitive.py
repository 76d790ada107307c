"""Sensitive values of params and tags: hashed in the command, before it becomes an event.

The log keeps what it gets for ever and nothing can be taken out of it, so what should never have
been logged must not get there. A value stands in events, answers and projections alike as what
`Redaction.hashed` makes of it: the same value is the same hash, so that a param that changed shows.
What is hashed already, because a client read it and logs it again, stays as it is.

MLflow's own keys are none of this: what they hold is part of how it works.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache, lru_cache
from typing import Any, Final, TypeVar

import msgspec

from muniment_services.domain.commands import Command
from muniment_services.redaction import PREFIX, Redaction

KEYS_KNOWN_MAX = 4096
"""Keys of which it is remembered whether they are sensitive: those that jobs use all day."""

MLFLOWS_OWN: Final = ("mlflow.", "_mlflow")
"""What keys that belong to MLflow begin with."""

NAMED: Final = frozenset({"metadata", "params", "tags"})
"""Fields of commands that hold values by key: as pairs, or as a mapping."""

NESTED: Final = frozenset({"assessment", "assessments", "datasets"})
"""Fields of commands that hold things which have such fields."""

KEY, VALUE = "key", "value"
"""Fields of a command that sets one tag."""

S = TypeVar("S", bound=msgspec.Struct)

_HASHED: Final = re.compile(re.escape(PREFIX) + "[0-9a-f]{64}")


class Edge:
    """Replaces sensitive values in commands. redaction: which, and by what."""

    def __init__(self, redaction: Redaction) -> None:
        self._redaction = redaction
        self._hides = lru_cache(KEYS_KNOWN_MAX)(self._is_hidden)

    def __call__(self, command: Command, request: bytes) -> tuple[Command, bytes]:
        """A command without sensitive values, and the request that it came by; as they are if none.

        The request is what an Idempotency-Key is remembered with, as a digest: of one that has
        secrets in it that is made of a keyed hash, or the secrets could be guessed by it.
        """
        cleaned = self._cleaned(command)
        if cleaned is command:
            return command, request
        return cleaned, self._redaction.hashed(request.decode("latin-1")).encode()

    def _cleaned(self, struct: S) -> S:
        changes: dict[str, Any] = {}
        for name in _holding(type(struct)):
            held = getattr(struct, name)
            if not held:  # Nothing is said, or nothing is in it.
                continue
            cleaned = self._one(struct, held) if name == VALUE else self._any(held)
            if cleaned != held:
                changes[name] = cleaned
        return msgspec.structs.replace(struct, **changes) if changes else struct

    def _one(self, struct: msgspec.Struct, value: Any) -> Any:
        return self._shown(str(getattr(struct, KEY)), value)

    def _any(self, held: Any) -> Any:
        if isinstance(held, msgspec.Struct):
            return self._cleaned(held)
        if isinstance(held, Mapping):
            return {key: self._shown(key, value) for key, value in held.items()}
        if isinstance(held[0], msgspec.Struct):
            return tuple(self._cleaned(item) for item in held)
        if not any(self._hides(key) for key, _ in held):
            return held
        return tuple((key, self._shown(key, value)) for key, value in held)

    def _shown(self, key: str, value: Any) -> Any:
        if not isinstance(value, str) or not self._hides(key) or _HASHED.fullmatch(value):
            return value
        return self._redaction.hashed(value)

    def _is_hidden(self, key: str) -> bool:
        return not key.startswith(MLFLOWS_OWN) and self._redaction.is_sensitive(key)


@cache
def _holding(kind: type[msgspec.Struct]) -> tuple[str, ...]:
    fields = frozenset(kind.__struct_fields__)
    own = (VALUE,) if {KEY, VALUE} <= fields else ()
    return (*own, *sorted(fields & NAMED), *sorted(fields & NESTED))

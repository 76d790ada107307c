"""Patterns of names, as grants and promotion policies have them: `*` stands for any characters."""

from __future__ import annotations

from muniment_schemas.access_events import ANYTHING


def matches(pattern: str, text: str) -> bool:
    """Whether a text is one that the pattern stands for. Time: length of both, multiplied at most.

    Also whether a pattern covers all that another one does: a `*` in `text` can then only be
    matched by one of `pattern`'s.
    """
    first, *rest = pattern.split(ANYTHING)
    if not rest:
        return first == text
    *middle, last = rest
    if len(text) < len(first) + len(last):
        return False
    if not (text.startswith(first) and text.endswith(last)):
        return False
    place, end = len(first), len(text) - len(last)
    for part in middle:
        found = text.find(part, place, end)
        if found < 0:
            return False
        place = found + len(part)
    return True

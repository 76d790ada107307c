"""How many examples a property is tried on: all, or a tenth when `test --fast` runs."""

from __future__ import annotations

from hypothesis import settings

PERCENT_FAST = 10


def examples(count: int) -> int:
    """So many of them as the profile of this run says, which has 100 for all."""
    return max(1, count * settings().max_examples // 100)

"""Which release of muniment this is."""

from __future__ import annotations

from functools import cache
from importlib.metadata import PackageNotFoundError, version

UNINSTALLED = "0+checkout"
"""What a checkout that was never installed calls itself."""


@cache
def release() -> str:
    """The installed release. Reading it takes 10 ms, and every request of metrics would."""
    try:
        return version("muniment")
    except PackageNotFoundError:
        return UNINSTALLED

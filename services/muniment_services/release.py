"""Which release of muniment this is."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

UNINSTALLED = "0+checkout"
"""What a checkout that was never installed calls itself."""


def release() -> str:
    """The installed release."""
    try:
        return version("muniment")
    except PackageNotFoundError:
        return UNINSTALLED

"""Tags of things whose events carry no expected version: removing one is a race that one wins."""

from __future__ import annotations

from collections.abc import Mapping

from muniment_services.domain.errors import Void


def without_tag(tags: Mapping[str, str], key: str) -> dict[str, str]:
    """The tags less one. Raises Void when it is not there: another removal came first."""
    if key not in tags:
        raise Void(f"there is no tag {key!r}")
    return {name: value for name, value in tags.items() if name != key}

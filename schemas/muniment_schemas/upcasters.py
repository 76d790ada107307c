"""Old events to the next version of their type: pure functions from one decoded value to the next.

A version that only adds optional fields needs none, since Avro's schema resolution fills in the
defaults. A change of meaning is a new event type; its upcaster says how the old one reads today.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

Upcaster = Callable[[dict[str, Any]], dict[str, Any]]

UPCASTERS: Mapping[tuple[str, int], Upcaster] = MappingProxyType({})
"""(event type, version) to the function that makes its value one of the next version."""

"""Names and forms of tiles, as C2SP tlog-tiles has them.

A tile has up to 256 consecutive hashes of one level; level 0 are leaves, above it each hash is the
root of a full tile below. Source: C2SP tlog-tiles (2026-07), "Merkle Tree" and "Log entries".
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

TILE_BITS = 8
TILE_WIDTH = 1 << TILE_BITS
INDEX_MAX = 2**55
"""No tree of 2**63 leaves has so many tiles."""

_NAME = re.compile(
    r"(\d|[1-5]\d|6[0-3]|entries)/((?:x\d{3}/)*\d{3})(?:\.p/([1-9]\d{0,2}))?", re.ASCII
)


@dataclass(frozen=True, slots=True)
class Tile:
    """One tile, or one bundle of entries (level None). width: 256 unless it is partial."""

    level: int | None
    index: int
    width: int = TILE_WIDTH

    @property
    def path(self) -> str:
        """What follows `tile/` in its address."""
        level = "entries" if self.level is None else str(self.level)
        partial = "" if self.width == TILE_WIDTH else f".p/{self.width}"
        return f"{level}/{_elements(self.index)}{partial}"

    @property
    def begin(self) -> int:
        """Index of its first hash in its level."""
        return self.index * TILE_WIDTH


def _elements(index: int) -> str:
    groups = [f"{index % 1000:03d}"]
    while index := index // 1000:
        groups.append(f"x{index % 1000:03d}")
    return "/".join(reversed(groups))


def parse_path(path: str) -> Tile | None:
    """The tile of an address; None when it is not exactly how a tile is named."""
    found = _NAME.fullmatch(path)
    if found is None:
        return None
    level, elements, width = found.groups()
    tile = Tile(
        level=None if level == "entries" else int(level),
        index=int(elements.replace("x", "").replace("/", "")),
        width=int(width or TILE_WIDTH),
    )
    return tile if tile.path == path and tile.index < INDEX_MAX else None


def tiles_of(size: int) -> Iterable[Tile]:
    """All tiles of a tree, partial ones with the width that they have at this size."""
    level, hashes = 0, size
    while hashes:
        for index in range(hashes // TILE_WIDTH):
            yield Tile(level, index)
        if rest := hashes % TILE_WIDTH:
            yield Tile(level, hashes // TILE_WIDTH, rest)
        level, hashes = level + 1, hashes // TILE_WIDTH


def bundle(entries: Iterable[bytes]) -> bytes:
    """An entry bundle: each entry behind its length as a big-endian uint16."""
    return b"".join(len(entry).to_bytes(2, "big") + entry for entry in entries)


def entries_of(packed: bytes) -> Sequence[bytes]:
    """The entries of a bundle. Raises ValueError when it is not one."""
    entries = []
    at = 0
    while at < len(packed):
        end = at + 2 + int.from_bytes(packed[at : at + 2], "big")
        if end > len(packed):
            raise ValueError("the entry bundle ends within an entry")
        entries.append(packed[at + 2 : end])
        at = end
    return entries

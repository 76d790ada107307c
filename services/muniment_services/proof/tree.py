"""One topic-partition's tree: what is appended, kept in files, and asked for tiles and proofs.

A level of hashes is one file, `<folder>/<level>`, whose n-th 32 bytes are the n-th hash: level 0
are the leaves, above it each hash is the root of a tile below (`tiles.py`). Only whole tiles are
written; what is beyond the last one is in memory and comes from the log again.

The files are a cache of the log. What always holds: a file never has a hash that is not in the log
durably; after a crash anywhere `open` cuts off what is not a whole tile, makes upper levels from
lower ones, and the tree goes on behind the last whole tile of leaves. Damage inside a tile that
`open` does not see shows as a root that is not the signed one: `remove` it, and read the log again.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from muniment_services.proof.merkle import HASH_BYTES, full_root, root
from muniment_services.proof.tiles import TILE_BITS, TILE_WIDTH, Tile

TILE_BYTES = TILE_WIDTH * HASH_BYTES


class Tree:
    """A growing tree, for one thread."""

    def __init__(self, folder: Path) -> None:
        """folder: of this tree alone; made if it is not there. Raises OSError."""
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._files: list[int] = []
        self._written: list[int] = []
        self._tails: list[list[bytes]] = []
        self._open_level(None)
        while whole := self._written[-1] // TILE_WIDTH:
            self._open_level(whole)
        self.size = self._written[0]
        """Leaves that are in the tree."""

    def _open_level(self, hashes: int | None) -> None:
        """Open the next level.

        hashes: how many it has by the level below; None: as many as in whole tiles of its file.
        """
        level = len(self._files)
        file = os.open(self._folder / str(level), os.O_RDWR | os.O_CREAT, 0o644)
        whole = os.fstat(file).st_size // TILE_BYTES * TILE_WIDTH
        if hashes is not None:
            whole = min(whole, hashes // TILE_WIDTH * TILE_WIDTH)
        os.ftruncate(file, whole * HASH_BYTES)
        self._files.append(file)
        self._written.append(whole)
        self._tails.append([])
        missing = range(whole, hashes or 0)
        self._extend(level, [full_root(self._read(Tile(level - 1, index))) for index in missing])

    def close(self) -> None:
        """Release the files. Idempotent."""
        for file in self._files:
            os.close(file)
        self._files.clear()

    def append(self, leaves: Sequence[bytes]) -> None:
        """Add leaves by their hashes, in order. After an OSError the tree must be opened anew."""
        level, hashes = 0, list(leaves)
        while hashes:
            if level == len(self._files):
                self._open_level(0)
            hashes = self._extend(level, hashes)
            level += 1
        self.size += len(leaves)

    def _extend(self, level: int, hashes: list[bytes]) -> list[bytes]:
        """Add hashes to one level; returns the roots of the tiles that have become whole."""
        tail = self._tails[level] + hashes
        whole = len(tail) // TILE_WIDTH * TILE_WIDTH
        if whole:
            written = b"".join(tail[:whole])
            done = os.pwrite(self._files[level], written, self._written[level] * HASH_BYTES)
            if done != len(written):
                raise OSError(f"{self._folder}: only {done} of {len(written)} bytes were written")
            self._written[level] += whole
        self._tails[level] = tail[whole:]
        return [full_root(tail[at : at + TILE_WIDTH]) for at in range(0, whole, TILE_WIDTH)]

    def tile(self, tile: Tile) -> bytes:
        """A tile's bytes, 32 for each hash. Raises LookupError when the tree does not have it all.

        Raises OSError.
        """
        return b"".join(self._read(tile))

    def _read(self, tile: Tile) -> list[bytes]:
        assert tile.level is not None, "entries are in the log, not in the tree"
        if tile.level >= len(self._files):
            raise LookupError(f"there is no tile {tile.path} yet")
        tail = self._tails[tile.level]
        begin = tile.begin - self._written[tile.level]
        if begin >= 0:
            hashes = tail[begin : begin + tile.width]
        else:
            packed = os.pread(
                self._files[tile.level], tile.width * HASH_BYTES, tile.begin * HASH_BYTES
            )
            hashes = [packed[at : at + HASH_BYTES] for at in range(0, len(packed), HASH_BYTES)]
        if len(hashes) < tile.width:
            raise LookupError(f"there is no tile {tile.path} yet")
        return hashes

    def node(self, level: int, index: int) -> bytes:
        """The hash of the full subtree of 2**level leaves that is the index-th of its kind."""
        upper, lower = divmod(level, TILE_BITS)
        width = 1 << lower
        first = index * width
        packed = self._read(Tile(upper, first // TILE_WIDTH, first % TILE_WIDTH + width))
        return full_root(packed[-width:])

    def root(self, size: int) -> bytes:
        """The root over the first `size` leaves, which must be there."""
        assert size <= self.size, f"{size} leaves are asked of {self.size}"
        return root(size, self.node)


def remove(folder: Path) -> None:
    """Remove a tree's files; it is then read from the log anew."""
    shutil.rmtree(folder, ignore_errors=True)

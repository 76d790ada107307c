"""Names of tiles, bundles, and the tree in files: what a crash leaves, and what damage shows."""

from __future__ import annotations

import os
from hashlib import sha256
from pathlib import Path

import pytest

from muniment_services.proof import merkle
from muniment_services.proof.tiles import Tile, bundle, entries_of, parse_path, tiles_of
from muniment_services.proof.tree import Tree, remove

LEAVES = [sha256(str(number).encode()).digest() for number in range(70_000)]


def naive_root(hashes: list[bytes]) -> bytes:
    if len(hashes) == 1:
        return hashes[0]
    middle = merkle.split(len(hashes))
    return merkle.node_hash(naive_root(hashes[:middle]), naive_root(hashes[middle:]))


@pytest.mark.parametrize(
    ("tile", "path"),
    [
        (Tile(0, 0), "0/000"),
        (Tile(1, 1_234_067), "1/x001/x234/067"),
        (Tile(0, 273, 112), "0/273.p/112"),
        (Tile(None, 1_000, 1), "entries/x001/000.p/1"),
        (Tile(63, 999), "63/999"),
    ],
)
def test_a_tile_has_one_name(tile: Tile, path: str) -> None:
    assert tile.path == path
    assert parse_path(path) == tile


@pytest.mark.parametrize(
    "path",
    [
        "", "0", "0/", "0/0", "0/00", "0/0000", "00/000", "01/000", "-1/000", "x/000", "0/x000/000",
        "0/001/002", "0/x001", "0/000.p/0", "0/000.p/256", "0/000.p/01", "0/000.p/", "0/000.p",
        "64/000", "100/000", "entries/x", "0/000/", "0/\u0660\u0660\u0660", "../0/000", "0/000\n",
        "0/" + "x999/" * 40 + "999",
    ],
)  # fmt: skip
def test_what_is_no_tile_has_no_name(path: str) -> None:
    assert parse_path(path) is None


def test_a_tree_of_70_000_has_the_tiles_that_the_specification_counts() -> None:
    tiles = list(tiles_of(70_000))
    widths = [(tile.level, tile.width) for tile in tiles]
    assert widths.count((0, 256)) == 273
    assert widths.count((1, 256)) == 1
    assert [tile for tile in tiles if tile.width < 256] == [
        Tile(0, 273, 112), Tile(1, 1, 17), Tile(2, 0, 1),
    ]  # fmt: skip
    assert list(tiles_of(256)) == [Tile(0, 0), Tile(1, 0, 1)]


def test_a_bundle_holds_its_entries() -> None:
    entries = [b"", b"a", b"b" * 65_535]
    assert bundle(entries)[:5] == b"\x00\x00\x00\x01a"
    assert list(entries_of(bundle(entries))) == entries
    with pytest.raises(ValueError, match="within"):
        entries_of(bundle(entries)[:-1])


def test_tiles_are_of_the_hashes_that_the_specification_says(tmp_path: Path) -> None:
    tree = Tree(tmp_path)
    tree.append(LEAVES)
    assert tree.tile(Tile(0, 273, 112)) == b"".join(LEAVES[273 * 256 :])
    seventeenth = naive_root(LEAVES[16 * 256 : 17 * 256])
    assert tree.tile(Tile(1, 0))[16 * 32 : 17 * 32] == seventeenth
    assert tree.tile(Tile(2, 0, 1)) == naive_root(LEAVES[:65_536])
    assert tree.tile(Tile(1, 1, 17))[-32:] == naive_root(LEAVES[272 * 256 : 273 * 256])
    assert tree.root(70_000) == naive_root(LEAVES)
    for absent in (Tile(0, 273, 113), Tile(0, 274), Tile(1, 1), Tile(2, 0, 2), Tile(3, 0, 1)):
        with pytest.raises(LookupError):
            tree.tile(absent)


@pytest.mark.parametrize("batch", [1, 7, 256, 1_000, 70_000])
def test_batches_make_no_difference(tmp_path: Path, batch: int) -> None:
    count = min(70_000, batch * 700)
    tree = Tree(tmp_path)
    for begin in range(0, count, batch):
        tree.append(LEAVES[begin : min(begin + batch, count)])
    for size in (1, 255, 256, 257, count - 1, count):
        if size <= count:
            assert tree.root(size) == naive_root(LEAVES[:size])


def test_a_tree_goes_on_behind_its_last_whole_tile(tmp_path: Path) -> None:
    tree = Tree(tmp_path)
    tree.append(LEAVES[:1_000])
    tree.close()
    again = Tree(tmp_path)
    assert again.size == 768
    again.append(LEAVES[768:70_000])
    assert again.root(70_000) == naive_root(LEAVES)


@pytest.mark.parametrize("level", [0, 1])
@pytest.mark.parametrize("cut", [0, 1, 31, 8_191, 8_192, 8_193, 100_000])
def test_what_a_crash_cuts_off_is_made_again(tmp_path: Path, level: int, cut: int) -> None:
    tree = Tree(tmp_path)
    tree.append(LEAVES)
    tree.close()
    path = tmp_path / str(level)
    os.truncate(path, min(cut, path.stat().st_size))
    again = Tree(tmp_path)
    whole = 273 * 256 if level else cut // 8_192 * 256
    assert again.size == whole
    again.append(LEAVES[whole:])
    assert again.root(70_000) == naive_root(LEAVES)
    assert again.tile(Tile(1, 0))[:32] == naive_root(LEAVES[:256])


def test_upper_levels_never_reach_beyond_the_leaves(tmp_path: Path) -> None:
    tree = Tree(tmp_path)
    tree.append(LEAVES)
    tree.close()
    os.truncate(tmp_path / "0", 8_192)
    again = Tree(tmp_path)
    others = [sha256(leaf).digest() for leaf in LEAVES]
    again.append(others[256:])
    assert again.root(70_000) == naive_root([*LEAVES[:256], *others[256:]])


def test_damage_shows_as_another_root_and_ends_with_the_files(tmp_path: Path) -> None:
    tree = Tree(tmp_path / "tree")
    tree.append(LEAVES[:512])
    tree.close()
    with (tmp_path / "tree" / "0").open("r+b") as file:
        file.write(b"\x00")
    damaged = Tree(tmp_path / "tree")
    assert damaged.root(512) != naive_root(LEAVES[:512])
    damaged.close()
    remove(tmp_path / "tree")
    assert Tree(tmp_path / "tree").size == 0

"""A snapshot and the rest of the log give what the whole log gives, wherever the snapshot was made.

And a place where making or restoring a snapshot breaks off has nothing in it that looks whole.
"""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import obstore
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from obstore.store import LocalStore
from structlog.testing import capture_logs

from harness.examples import examples
from harness.world import TestWorld
from muniment_projections.store import LAYOUT_VERSION, Store
from muniment_schemas.ids import Offset
from muniment_services import bootstrap, rebuild, snapshot
from muniment_services.artifacts.base import StorageFull
from muniment_services.config import Settings
from muniment_services.projection_files import PROJECTIONS_FILE, newest
from muniment_services.snapshot import Manifest, Shelf, SnapshotDamaged, SnapshotMissing
from muniment_services.snapshot_restore import restore, restore_newest_if_empty
from muniment_services.snapshotter import Maker
from muniment_services.startup import Startup
from property.test_rebuild import (
    MEMORY,
    Killed,
    check_state,
    contents,
    ends_of,
    folder,
    histories,
    log_of,
    rebuilt,
)

LOG_ID = "0123456789abcdef0123456789abcdef"
SMALL_PART_BYTES = 100_000
"""So that a file of some megabytes has many parts."""


@pytest.fixture(autouse=True, scope="module")
def small_parts() -> Any:
    """Parts that even the smallest file has several of."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(snapshot, "PART_BYTES", SMALL_PART_BYTES)
        yield


def maker_in(at: Path, now_ms: int = 1) -> Maker:
    """Makes snapshots of projections in a folder, keeping them beside it."""
    return Maker(
        folder=at,
        open_shelf=lambda: shelf_at(at),
        version="1",
        now_ms=lambda: now_ms,
        random=lambda count: bytes(count),
    )


def shelf_at(at: Path) -> Shelf:
    """The snapshots beside the projections."""
    place = at / "snapshots"
    place.mkdir(exist_ok=True)
    return Shelf(LocalStore(place), str(place), place)


def unheard(_: Manifest) -> Callable[[int], None]:
    """Nobody wants to know how far it is."""
    return lambda _: None


def opened(path: Path) -> Store:
    """A store on a file."""
    return Store(path, bootstrap.projections(), MEMORY)


def snapshot_of(store: Store, at: Path, now_ms: int = 1) -> Manifest:
    """A snapshot of a store as it is now."""
    maker = maker_in(at, now_ms)
    return maker.store(maker.copy(store), 3, unheard)


@settings(max_examples=examples(25))
@given(histories(), st.data())
def test_a_snapshot_and_the_tail_are_the_whole_log(world: TestWorld, data: st.DataObject) -> None:
    log = log_of(world.records)
    ends = ends_of(log)
    cut = {at: Offset(data.draw(st.integers(0, end))) for at, end in ends.items() if end}
    later = {at: Offset(data.draw(st.integers(cut[at], ends[at]))) for at in cut}
    expected = rebuilt(world)
    with folder() as one, folder() as other:
        store = opened(one / PROJECTIONS_FILE)
        store.belong_to(LOG_ID)
        rest = rebuild.CatchUp(log, world.codec, store)
        rest.run(cut)
        manifest = snapshot_of(store, one)
        assert manifest.events == sum(cut.values())
        rest.run(later)  # The server goes on; the snapshot does not change.
        store.close()
        (found,) = shelf_at(one).manifests()
        assert found == manifest
        restore(other, shelf_at(one), found, lambda _: None)
        replica = opened(other / PROJECTIONS_FILE)
        assert replica.log_id == LOG_ID
        assert replica.checkpoints == {(a.topic, a.partition): o for a, o in cut.items() if o}
        rebuild.catch_up(log, world.codec, replica, ends)
        assert contents(replica) == contents(expected)
        check_state(replica, world.state)
        replica.close()
    expected.close()


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with projections and one snapshot of them."""
    at = tmp_path_factory.mktemp("whole")
    store = opened(at / PROJECTIONS_FILE)
    store.belong_to(LOG_ID)
    store.write([], {("runs", 0): 7})
    manifest = snapshot_of(store, at, now_ms=1_000)
    assert len(manifest.parts) > 3
    store.close()
    return at


class DyingStore:
    """An object store that does so many more things and then dies, or refuses."""

    def __init__(self, left: int, error: BaseException, after: bool) -> None:
        self.left = left
        self.error = error
        self.after = after

    def around(self, call: Callable[..., Any]) -> Callable[..., Any]:
        """The call, counted."""

        def counted(*arguments: Any, **options: Any) -> Any:
            self.left -= 1
            if self.left < 0 or (self.left == 0 and not self.after):
                raise self.error
            result = call(*arguments, **options)
            if self.left == 0:
                raise self.error
            return result

        return counted


def make(whole: Path, shelf: Shelf, dying: DyingStore) -> None:
    """A snapshot of what is in a folder, in an object store that dies on the way."""
    store = opened(whole / PROJECTIONS_FILE)
    maker = Maker(whole, lambda: shelf, "1", lambda: 1, bytes)
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(obstore, "put", dying.around(obstore.put))
            maker.store(maker.copy(store), 3, unheard)
    finally:
        store.close()
        assert not maker.copy_path.exists()


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize(
    ("error", "raised"),
    [(Killed(), Killed), (OSError(errno.ENOSPC, "No space left on device"), StorageFull)],
)
def test_making_that_fails_at_any_step_leaves_no_snapshot(
    whole: Path, tmp_path: Path, error: BaseException, raised: type[BaseException], after: bool
) -> None:
    (like,) = shelf_at(whole).manifests()
    shelf = shelf_at(tmp_path)
    for step in range(1, len(like.parts) + 2):  # the manifest is the last one
        with pytest.raises(raised):
            make(whole, shelf, DyingStore(step, error, after))
        assert shelf.manifests() == []
        assert not [path for path in (tmp_path / "snapshots").rglob("*") if path.is_file()]
    make(whole, shelf, DyingStore(1_000, error, after))
    assert len(shelf.manifests()) == 1


def test_a_copy_that_does_not_fit_is_refused_before_it_is_made(
    whole: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = opened(whole / PROJECTIONS_FILE)
    monkeypatch.setattr(os, "statvfs", lambda _: Statvfs(f_bavail=10, f_frsize=4096))
    with pytest.raises(
        snapshot.NoRoom, match=r"room for 40,960 bytes and needs \d.*free some space"
    ):
        maker_in(whole).copy(store)
    store.close()


class Statvfs:
    """As much of a file system as is asked for."""

    def __init__(self, f_bavail: int, f_frsize: int) -> None:
        self.f_bavail = f_bavail
        self.f_frsize = f_frsize


def parts_of(shelf: Path) -> list[Path]:
    """The parts of the one snapshot there."""
    return sorted(shelf.glob("*/part-*"))


def copied(whole: Path, tmp_path: Path) -> Path:
    """A folder with the same snapshot, and no projections."""
    shutil.copytree(whole / "snapshots", tmp_path / "snapshots")
    return tmp_path


@pytest.mark.parametrize("damage", ["cut", "gone", "changed", "emptied", "swapped"])
def test_a_damaged_snapshot_is_found_out_and_the_old_projections_stay(
    whole: Path, tmp_path: Path, damage: str
) -> None:
    at = copied(whole, tmp_path)
    opened(at / PROJECTIONS_FILE).close()
    before = (at / PROJECTIONS_FILE).read_bytes()
    one, other = parts_of(at / "snapshots")[1:3]
    match damage:
        case "cut":
            one.write_bytes(one.read_bytes()[:-1])
        case "gone":
            one.unlink()
        case "changed":
            content = bytearray(one.read_bytes())
            content[len(content) // 2] ^= 1
            one.write_bytes(content)
        case "emptied":
            one.write_bytes(b"")
        case "swapped":
            one.write_bytes(other.read_bytes())
    (found,) = shelf_at(at).manifests()
    with pytest.raises(SnapshotDamaged, match="part-00001"):
        restore(at, shelf_at(at), found, lambda _: None)
    assert [path.name for path in at.glob("projections*")] == [PROJECTIONS_FILE]
    assert (at / PROJECTIONS_FILE).read_bytes() == before


@pytest.mark.parametrize("content", [b"", b"{", b'{"format": 1}', b"null"])
def test_a_manifest_that_is_none_is_no_snapshot(
    whole: Path, tmp_path: Path, content: bytes
) -> None:
    at = copied(whole, tmp_path)
    (manifest,) = (at / "snapshots").glob("*/manifest.json")
    manifest.write_bytes(content)
    assert shelf_at(at).manifests() == []
    with pytest.raises(SnapshotMissing):
        shelf_at(at).manifest(manifest.parent.name)
    with pytest.raises(SnapshotMissing):
        shelf_at(at).manifest("../elsewhere")


def test_restoring_that_ends_at_any_part_leaves_nothing(whole: Path, tmp_path: Path) -> None:
    (found,) = shelf_at(whole).manifests()
    for number in range(1, len(found.parts) + 1):
        left = number

        def told(_: int) -> None:
            nonlocal left
            left -= 1
            if not left:
                raise Killed

        with pytest.raises(Killed):
            restore(tmp_path, shelf_at(whole), found, told)
        assert list(tmp_path.glob("projections*")) == []


def test_an_empty_replica_takes_the_newest_snapshot_that_is_whole(
    whole: Path, tmp_path: Path
) -> None:
    at = copied(whole, tmp_path)
    given_settings = Settings(data_dir=at)
    store = opened(whole / PROJECTIONS_FILE)
    newer = snapshot_of(store, at, now_ms=2_000)
    store.close()
    (at / "snapshots" / newer.name / "part-00002.zst").unlink()
    for log_id, layout in (("f" * 32, LAYOUT_VERSION), (LOG_ID, LAYOUT_VERSION + 1)):
        assert restore_newest_if_empty(given_settings, log_id, layout, Startup()) is None
        assert newest(at) is None
    with capture_logs() as told:
        used = restore_newest_if_empty(given_settings, LOG_ID, LAYOUT_VERSION, Startup())
    assert used is not None
    assert used.created_at_ms == 1_000
    assert "a snapshot is damaged; an older one is tried" in [line["event"] for line in told]
    assert opened(at / PROJECTIONS_FILE).checkpoints == {("runs", 0): 7}
    assert restore_newest_if_empty(given_settings, LOG_ID, LAYOUT_VERSION, Startup()) is None


def test_the_newest_of_each_log_are_kept_and_abandoned_parts_go(
    whole: Path, tmp_path: Path
) -> None:
    at = copied(whole, tmp_path)
    shelf = shelf_at(at)
    old, young = f"{5:015d}-dead", f"{snapshot.ABANDONED_MS:015d}-beef"
    for name in (old, young, "not-ours"):
        (at / "snapshots" / name).mkdir()
        (at / "snapshots" / name / "part-00000.zst").write_bytes(b"x")
    (first,) = shelf.manifests()
    store = opened(whole / PROJECTIONS_FILE)
    made = []
    for number in range(4):
        maker = maker_in(at, now_ms=snapshot.ABANDONED_MS + 10 + number)
        made.append(maker.store(maker.copy(store), 2, unheard).name)
    store.close()
    names = {path.name for path in (at / "snapshots").iterdir() if any(path.iterdir())}
    assert names == {*made[2:], young, "not-ours"}
    assert first.name not in names

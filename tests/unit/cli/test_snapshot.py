"""`muniment snapshot` without a server; and snapshots of an application in this process."""

from __future__ import annotations

import asyncio
import fcntl
import json
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from muniment_services import bootstrap
from muniment_services.config import Settings
from muniment_services.file_copy import copy_by_process
from muniment_services.projection_files import PROJECTIONS_FILE
from muniment_services.snapshotter import Snapshotter, SnapshotUnderWay
from unit.cli.conftest import Call


def test_a_snapshot_is_made_listed_and_restored(call: Call, data_dir: Path) -> None:
    at = ("--data-dir", data_dir)
    assert "there is no snapshot in" in call("snapshot", "list", *at).out
    made = json.loads(call("snapshot", "create", *at, "--json").lines[-1])
    assert made["events"] > 40
    (listed,) = [json.loads(line) for line in call("snapshot", "list", *at, "--json").lines]
    assert listed["name"] == made["name"]
    assert listed["usable"] is True
    assert f"{made['name']}  20" in call("snapshot", "list", *at).out
    refused = call("snapshot", "restore", *at)
    assert (refused.status, "--force replaces them" in refused.err) == (1, True)
    (data_dir / PROJECTIONS_FILE).unlink()
    restored = call("snapshot", "restore", *at)
    assert restored.out.startswith(f"restored snapshot {made['name']} of {made['events']} events")
    assert call("verify", *at).status == 0
    assert [path.name for path in data_dir.glob("projections*")] == [PROJECTIONS_FILE]
    forced = call("snapshot", "restore", made["name"], *at, "--force", "--json")
    assert json.loads(forced.lines[-1])["name"] == made["name"]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("create", "--data-dir", "nowhere"), "there are no projections in nowhere"),
        (("create", "--keep", "0"), "--keep must be at least 1"),
        (
            ("create", "--url", "http://127.0.0.1:1", "--snapshots", "s3://b/x"),
            "Leave out --snapshots",
        ),
        (("restore", "--data-dir", "nowhere"), "there is no log in nowhere"),
        (("list", "--snapshots", "ftp://x"), "ftp://x is no place to keep files"),
    ],
)
def test_what_is_wrong_is_told_in_one_line(
    call: Call, arguments: tuple[str, ...], told: str
) -> None:
    ended = call("snapshot", *arguments)
    assert ended.status in (1, 2)
    assert told in ended.err
    assert ended.err.count("\n") == 1


def test_a_snapshot_that_is_not_there(call: Call, data_dir: Path) -> None:
    at = ("--data-dir", data_dir, "--force")
    assert "`muniment snapshot create` makes one" in call("snapshot", "restore", *at).err
    ended = call("snapshot", "restore", "000000000000001-abc", *at)
    assert "there is no snapshot 000000000000001-abc in" in ended.err


async def ended(snapshotter: Snapshotter) -> None:
    async with asyncio.timeout(60):
        while snapshotter.status.phase in ("copying", "storing"):  # noqa: ASYNC110
            await asyncio.sleep(0.01)


def test_the_serving_application_makes_one_at_a_time_and_a_start_begins_with_it(
    data_dir: Path,
) -> None:
    async def run() -> None:
        async with bootstrap.services(Settings(data_dir=data_dir)) as services:
            snapshotter = services.snapshotter
            assert snapshotter.newest_at_ms is None
            snapshotter.start(1)
            with pytest.raises(SnapshotUnderWay):
                snapshotter.start(1)
            await ended(snapshotter)
            assert snapshotter.status.phase == "done"
            assert snapshotter.status.bytes == snapshotter.status.total > 0
            made_at_ms = snapshotter.newest_at_ms
            snapshotter.newest_at_ms = None
            await snapshotter.look()
            assert snapshotter.newest_at_ms == made_at_ms
            snapshotter.start()
        assert snapshotter.status.phase in ("done", "failed")
        (data_dir / PROJECTIONS_FILE).unlink()
        async with bootstrap.services(Settings(data_dir=data_dir)) as services:
            assert services.runner.store.log_id == services.fold.log.log_id

    with capture_logs() as told:
        asyncio.run(run())
    assert "projections begin with a snapshot" in [line["event"] for line in told]


def test_a_file_is_copied_without_losing_the_locks_on_it(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(b"content")
    with source.open("r+b") as file:
        fcntl.lockf(file, fcntl.LOCK_EX)
        copy_by_process(source, tmp_path / "target")
        locks = Path("/proc/locks").read_text()
        assert f":{source.stat().st_ino} " in locks
    assert (tmp_path / "target").read_bytes() == b"content"
    with pytest.raises(OSError, match="No such file"):
        copy_by_process(tmp_path / "none", tmp_path / "other")
    assert not (tmp_path / "other").exists()

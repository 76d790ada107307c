"""`muniment rebuild` without a server, the files it leaves, and how progress is told."""

from __future__ import annotations

import fcntl
import json
from pathlib import Path

import pytest

from muniment_services import bootstrap
from muniment_services.cli.terminal import Meter
from muniment_services.config import Settings
from muniment_services.instance import Instance, find, publish, withdraw
from muniment_services.projection_files import (
    PROJECTIONS_FILE,
    newest,
    numbered,
    replace,
    settle,
    unfinished,
)
from unit.cli.conftest import Call


def files(folder: Path) -> dict[str, str]:
    """Names and contents of the projections' files."""
    return {path.name: path.read_text() for path in sorted(folder.glob("projections*"))}


def test_a_rebuild_replaces_the_file_and_tells_what_it_did(call: Call, data_dir: Path) -> None:
    before = (data_dir / PROJECTIONS_FILE).stat().st_ino
    ended = call("rebuild", "--data-dir", data_dir, "--json")
    assert ended.status == 0
    last = json.loads(ended.lines[-1])
    assert last["phase"] == "done"
    assert last["events"] > 40
    assert (data_dir / PROJECTIONS_FILE).stat().st_ino != before
    assert [path.name for path in data_dir.glob("projections*")] == [PROJECTIONS_FILE]
    assert call("rebuild", "--data-dir", data_dir).out.startswith("rebuilt the projections from")


def test_a_rebuild_that_fails_leaves_the_old_file(
    call: Call, data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_space(*_: object) -> None:
        raise OSError("No space left on device")

    before = (data_dir / PROJECTIONS_FILE).read_bytes()
    monkeypatch.setattr("muniment_services.rebuild.catch_up", no_space)
    ended = call("rebuild", "--data-dir", data_dir)
    assert (ended.status, ended.err) == (1, "muniment: No space left on device\n")
    assert (data_dir / PROJECTIONS_FILE).read_bytes() == before


def test_a_locked_folder_without_a_known_server_says_what_to_do(call: Call, data_dir: Path) -> None:
    with (data_dir / "server.lock").open("r+") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        ended = call("rebuild", "--data-dir", data_dir)
    assert ended.status == 1
    assert ended.err.count("\n") == 1
    assert "--url" in ended.err


def test_a_server_that_cannot_be_reached_is_one_line(call: Call, data_dir: Path) -> None:
    ended = call("rebuild", "--url", "http://127.0.0.1:9")
    assert ended.status == 1
    assert ended.err.startswith("muniment: http://127.0.0.1:9 cannot be reached")


def test_a_folder_without_projections_is_settled(tmp_path: Path) -> None:
    assert settle(tmp_path) == tmp_path / PROJECTIONS_FILE
    assert newest(tmp_path) is None
    assert files(tmp_path) == {}


def test_the_newest_complete_file_counts_and_the_rest_goes(tmp_path: Path) -> None:
    current = tmp_path / PROJECTIONS_FILE
    first, second = numbered(tmp_path, 5), numbered(tmp_path, 10**12)
    current.write_text("oldest")
    first.write_text("older")
    second.write_text("newest")
    Path(f"{second}.wal").write_text("its log")
    Path(f"{current}.wal").write_text("another's log")
    unfinished(numbered(tmp_path, 10**13)).write_text("half")
    Path(f"{unfinished(current)}.wal").write_text("half")
    assert newest(tmp_path) == second
    assert settle(tmp_path) == current
    expected = {PROJECTIONS_FILE: "newest", f"{PROJECTIONS_FILE}.wal": "its log"}
    assert files(tmp_path) == expected
    settle(tmp_path)
    assert files(tmp_path) == expected


def test_replacing_drops_the_old_write_ahead_log(tmp_path: Path) -> None:
    current = tmp_path / PROJECTIONS_FILE
    current.write_text("old")
    Path(f"{current}.wal").write_text("old log")
    unfinished(current).write_text("new")
    replace(unfinished(current), current)
    assert files(tmp_path) == {PROJECTIONS_FILE: "new"}


def test_an_unreadable_database_is_built_anew(call: Call, data_dir: Path) -> None:
    (data_dir / PROJECTIONS_FILE).write_bytes(b"no database")
    store = bootstrap.projections_store(data_dir / PROJECTIONS_FILE, Settings(data_dir=data_dir))
    assert store.checkpoints == {}
    store.close()


def test_who_serves_a_folder_is_told_by_a_file(tmp_path: Path) -> None:
    assert find(tmp_path) is None
    server = Instance(url="http://127.0.0.1:1", pid=7, version="1", started_at_ms=3)
    publish(tmp_path, server)
    assert find(tmp_path) == server
    withdraw(tmp_path, 8)
    assert find(tmp_path) == server
    withdraw(tmp_path, 7)
    assert find(tmp_path) is None
    (tmp_path / "server.json").write_text("{")
    assert find(tmp_path) is None


def test_progress_is_a_line_now_and_then(capsys: pytest.CaptureFixture[str]) -> None:
    times = iter([0.0, 1.0, 3.0, 3.0, 3.0, 3.0])
    with Meter("folding", False, clock=lambda: next(times)) as meter:
        meter.show(10, 100)
        meter.add(20)
    assert capsys.readouterr().err == "folding: 30 of 100 events, 10 events/s, 7 s left\n"


def test_progress_is_json_when_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    times = iter([0.0, 4.0, 4.0, 4.0, 4.0, 4.0])
    with Meter("folding", True, clock=lambda: next(times)) as meter:
        meter.show(40, 100)
    assert json.loads(capsys.readouterr().out) == {
        "phase": "folding",
        "events": 40,
        "total": 100,
        "events_per_s": 10,
        "left_s": 6.0,
    }

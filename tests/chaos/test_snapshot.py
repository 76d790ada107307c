"""Snapshots of running servers: nobody notices, and dying at any moment leaves nothing half."""

from __future__ import annotations

import http.client
import json
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from chaos.test_rebuild import (
    PROJECTIONS,
    check,
    clients,
    history,
    muniment,
    projection_files,
    request,
)
from harness.object_store import running_moto
from harness.server import process_environment, running_muniment

pytestmark = pytest.mark.slow

__all__ = ["history"]  # the fixture that `data_dir` copies

ROUTE = "/api/v1/snapshots"
MADE_WITHIN_S = 60.0
KILLS = 4


@pytest.fixture
def data_dir(history: Path, tmp_path: Path) -> Path:
    """A copy of the history."""
    subprocess.run(["cp", "-r", str(history), str(tmp_path / "data")], check=True)
    return tmp_path / "data"


def admin(url: str, method: str, path: str = ROUTE) -> tuple[int, dict[str, Any]]:
    """One call of the administration API."""
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=60)
    try:
        return request(connection, method, path)
    finally:
        connection.close()


def wait_until_made(url: str) -> dict[str, Any]:
    """The status that a snapshot ends with."""
    deadline = time.monotonic() + MADE_WITHIN_S
    while time.monotonic() < deadline:
        _, status = admin(url, "GET")
        if status["phase"] in ("done", "failed"):
            return status
        time.sleep(0.02)
    raise AssertionError(f"the snapshot has not ended: {status}")


def listed(*arguments: object) -> list[dict[str, Any]]:
    """What `muniment snapshot list --json` prints."""
    ended = muniment("snapshot", "list", "--json", *arguments)
    assert ended.returncode == 0, ended.stderr
    return [json.loads(line) for line in ended.stdout.splitlines()]


def copy_of(data_dir: Path, name: str) -> Path:
    """The log and the snapshots of a data folder in another one, without projections."""
    other = data_dir.parent / name
    other.mkdir()
    for path in data_dir.glob("log.sqlite*"):
        shutil.copyfile(path, other / path.name)
    shutil.copytree(data_dir / "keys", other / "keys")
    shutil.copytree(data_dir / "snapshots", other / "snapshots")
    return other


def test_clients_do_not_notice_a_snapshot_and_a_replica_begins_with_it(data_dir: Path) -> None:
    with running_muniment(data_dir) as server:
        with clients(server.url) as working:
            before = [client.calls for client in working]
            for _ in range(4):
                ended = muniment("snapshot", "create", "--data-dir", data_dir, "--keep", 2)
                assert ended.returncode == 0, ended.stderr
                assert ended.stdout.startswith("made snapshot")
            time.sleep(0.5)
            after = [client.calls for client in working]
            assert all(now > then for now, then in zip(after, before, strict=True))
        assert projection_files(data_dir) == [PROJECTIONS]
        made = listed("--data-dir", data_dir)
        assert len(made) == 2
        assert made[0]["created_at_ms"] > made[1]["created_at_ms"]
    replica = copy_of(data_dir, "replica")
    with running_muniment(replica) as server:
        assert "projections begin with a snapshot" in server.log
        assert made[0]["name"] in server.log
        assert "built anew" not in server.log
        with clients(server.url):
            time.sleep(0.5)
    check(replica)


def test_there_is_one_snapshot_at_a_time(data_dir: Path) -> None:
    with running_muniment(data_dir) as server:
        assert admin(server.url, "GET")[1]["phase"] == "idle"
        status, started = admin(server.url, "POST", f"{ROUTE}?keep=1")
        assert (status, started["phase"]) == (202, "copying")
        status, refused = admin(server.url, "POST")
        assert (status, refused["error_code"]) == (409, "RESOURCE_CONFLICT")
        assert wait_until_made(server.url)["phase"] == "done"
        for wrong in ("0", "x", "1001"):
            assert admin(server.url, "POST", f"{ROUTE}?keep={wrong}")[0] == 400


def test_a_rebuild_and_a_snapshot_do_not_meet(data_dir: Path) -> None:
    with running_muniment(data_dir) as server:
        assert admin(server.url, "POST", "/api/v1/projections/rebuild")[0] == 202
        while admin(server.url, "GET", "/api/v1/projections/rebuild")[1]["phase"] != "done":
            admin(server.url, "POST")
            time.sleep(0.05)
        assert admin(server.url, "POST")[0] in (202, 409)
        assert wait_until_made(server.url)["phase"] == "done"
        assert len(projection_files(data_dir)) == 1
    replica = copy_of(data_dir, "replica")
    assert muniment("snapshot", "restore", "--data-dir", replica).returncode == 0
    check(replica)


def test_killed_at_any_moment_of_a_snapshot(data_dir: Path) -> None:
    with running_muniment(data_dir) as server:
        began = time.monotonic()
        assert admin(server.url, "POST")[0] == 202
        wait_until_made(server.url)
        whole_s = time.monotonic() - began
        chance = random.Random(3)
        for _ in range(KILLS):
            assert admin(server.url, "POST")[0] == 202
            time.sleep(whole_s * chance.random())
            server.restart()
            assert projection_files(data_dir) == [PROJECTIONS]
        assert admin(server.url, "POST")[0] == 202
        assert wait_until_made(server.url)["phase"] == "done"
    replica = copy_of(data_dir, "replica")
    names = [made["name"] for made in listed("--data-dir", replica)]
    assert 1 <= len(names) <= 3
    for name in names:
        ended = muniment("snapshot", "restore", name, "--data-dir", replica, "--force")
        assert ended.returncode == 0, ended.stderr
        check(replica)


def test_killed_at_any_moment_of_a_restore(data_dir: Path) -> None:
    assert muniment("snapshot", "create", "--data-dir", data_dir).returncode == 0
    replica = copy_of(data_dir, "replica")
    command = [sys.executable, "-m", "muniment_services", "snapshot", "restore"]
    command += ["--data-dir", str(replica), "--force"]
    began = time.monotonic()
    subprocess.run(command, check=True, env=process_environment(), capture_output=True)
    whole_s = time.monotonic() - began
    chance = random.Random(4)
    for _ in range(KILLS):
        process = subprocess.Popen(
            command,
            env=process_environment(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        time.sleep(whole_s * chance.uniform(0.7, 1.0))
        process.send_signal(signal.SIGKILL)
        process.wait(30)
        assert (replica / PROJECTIONS).exists()
    with running_muniment(replica):
        assert projection_files(replica) == [PROJECTIONS]
        check(replica)


def test_a_snapshot_is_not_restored_where_it_does_not_belong(
    data_dir: Path, tmp_path: Path
) -> None:
    ended = muniment("snapshot", "restore", "--data-dir", tmp_path / "nothing")
    assert ended.returncode == 1
    assert "no log" in ended.stderr
    assert muniment("snapshot", "create", "--data-dir", data_dir).returncode == 0
    ended = muniment("snapshot", "restore", "--data-dir", data_dir)
    assert ended.returncode == 1
    assert "--force replaces them" in ended.stderr
    with running_muniment(data_dir) as server:
        ended = muniment("snapshot", "restore", "--data-dir", data_dir, "--force")
        assert ended.returncode == 1
        assert f"process {server.process.pid} uses" in ended.stderr
    other = tmp_path / "other"
    with running_muniment(other):
        pass
    place = ("--snapshots", data_dir / "snapshots", "--data-dir", other, "--force")
    before = (other / PROJECTIONS).read_bytes()
    ended = muniment("snapshot", "restore", *place)
    assert ended.returncode == 1
    assert "is of log" in ended.stderr
    assert "just start the server" in ended.stderr
    assert (other / PROJECTIONS).read_bytes() == before


def test_replicas_share_snapshots_in_a_bucket(data_dir: Path, tmp_path: Path) -> None:
    with running_moto(tmp_path) as s3, pytest.MonkeyPatch.context() as patch:
        for name, value in s3.environment.items():
            patch.setenv(name, value)
        place = ("--snapshots", f"{s3.make_bucket('snapshots')}/team")
        (data_dir / "snapshots").mkdir(exist_ok=True)  # for `copy_of`; it stays empty
        replica = copy_of(data_dir, "replica")
        with running_muniment(data_dir, extra_args=place) as server:
            with clients(server.url):
                assert admin(server.url, "POST")[0] == 202
                assert wait_until_made(server.url)["phase"] == "done"
            status = admin(server.url, "GET")[1]
        (made,) = listed(*place, "--data-dir", data_dir)
        assert made["name"] == status["name"]
        for path in data_dir.glob("log.sqlite*"):
            shutil.copyfile(path, replica / path.name)
        with running_muniment(replica, extra_args=place) as server:
            assert made["name"] in server.log
            check(replica)


def test_a_bucket_that_is_away_fails_the_snapshot_and_not_the_server(
    data_dir: Path, tmp_path: Path
) -> None:
    with running_moto(tmp_path) as s3, pytest.MonkeyPatch.context() as patch:
        for name, value in s3.environment.items():
            patch.setenv(name, value)
        place = ("--snapshots", "s3://nowhere")
        with running_muniment(data_dir, extra_args=place) as server, clients(server.url):
            ended = muniment("snapshot", "create", "--url", server.url)
            assert ended.returncode == 1
            assert "there is no such bucket" in ended.stderr
            assert projection_files(data_dir) == [PROJECTIONS]
        (data_dir / PROJECTIONS).unlink()
        with running_muniment(data_dir, extra_args=place) as server:
            assert "snapshots cannot be used; projections are built anew" in server.log
            check(data_dir)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own with little room."""
    at = tmp_path / "small"
    at.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", str(at)], check=True)
    yield at
    subprocess.run(["umount", str(at)], check=True)


def test_a_disk_that_fills_up_fails_the_snapshot_and_not_the_server(
    data_dir: Path, small_disk: Path
) -> None:
    filler = small_disk / "filler"
    with running_muniment(data_dir, extra_args=("--snapshots", str(small_disk))) as server:
        with clients(server.url):
            filler.write_bytes(bytes(23 * 1024 * 1024))
            assert admin(server.url, "POST")[0] == 202
            ended = wait_until_made(server.url)
            assert ended["phase"] == "failed"
            assert "free some space" in ended["error"]
            assert listed("--snapshots", small_disk) == []
        filler.unlink()
        assert admin(server.url, "POST")[0] == 202
        assert wait_until_made(server.url)["phase"] == "done"
        assert projection_files(data_dir) == [PROJECTIONS]


def test_sigterm_during_a_snapshot_gives_it_up(data_dir: Path) -> None:
    with running_muniment(data_dir) as server:
        assert admin(server.url, "POST")[0] == 202
        began = time.monotonic()
        assert server.stop() == 0
        assert time.monotonic() - began < 5
        assert projection_files(data_dir) == [PROJECTIONS]

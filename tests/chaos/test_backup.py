"""Backups of servers at work: what was acknowledged before one began is in it, wherever it lies."""

from __future__ import annotations

import http.client
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from chaos.test_rebuild import check, muniment, request
from harness.brokers import fresh_prefix, kafka_bootstrap
from harness.object_store import running_moto
from harness.server import process_environment, running_muniment

pytestmark = pytest.mark.slow

WRITERS = 3
PAUSE_S = 0.1
BEFORE_S, AFTER_S = 1.5, 1.0
KILLS = 4
FILES = "/api/2.0/mlflow-artifacts/artifacts"


class Writer(threading.Thread):
    """Makes runs with a metric and two files, one of which it replaces again and again."""

    def __init__(self, url: str, number: int, stopping: threading.Event) -> None:
        super().__init__(daemon=True)
        self.connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=60)
        self.number = number
        self.stopping = stopping
        self.acknowledged: list[tuple[str, bytes]] = []
        """Run ids, and what their file holds."""
        self.failed: list[str] = []

    def run(self) -> None:
        """Write until told to stop."""
        count = 0
        while not self.stopping.is_set() and not self.failed:
            count += 1
            made = self.post("runs/create", experiment_id="0", start_time=1)
            run_id = made["run"]["info"]["run_id"]
            self.post("runs/log-metric", run_id=run_id, key="m", value=count, timestamp=1, step=1)
            content = os.urandom(200 + count)
            self.put(f"{FILES}/0/{run_id}/artifacts/own.bin", content)
            self.put(f"{FILES}/0/shared-{self.number}/last.bin", content)
            self.acknowledged.append((run_id, content))
            time.sleep(PAUSE_S)

    def post(self, path: str, **body: object) -> dict[str, dict[str, dict[str, str]]]:
        status, answer = request(self.connection, "POST", f"/api/2.0/mlflow/{path}", body)
        if status != 200:
            self.failed.append(f"{path}: {status} {answer}")
        return answer

    def put(self, path: str, content: bytes) -> None:
        self.connection.request("PUT", path, content)
        answer = self.connection.getresponse()
        told = answer.read()
        if answer.status != 200:
            self.failed.append(f"{path}: {answer.status} {told!r}")


@contextmanager
def writing(url: str) -> Iterator[Callable[[], list[tuple[str, bytes]]]]:
    """Writers at work; gives what they have been acknowledged so far."""
    stopping = threading.Event()
    working = [Writer(url, number, stopping) for number in range(WRITERS)]
    for writer in working:
        writer.start()
    try:
        yield lambda: [item for writer in working for item in list(writer.acknowledged)]
    finally:
        stopping.set()
        for writer in working:
            writer.join(60)
    assert [writer.failed for writer in working] == [[]] * WRITERS


def assert_all_there(url: str, acknowledged: list[tuple[str, bytes]]) -> None:
    """Every run, its metric and its file."""
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=60)
    for run_id, content in acknowledged:
        _, found = request(connection, "GET", f"/api/2.0/mlflow/runs/get?run_id={run_id}")
        assert [m["key"] for m in found["run"]["data"]["metrics"]] == ["m"]
        connection.request("GET", f"{FILES}/0/{run_id}/artifacts/own.bin")
        assert connection.getresponse().read() == content


@pytest.fixture
def sealed(tmp_path: Path) -> tuple[str, Path]:
    """The option that names the passphrase."""
    file = tmp_path / "passphrase"
    file.write_text("correct horse\n")
    return "--passphrase-file", file


def made(place: str, *arguments: object) -> dict[str, object]:
    """Make a backup."""
    ended = muniment("backup", "create", "--to", place, "--json", *arguments)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    told: dict[str, object] = json.loads(ended.stdout.splitlines()[-1])
    return told


@pytest.fixture(params=["folder", "bucket"])
def place(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[str]:
    """A folder, and a bucket of moto's."""
    if request.param == "folder":
        yield str(tmp_path / "backups")
        return
    with running_moto(tmp_path) as s3:
        for name, value in s3.environment.items():
            monkeypatch.setenv(name, value)
        yield f"{s3.make_bucket('backups')}/muniment"


def test_what_was_acknowledged_before_a_backup_is_restored(
    place: str, tmp_path: Path, sealed: tuple[str, Path]
) -> None:
    data_dir, target = tmp_path / "data", tmp_path / "restored"
    with running_muniment(data_dir) as server, writing(server.url) as acknowledged:
        time.sleep(BEFORE_S)
        made(place, "--data-dir", data_dir, *sealed)
        time.sleep(AFTER_S)
        before = acknowledged()
        second = made(place, "--data-dir", data_dir, *sealed)
        time.sleep(AFTER_S)
        assert len(acknowledged()) > len(before) > 0
    checked = muniment("backup", "verify", place, *sealed)
    assert checked.returncode == 0, checked.stdout
    restored = muniment("backup", "restore", place, "--data-dir", target, *sealed)
    assert restored.returncode == 0, restored.stderr
    check(target)
    with running_muniment(target) as server:
        assert_all_there(server.url, before)
        with writing(server.url):
            time.sleep(0.5)
    check(target)
    # The restored log is another one, so its backups begin anew; contents are not copied again.
    third = made(place, "--data-dir", target, *sealed)
    assert third["new_events"] == third["events"] > second["events"]  # type: ignore[operator]


def test_killed_at_any_moment_of_a_backup(tmp_path: Path, sealed: tuple[str, Path]) -> None:
    data_dir, place, target = tmp_path / "data", tmp_path / "backups", tmp_path / "restored"
    with running_muniment(data_dir) as server, writing(server.url) as acknowledged:
        time.sleep(BEFORE_S)
        command = [sys.executable, "-m", "muniment_services", "backup", "create"]
        command += ["--to", str(place), "--data-dir", str(data_dir), *map(str, sealed)]
        for killed in range(KILLS):
            process = subprocess.Popen(command, env=process_environment(), start_new_session=True)
            time.sleep(0.8 + 0.4 * killed)
            os.killpg(process.pid, signal.SIGKILL)
            process.wait(15)
        before = acknowledged()
        made(str(place), "--data-dir", data_dir, *sealed)
    assert muniment("backup", "verify", place, *sealed).returncode == 0
    restored = muniment("backup", "restore", place, "--data-dir", target, *sealed)
    assert restored.returncode == 0, restored.stderr
    with running_muniment(target) as server:
        assert_all_there(server.url, before)


def test_a_log_on_kafka_is_backed_up_and_restored_there(
    tmp_path: Path, sealed: tuple[str, Path]
) -> None:
    (tmp_path / "kafka").mkdir()
    with kafka_bootstrap(tmp_path / "kafka") as bootstrap:

        def at(folder: str, prefix: str) -> tuple[str, ...]:
            on_kafka = ("--kafka-bootstrap", bootstrap, "--kafka-prefix", prefix)
            return ("--data-dir", str(tmp_path / folder), *on_kafka)

        old, new = at("data", fresh_prefix()), at("restored", fresh_prefix())
        with (
            running_muniment(tmp_path / "data", extra_args=old[2:]) as server,
            writing(server.url) as acknowledged,
        ):
            time.sleep(BEFORE_S)
            before = acknowledged()
            made(str(tmp_path / "backups"), *old, *sealed)
        assert muniment("backup", "verify", tmp_path / "backups", *sealed).returncode == 0
        restored = muniment("backup", "restore", tmp_path / "backups", *new, *sealed)
        assert restored.returncode == 0, restored.stderr
        with running_muniment(tmp_path / "restored", extra_args=new[2:]) as server:
            assert_all_there(server.url, before)
        verified = muniment("verify", *new)
        assert verified.returncode == 0, verified.stdout

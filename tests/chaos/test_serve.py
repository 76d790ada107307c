"""The command line beside a running server: what a second one says, following, broken pipes."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from harness.server import Server, free_port, process_environment, running_muniment

ENDED_WITHIN_S = 120.0
DEMO_WITHIN_S = 120.0


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A running server."""
    with running_muniment(tmp_path_factory.mktemp("serve") / "data") as running:
        yield running


def command(*arguments: object) -> list[str]:
    """The command line of one call."""
    return [sys.executable, "-m", "muniment_services", *map(str, arguments)]


def muniment(*arguments: object) -> subprocess.CompletedProcess[str]:
    """One call of the command line."""
    return subprocess.run(
        command(*arguments),
        capture_output=True,
        text=True,
        env=process_environment(),
        timeout=ENDED_WITHIN_S,
    )


def port_of(server: Server) -> int:
    """The port that a server listens on."""
    return int(server.url.rpartition(":")[2])


def create_experiment(server: Server, name: str) -> None:
    """One write."""
    request = urllib.request.Request(
        f"{server.url}/api/2.0/mlflow/experiments/create",
        json.dumps({"name": name}).encode(),
        {"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request) as answer:
        assert answer.status == 200


def check_one_line(ended: subprocess.CompletedProcess[str], *says: str) -> None:
    """The call failed with one line that says these things."""
    assert ended.returncode == 1
    assert ended.stderr.startswith("muniment: ")
    assert ended.stderr.count("\n") == 1
    assert all(text in ended.stderr for text in says), ended.stderr


def test_a_second_server_on_the_same_folder_names_the_first(server: Server) -> None:
    ended = muniment("serve", "--port", free_port(), "--data-dir", server.data_dir)
    check_one_line(ended, str(server.process.pid), str(server.data_dir))


def test_a_second_start_of_the_same_server_says_that_it_runs(server: Server) -> None:
    ended = muniment("serve", "--port", port_of(server), "--data-dir", server.data_dir)
    check_one_line(ended, str(server.process.pid), server.url, "already")


def test_a_port_that_is_taken(server: Server, tmp_path: Path) -> None:
    ended = muniment("serve", "--port", port_of(server), "--data-dir", tmp_path / "other")
    check_one_line(ended, f":{port_of(server)}", "--port")
    assert not (tmp_path / "other").exists()


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    ended = muniment("serve", "--port", 0, "--data-dir", tmp_path / "file" / "data")
    check_one_line(ended, "file/data")


def hear_interrupts() -> None:
    """As a terminal's programs do; tests that a shell runs in its background are deaf to them."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@contextmanager
def following(*arguments: object) -> Iterator[subprocess.Popen[str]]:
    """A call of `events --follow` while it runs; it is ended with the test, however that ends."""
    with subprocess.Popen(
        command("events", "--follow", *arguments),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=process_environment(),
        preexec_fn=hear_interrupts,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def check_prints(process: subprocess.Popen[str], text: str) -> None:
    """It prints a line with this text, now or later."""
    assert process.stdout is not None
    assert process.stderr is not None
    assert any(text in line for line in process.stdout), process.stderr.read()


def test_following_prints_what_happens_until_it_is_interrupted(server: Server) -> None:
    with following("--data-dir", server.data_dir, "--type", "ExperimentCreated") as process:
        check_prints(process, "name=Default")
        create_experiment(server, "followed")
        check_prints(process, "name=followed")
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=ENDED_WITHIN_S)
        assert (process.returncode, errors) == (130, "")


def test_a_reader_that_goes_away_ends_it_quietly(server: Server) -> None:
    with following("--data-dir", server.data_dir, "--json") as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        create_experiment(server, "unread")
        assert process.wait(ENDED_WITHIN_S) == 0
        assert process.stderr.read() == ""


def test_the_log_and_the_projections_are_verified_beside_the_server(server: Server) -> None:
    ended = muniment("verify", "--data-dir", server.data_dir)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "all is well" in ended.stdout


def test_sigterm_ends_it_properly_and_withdraws_the_address(tmp_path: Path) -> None:
    with running_muniment(tmp_path / "data") as server:
        found = json.loads((server.data_dir / "server.json").read_text())
        assert (found["url"], found["pid"]) == (server.url, server.process.pid)
        assert server.stop() == 0
        assert not (server.data_dir / "server.json").exists()
        assert "Traceback" not in server.log


@pytest.mark.slow
def test_the_demo_logs_runs_once_and_registers_the_best(tmp_path: Path) -> None:
    for _ in range(2):
        with running_muniment(tmp_path / "data", extra_args=["--demo"]) as server:
            wait_for(server, "What to look at next")
            server.stop()
    assert "there from an earlier start" in server.log
    shown = muniment("events", "--data-dir", tmp_path / "data", "--json").stdout.splitlines()
    types = Counter(json.loads(line)["envelope"]["type"] for line in shown)
    assert types["RunCreated"] == types["LoggedModelCreated"] == 3
    assert types["ModelVersionCreated"] == types["AliasSet"] == types["StageTransitioned"] == 1
    assert muniment("verify", "--data-dir", tmp_path / "data").returncode == 0


def wait_for(server: Server, text: str) -> None:
    """Wait until the server has printed this since its last start."""
    start = server.log.rfind("muniment serves")
    deadline = time.monotonic() + DEMO_WITHIN_S
    while text not in server.log[start:]:
        assert time.monotonic() < deadline, server.log
        assert "demo run failed" not in server.log
        time.sleep(0.1)

"""A run of tests that is ended by SIGTERM stops what its tests have started."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from house.sources import ROOT

WITHIN_S = 120.0
STARTS = """
import subprocess, time
import pytest

@pytest.fixture
def started():
    process = subprocess.Popen(["sleep", "600"], start_new_session=True)
    yield process
    process.kill()
    process.wait()

def test_waits(started):
    print(started.pid, flush=True)
    time.sleep(600)
"""


def lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_sigterm_ends_what_a_test_has_started(tmp_path: Path) -> None:
    (tmp_path / "test_starts.py").write_text(STARTS, "utf-8")
    command = [sys.executable, "-m", "pytest", "-sq", "-p", "conftest", "-p", "no:cacheprovider"]
    with subprocess.Popen(
        [*command, "test_starts.py"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT / "tests")},
        stdout=subprocess.PIPE,
        text=True,
    ) as run:
        assert run.stdout is not None
        pid = int(next(line for line in run.stdout if line.strip().isdigit()))
        assert lives(pid)
        run.send_signal(signal.SIGTERM)
        run.communicate(timeout=WITHIN_S)
    deadline = time.monotonic() + WITHIN_S
    while lives(pid):
        assert time.monotonic() < deadline
        time.sleep(0.05)

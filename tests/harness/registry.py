"""A real schema registry for tests: Apicurio, which speaks Confluent's API, as a local process.

`install` has Maven fetch it into `.cache/registry` and compares its bytes with the hash below. It
keeps everything in memory: one that was stopped comes back empty. What is not there is an error.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import signal
import subprocess
import tarfile
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
from local_kafka import java

from harness.server import CHECKOUT, free_port

VERSION = "3.0.9"
ARTIFACT = f"io.apicurio:apicurio-registry-app:{VERSION}:tar.gz:all"
SHA256 = "2b28181501a20cbf6efcd77f9b7153908fc01f3d3a7c32024c0bd9e1b04c8a43"
CACHE = CHECKOUT / ".cache" / "registry"
API = "/apis/ccompat/v7"

JAVA_OPTIONS = ("-Xmx512m", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC")
INSTALL_S_MAX = 600.0
STARTED_WITHIN_S = 90.0
STOPPED_WITHIN_S = 20.0
CALL_S = 20.0
POLL_S = 0.1
LOG_SHOWN_CHARS = 4_000


class RegistryFailed(Exception):
    """It cannot be had or does not start; the message says what to do."""


def install() -> Path:
    """The registry's jar to run, fetched if it is not there. For several processes at once."""
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        folder = CACHE / SHA256[:16]
        if not folder.exists():
            _fetch(folder)
    return folder / f"apicurio-registry-app-{VERSION}-runner.jar"


def _fetch(folder: Path) -> None:
    java()  # Brings Java to a fresh machine, which Maven needs as well.
    if shutil.which("mvn") is None:
        raise RegistryFailed("fetching it needs Maven once; install it, so that `mvn` is found")
    with tempfile.TemporaryDirectory(dir=CACHE) as scratch:
        command = ["mvn", "-B", "-q", "dependency:copy", f"-Dartifact={ARTIFACT}"]
        command += [f"-DoutputDirectory={scratch}"]
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=INSTALL_S_MAX, check=False, cwd=scratch
        )
        if done.returncode != 0:
            raise RegistryFailed(f"Maven could not fetch it: {(done.stdout + done.stderr)[-800:]}")
        (archive,) = Path(scratch).glob("*.tar.gz")
        if hashlib.sha256(archive.read_bytes()).hexdigest() != SHA256:
            raise RegistryFailed(f"{archive.name} is not the one that harness/registry.py pins")
        unpacked = Path(scratch) / "unpacked"
        with tarfile.open(archive) as tar:
            tar.extractall(unpacked, filter="data")
        unpacked.rename(folder)


class Registry:
    """One registry process; `stop` makes it unreachable, and forgets what it held."""

    def __init__(self, folder: Path) -> None:
        """folder: where it logs."""
        self._port = free_port()
        self._log = folder / "registry.log"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """What clients of Confluent's API are given."""
        return f"http://127.0.0.1:{self._port}{API}"

    def start(self) -> None:
        """Start it and wait until it answers. Raises RegistryFailed with its log's end."""
        jar = install()
        command = [java(), *JAVA_OPTIONS, "-Dquarkus.http.host=127.0.0.1"]
        command += [f"-Dquarkus.http.port={self._port}", "-Dquarkus.management.host=127.0.0.1"]
        command += [f"-Dquarkus.management.port={free_port()}", "-jar", str(jar)]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        deadline = time.monotonic() + STARTED_WITHIN_S
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                end = self._log.read_text("utf-8", "replace")[-LOG_SHOWN_CHARS:]
                self.stop()
                raise RegistryFailed(f"it does not answer; the end of its log:\n{end}")
            time.sleep(POLL_S)

    def _answers(self) -> bool:
        try:
            return httpx.get(f"{self.url}/subjects", timeout=CALL_S).is_success
        except httpx.HTTPError:
            return False

    def stop(self) -> None:
        """SIGKILL; nothing of it is kept anyway. Stopping twice is harmless."""
        if self._process is not None and self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait(STOPPED_WITHIN_S)

    def get(self, path: str) -> Any:
        """The JSON of a GET."""
        return httpx.get(self.url + path, timeout=CALL_S).raise_for_status().json()

    def register(self, subject: str, schema_json: str) -> httpx.Response:
        """What the registry says to a new version of a subject."""
        body = {"schema": schema_json}
        return httpx.post(f"{self.url}/subjects/{subject}/versions", json=body, timeout=CALL_S)


@contextmanager
def running_registry(folder: Path) -> Iterator[Registry]:
    """An empty registry, stopped at the end."""
    folder.mkdir(parents=True, exist_ok=True)
    registry = Registry(folder)
    registry.start()
    try:
        yield registry
    finally:
        registry.stop()

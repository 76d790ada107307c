"""Servers as processes of their own: ours, and MLflow's own to compare with.

A server runs in a process group, so that killing it leaves no worker behind, and keeps its port
over restarts, so that a client's URI stays good. Everything it prints stands in one log file
beside its data, and is shown when it fails to start.
"""

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[2]
CODE_FOLDERS = ("services", "projections", "auth", "schemas")
HEALTHY_WITHIN_S = (
    60.0  # MLflow's own server migrates an empty database first: about 10 s on 2 cores
)
STOPPED_WITHIN_S = 15.0
HEALTH_CALL_S = 2.0
POLL_S = 0.05
LOG_SHOWN_CHARS = 8_000


class ServerFailed(Exception):
    """A server did not become healthy, or would not end; the message carries its log's end."""

    def __init__(self, what: str, command: Sequence[str], log: str) -> None:
        super().__init__(f"{what}: {' '.join(command)}\n--- its log ---\n{log}")


class Server:
    """One server process at a fixed URL; `kill` and `restart` it as often as a test needs."""

    def __init__(
        self,
        command: Sequence[str],
        port: int,
        data_dir: Path,
        environment: Mapping[str, str],
        ready_path: str = "/readyz",
    ) -> None:
        """command: the whole command line, port included. Nothing starts before `start`.

        ready_path: answers 200 once the server can be used.
        """
        self.command = list(command)
        self.url = f"http://127.0.0.1:{port}"
        self.data_dir = data_dir
        self.log_path = data_dir.parent / f"{data_dir.name}.log"
        self._environment = dict(environment)
        self._ready_path = ready_path
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def process(self) -> subprocess.Popen[bytes]:
        """The process started last, running or ended."""
        assert self._process is not None, "the server was never started"
        return self._process

    @property
    def log(self) -> str:
        """The end of what the server printed, over all its starts."""
        text = self.log_path.read_text(errors="replace") if self.log_path.exists() else ""
        return text[-LOG_SHOWN_CHARS:]

    def begin(self) -> None:
        """Start the process; it may take a while until it is ready, or answers at all."""
        with self.log_path.open("ab") as log:
            self._process = subprocess.Popen(
                self.command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=self._environment,
                start_new_session=True,
            )

    def start(self) -> None:
        """Start the process and return once it is ready. Raises ServerFailed."""
        self.begin()
        try:
            self._await_health()
        except BaseException:
            self.kill()
            raise

    def _await_health(self) -> None:
        deadline = time.monotonic() + HEALTHY_WITHIN_S
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                what = f"the server ended with status {self.process.returncode}"
                raise ServerFailed(what, self.command, self.log)
            if is_healthy(self.url, self._ready_path):
                return
            time.sleep(POLL_S)
        raise ServerFailed(f"not healthy in {HEALTHY_WITHIN_S:g} s", self.command, self.log)

    def kill(self) -> None:
        """SIGKILL the process and all it started; nothing is flushed. Killing twice is harmless."""
        self._signal(signal.SIGKILL)
        self.process.wait(STOPPED_WITHIN_S)

    def stop(self) -> int:
        """SIGTERM, wait for the drain, return the exit status. Raises ServerFailed if it hangs."""
        if self.process.poll() is None:
            self.process.terminate()
        try:
            status = self.process.wait(STOPPED_WITHIN_S)
        except subprocess.TimeoutExpired:
            self.kill()
            raise ServerFailed("SIGTERM did not end it", self.command, self.log) from None
        self._signal(signal.SIGKILL)  # workers that outlived their parent
        return status

    def restart(self) -> None:
        """Start again on the same data and port, killing the process first if it still runs."""
        self.kill()
        self.start()

    def _signal(self, number: signal.Signals) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, number)


@contextmanager
def running_muniment(
    data_dir: Path, *, port: int | None = None, extra_args: Sequence[str] = ()
) -> Iterator[Server]:
    """Our server from this checkout, healthy, on `data_dir`; stopped by SIGTERM at the end.

    port: a free one of the loopback interface when None. extra_args: appended to `serve`.
    Raises ServerFailed with the server's log when it does not start or does not stop.
    """
    chosen = free_port() if port is None else port
    command = [sys.executable, "-m", "muniment_services", "serve", "--port", str(chosen)]
    command += ["--data-dir", str(data_dir), *extra_args]
    with _running(Server(command, chosen, data_dir, process_environment())) as server:
        yield server


@contextmanager
def running_upstream(data_dir: Path, *, port: int | None = None) -> Iterator[Server]:
    """MLflow's own server on SQLite and a local artifact folder, both in `data_dir`; one worker."""
    chosen = free_port() if port is None else port
    data_dir.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1"]
    command += ["--port", str(chosen), "--workers", "1"]
    command += ["--backend-store-uri", f"sqlite:///{data_dir}/mlflow.db"]
    command += ["--artifacts-destination", str(data_dir / "artifacts")]
    started = Server(command, chosen, data_dir, process_environment(), "/health")
    with _running(started) as server:
        yield server


@contextmanager
def _running(server: Server) -> Iterator[Server]:
    server.start()
    try:
        yield server
    except BaseException:
        server.kill()
        raise
    server.stop()


def process_environment() -> dict[str, str]:
    """The caller's environment less its MLflow and muniment settings, plus this checkout's code."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("MLFLOW_", "MUNIMENT_"))}
    paths = [str(CHECKOUT / folder) for folder in CODE_FOLDERS]
    kept["PYTHONPATH"] = os.pathsep.join([*paths, *filter(None, [kept.get("PYTHONPATH")])])
    kept["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), kept.get("PATH", os.defpath)])
    return kept | {"MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true"}


def free_port() -> int:
    """A TCP port of the loopback interface that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    assert isinstance(port, int)
    return port


def is_healthy(url: str, path: str = "/health") -> bool:
    """Whether GET url/path answers 200 now."""
    try:
        with urllib.request.urlopen(url + path, timeout=HEALTH_CALL_S) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, ConnectionError, TimeoutError):
        return False

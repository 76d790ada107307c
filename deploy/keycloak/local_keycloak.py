"""Keycloak on this machine, for trying sign-in out and for its tests. Not for production.

`install` has Maven fetch Keycloak's release into `.cache/keycloak`, compares it with its hash in
`zip.lock`, builds it once, and imports `realm.json` into a database that every start gets a copy
of: such a start takes a third of a first one's time. A machine needs Java 17 or newer, and Maven
for the first time.

`python local_keycloak.py --help` is `deploy/scripts/keycloak`.
"""

from __future__ import annotations

import argparse
import atexit
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
import zipfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from local_kafka import LocalKafkaError, free_port, java, listens, only_one
from local_kafka import install as fetch

HERE = Path(__file__).resolve().parent
CACHE = HERE.parents[1] / ".cache" / "keycloak"
REALM_FILE = HERE / "realm.json"
REALM = "mlops"
HOST = "127.0.0.1"
PORT = 28080
ADMIN, ADMIN_PASSWORD = "admin", "admin-password"
"""Of the master realm. Whoever reaches the loopback interface may know it."""

JAVA_OPTIONS = "-XX:TieredStopAtLevel=1"
"""For a quick start: the server compiler costs more than it wins in so short a life."""

HEAP = "-Xms64m -Xmx512m"
BUILD_OPTIONS = ("--db=dev-file",)
DATABASE_OPTIONS = "NON_KEYWORDS=VALUE;DB_CLOSE_ON_EXIT=FALSE"
"""The first as Keycloak's own; the second leaves closing to Keycloak, which writes until then."""

STARTED_WITHIN_S = 480.0
STOPPED_WITHIN_S = 20.0
BUILT_WITHIN_S = 300.0
CALL_S_MAX = 5.0
POLL_S = 0.1
LOG_SHOWN_CHARS = 6_000
ANSWER_BYTES_MAX = 1 << 20


class LocalKeycloakError(Exception):
    """Something is missing, or Keycloak did not start; the message says what to do."""


def install() -> Path:
    """Keycloak's folder, built, and the database beside it; made if they are not there.

    Safe for several processes at once. Raises LocalKeycloakError.
    """
    CACHE.mkdir(parents=True, exist_ok=True)
    home, warm = CACHE / "home", CACHE / "warm"
    with only_one(CACHE / "install.lock"):
        built = _digest(HERE / "zip.lock", str(home), repr(BUILD_OPTIONS), _java_version())
        if not _stamped(home, built):
            _build(home)
            _stamp(home, built)
        baked = _digest(REALM_FILE, built)
        if not _stamped(warm, baked):
            _bake(home, warm)
            _stamp(warm, baked)
    return home


def _build(home: Path) -> None:
    try:
        (archive,) = fetch(HERE / "pom.xml", HERE / "zip.lock", CACHE / "zip")
    except LocalKafkaError as error:
        raise LocalKeycloakError(str(error)) from None
    _say("Building Keycloak ...")
    shutil.rmtree(home, ignore_errors=True)
    with zipfile.ZipFile(archive) as packed:
        (top,) = {name.partition("/")[0] for name in packed.namelist()}
        unpacked = CACHE / "unpacked"
        shutil.rmtree(unpacked, ignore_errors=True)
        packed.extractall(unpacked)
    (unpacked / top).rename(home)
    unpacked.rmdir()
    for program in (home / "bin").glob("*.sh"):
        program.chmod(0o755)
    _run([str(home / "bin" / "kc.sh"), "build", *BUILD_OPTIONS])


def _run(command: Sequence[str]) -> None:
    # A script's Java outlives it unless both are ended, as one group.
    process = subprocess.Popen(
        command,
        env=_environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        said, _ = process.communicate(timeout=BUILT_WITHIN_S)
    except subprocess.TimeoutExpired:
        raise LocalKeycloakError(f"Keycloak was not built in {BUILT_WITHIN_S:g} s") from None
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    if process.returncode != 0:
        raise LocalKeycloakError(f"Keycloak could not be built: {said[-800:]}")


def _bake(home: Path, warm: Path) -> None:
    _say("Making Keycloak's database ...")
    shutil.rmtree(warm, ignore_errors=True)
    realms = home / "data" / "import"
    realms.mkdir(parents=True, exist_ok=True)
    shutil.copy(REALM_FILE, realms / REALM_FILE.name)
    first = Keycloak(warm, options=("--import-realm",))
    try:
        first.begin(home)
        first.await_ready()
        first.stop()
    finally:
        first.kill()


class Keycloak:
    """One Keycloak on a database and port of its own: start, stop, and start it again."""

    def __init__(self, folder: Path, port: int | None = None, options: tuple[str, ...] = ()):
        """folder: of this one alone; what is in it is kept. port: a free one when None."""
        self.folder = folder
        self.port = free_port() if port is None else port
        self.url = f"http://{HOST}:{self.port}"
        self.log_path = folder / "keycloak.log"
        self._options = options
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def issuer(self) -> str:
        """What its tokens have as `iss`."""
        return f"{self.url}/realms/{REALM}"

    @property
    def is_running(self) -> bool:
        """Whether its process lives."""
        return self._process is not None and self._process.poll() is None

    @property
    def log(self) -> str:
        """The end of what it printed."""
        text = self.log_path.read_text("utf-8", "replace") if self.log_path.exists() else ""
        return text[-LOG_SHOWN_CHARS:]

    def start(self) -> None:
        """Start it, and wait until the realm answers. Raises LocalKeycloakError."""
        home = install()
        if not (self.folder / "h2").exists():
            shutil.copytree(CACHE / "warm" / "h2", self.folder / "h2")
        try:
            self.begin(home)
            self.await_ready()
        except BaseException:
            self.kill()
            raise

    def begin(self, home: Path) -> None:
        """Start the process; it is not ready yet. home: Keycloak's own folder."""
        assert not self.is_running, "Keycloak runs already"
        self.folder.mkdir(parents=True, exist_ok=True)
        command = [str(home / "bin" / "kc.sh"), "start", "--optimized", *self._options]
        command += ["--http-enabled=true", "--hostname-strict=false", "--cache=local"]
        command += [f"--http-host={HOST}", f"--http-port={self.port}"]
        database = f"jdbc:h2:file:{self.folder.resolve()}/h2/keycloakdb;{DATABASE_OPTIONS}"
        with self.log_path.open("ab") as log:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=_environment() | {"KC_DB_URL": database},
                start_new_session=True,
            )
        atexit.register(self.kill)

    def await_ready(self) -> None:
        """Wait until the realm answers."""
        deadline = time.monotonic() + STARTED_WITHIN_S
        while not self._answers():
            self.refuse_if_ended()
            if time.monotonic() > deadline:
                raise LocalKeycloakError(f"Keycloak does not answer; its log ends:\n{self.log}")
            time.sleep(POLL_S)

    def _answers(self) -> bool:
        url = f"{self.issuer}/.well-known/openid-configuration"
        try:
            with urllib.request.urlopen(url, timeout=CALL_S_MAX) as answer:
                found = json.loads(answer.read(ANSWER_BYTES_MAX))
        except (OSError, ValueError):
            return False
        return bool(found.get("issuer") == self.issuer)

    def refuse_if_ended(self) -> None:
        """Raise LocalKeycloakError when the process has ended by itself."""
        if not self.is_running:
            raise LocalKeycloakError(f"Keycloak ended; its log ends:\n{self.log}")

    def freeze(self) -> None:
        """SIGSTOP both: it takes connections, and answers nothing."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """SIGCONT both."""
        self._signal(signal.SIGCONT)

    def stop(self) -> None:
        """SIGTERM to the script and to its Java, and SIGKILL when that does not end them."""
        self.thaw()
        self._signal(signal.SIGTERM)
        if self._process is not None:
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(STOPPED_WITHIN_S)
        deadline = time.monotonic() + STOPPED_WITHIN_S
        while listens(self.port) and time.monotonic() < deadline:
            time.sleep(POLL_S)
        self.kill()

    def kill(self) -> None:
        """SIGKILL both. Killing twice is harmless."""
        self._signal(signal.SIGKILL)
        if self._process is not None:
            self._process.wait(STOPPED_WITHIN_S)
        atexit.unregister(self.kill)

    def _signal(self, number: signal.Signals) -> None:
        # The script may have gone while its Java lives: the group is theirs alone.
        if self._process is not None:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, number)


def _environment() -> dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("KC_", "JAVA_OPTS"))}
    return kept | {
        "JAVA_OPTS_APPEND": JAVA_OPTIONS,
        "JAVA_OPTS_KC_HEAP": HEAP,
        "KC_BOOTSTRAP_ADMIN_USERNAME": ADMIN,
        "KC_BOOTSTRAP_ADMIN_PASSWORD": ADMIN_PASSWORD,
    }


def _java_version() -> str:
    try:
        program = java()
    except LocalKafkaError:
        raise LocalKeycloakError("Keycloak needs Java 17 or newer; install it") from None
    return subprocess.run([program, "-version"], capture_output=True, text=True, check=True).stderr


def _digest(*parts: Path | str) -> str:
    texts = [part.read_text("utf-8") if isinstance(part, Path) else part for part in parts]
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()


def _stamped(folder: Path, digest: str) -> bool:
    stamp = folder / "complete"
    return stamp.exists() and stamp.read_text("utf-8") == digest


def _stamp(folder: Path, digest: str) -> None:
    (folder / "complete").write_text(digest, "utf-8")


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def main() -> None:
    """Run Keycloak in the foreground until Ctrl-C."""
    parser = argparse.ArgumentParser(
        prog="deploy/scripts/keycloak",
        description="Runs Keycloak on this machine, to try sign-in to muniment. Ctrl-C stops it.",
    )
    parser.add_argument("--port", type=int, default=PORT, help=f"default: {PORT}")
    parser.add_argument(
        "--data-dir",
        type=Path,
        default=Path("muniment-keycloak"),
        help="default: ./muniment-keycloak; without the folder it begins with realm.json again",
    )
    parser.add_argument("--install-only", action="store_true", help="fetch what is needed, and end")
    chosen = parser.parse_args()
    # Also while it is installed: what it has started must not outlive it.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        install()
        if not chosen.install_only:
            _serve(chosen.data_dir, chosen.port)
    except LocalKeycloakError as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit(130)


def _serve(data_dir: Path, port: int) -> None:
    if listens(port):
        raise LocalKeycloakError(f"port {port} is in use; choose another by --port")
    keycloak = Keycloak(data_dir.resolve(), port)
    try:
        keycloak.start()
        print(_told(keycloak, data_dir), flush=True)
        while True:
            time.sleep(1)
            keycloak.refuse_if_ended()
    finally:
        keycloak.stop()


def _told(keycloak: Keycloak, data_dir: Path) -> str:
    realm = json.loads(REALM_FILE.read_text("utf-8"))
    users = "".join(
        f"  {user['username']}, password {user['credentials'][0]['value']}, "
        f"of {', '.join(group.strip('/') for group in user['groups'])}\n"
        for user in realm["users"]
    )
    return (
        f"Keycloak is {keycloak.issuer}, with its data in {data_dir}\n{users}"
        f"  {ADMIN}, password {ADMIN_PASSWORD}, of Keycloak itself: {keycloak.url}/admin\n"
        f"  ./deploy/scripts/serve --issuer {keycloak.issuer} --audience muniment "
        "--admin-group ml-admins --login-client muniment --cli-client muniment-cli"
    )


if __name__ == "__main__":
    main()

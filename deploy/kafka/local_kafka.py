"""Kafka brokers on this machine, for trying muniment out and for its tests. Not for production.

Brokers run from the jars of Apache Kafka, without containers: `install` has Maven fetch them into
`.cache/kafka`, compares each with its hash in `jars.lock`, and makes an archive of loaded classes
that halves a broker's start. A machine needs Java 17 or newer, and Maven for the first time.

`python local_kafka.py --help` is `deploy/scripts/kafka`.
"""

from __future__ import annotations

import argparse
import atexit
import fcntl
import hashlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

HERE = Path(__file__).resolve().parent
CACHE = HERE.parents[1] / ".cache" / "kafka"
HOST = "127.0.0.1"
CLUSTER_ID = "MkU3OEVBNTcwNTJENDM2Qk"
"""Any 22 characters of base64; brokers of one cluster share it."""

JAVA_OPTIONS = ("-Xmx384m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1")
"""For a quick start: with the server compiler and a large heap it takes five times as long."""

LOAD_JAVA_OPTIONS = ("-Xms512m", "-Xmx1g")
"""For benchmarks: slower to start, quicker under load."""

STARTED_WITHIN_S = 90.0
STOPPED_WITHIN_S = 20.0
ARCHIVED_WITHIN_S = 120.0
"""A broker that writes its class archive when it ends takes so long at most."""
INSTALL_S_MAX = 600.0
POLL_S = 0.05
LOG_SHOWN_CHARS = 6_000


class LocalKafkaError(Exception):
    """Something is missing, or a broker did not start; the message says what to do."""


def java() -> str:
    """The Java to run brokers with. Raises LocalKafkaError."""
    found = shutil.which("java")
    if found is None:
        install_packages("default-jre-headless")
        found = shutil.which("java")
    if found is None:
        raise LocalKafkaError("Kafka needs Java 17 or newer; install it, so that `java` is found")
    return found


def install(
    pom: Path = HERE / "pom.xml", lock: Path = HERE / "jars.lock", into: Path = CACHE / "libs"
) -> list[Path]:
    """The files that a pom names, fetched if they are not there; sorted, every one as locked.

    Safe for several processes at once. Raises LocalKafkaError.
    """
    wanted = dict(
        line.split() for line in lock.read_text("utf-8").splitlines() if line and line[0] != "#"
    )
    into.parent.mkdir(parents=True, exist_ok=True)
    with only_one(into.with_suffix(".lock")):
        stamp = into / "complete"
        text = lock.read_text("utf-8")
        if not (stamp.exists() and stamp.read_text("utf-8") == text):
            _fetch(pom, lock, wanted, into)
            stamp.write_text(text, "utf-8")
    return sorted(into / name for name in wanted)


def _fetch(pom: Path, lock: Path, wanted: Mapping[str, str], into: Path) -> None:
    print(f"Fetching {len(wanted)} files with Maven ...", file=sys.stderr, flush=True)
    if shutil.which("mvn") is None:
        install_packages("maven", "default-jre-headless")
    if shutil.which("mvn") is None:
        raise LocalKafkaError("fetching them needs Maven once; install it, so that `mvn` is found")
    shutil.rmtree(into, ignore_errors=True)
    with tempfile.TemporaryDirectory(dir=into.parent) as folder:
        copied = shutil.copy(pom, folder)
        command = ["mvn", "-B", "-q", "-f", copied, "dependency:copy-dependencies"]
        command += [f"-DoutputDirectory={into}", "-DincludeScope=runtime"]
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=INSTALL_S_MAX, check=False
        )
    if done.returncode != 0:
        raise LocalKafkaError(f"Maven could not fetch them: {(done.stdout + done.stderr)[-800:]}")
    found = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in into.iterdir()}
    if found != wanted:
        odd = sorted(name for name in found.keys() | wanted if found.get(name) != wanted.get(name))
        raise LocalKafkaError(f"these are not the ones that {lock} names: {', '.join(odd)}")


def install_packages(*names: str) -> None:
    """Install Debian's packages where that can be done: on a fresh machine, or in CI."""
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        return
    print(f"Installing {', '.join(names)} ...", file=sys.stderr, flush=True)
    for command in (["update"], ["install", "-y", "--no-install-recommends", *names]):
        subprocess.run(
            ["apt-get", "-qq", *command],
            check=False,
            stdout=subprocess.DEVNULL,
            timeout=INSTALL_S_MAX,
        )


@contextmanager
def only_one(lock: Path) -> Iterator[None]:
    """One process at a time, by a file that is locked."""
    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


class Broker:
    """One broker (and controller) process: start, kill, freeze, stop, and start it again."""

    def __init__(
        self,
        node: int,
        folder: Path,
        properties: Mapping[str, str],
        java_options: Sequence[str] = JAVA_OPTIONS,
        format_options: Sequence[str] = (),
    ) -> None:
        """folder: of this broker alone. properties: what `server.properties` says beside its own.

        format_options: for Kafka's storage tool, as `--add-scram`.
        """
        self.node = node
        self.folder = folder
        self.log_path = folder / "broker.log"
        self._properties = properties
        self._java_options = tuple(java_options)
        self._format_options = tuple(format_options)
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def is_running(self) -> bool:
        """Whether its process lives (frozen or not)."""
        return self._process is not None and self._process.poll() is None

    @property
    def log(self) -> str:
        """The end of what it printed."""
        text = self.log_path.read_text("utf-8", "replace") if self.log_path.exists() else ""
        return text[-LOG_SHOWN_CHARS:]

    def begin(self) -> None:
        """Start the process; it is not ready yet."""
        assert not self.is_running, f"broker {self.node} runs already"
        self.folder.mkdir(parents=True, exist_ok=True)
        settings = self.folder / "server.properties"
        lines = {"node.id": str(self.node), "log.dirs": str(self.folder / "data")}
        lines |= self._properties
        settings.write_text("".join(f"{k}={v}\n" for k, v in lines.items()), "utf-8")
        if not (self.folder / "data" / "meta.properties").exists():
            self._format(settings)
        command = [java(), *self._java_options, *_archive(self._java_options)]
        command += [f"-Dlog4j2.configurationFile={HERE / 'log4j2.properties'}"]
        command += [f"-D{k}={v}" for k, v in self._system_properties().items()]
        command += ["-cp", _class_path(), "kafka.Kafka", str(settings)]
        with self.log_path.open("ab") as log:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        atexit.register(self.kill)

    def _system_properties(self) -> dict[str, str]:
        urls = [v for k, v in self._properties.items() if k.endswith("jwks.endpoint.url")]
        return {"org.apache.kafka.sasl.oauthbearer.allowed.urls": ",".join(urls)} if urls else {}

    def _format(self, settings: Path) -> None:
        kept = CACHE / f"formatted-{self.node}"
        if self._format_options:
            _run_tool("kafka.tools.StorageTool", "format", "-t", CLUSTER_ID, "-c", str(settings),
                      *self._format_options)  # fmt: skip
            return
        with only_one(CACHE / "formatted.lock"):
            if not kept.exists():
                _run_tool(
                    "kafka.tools.StorageTool", "format", "-t", CLUSTER_ID, "-c", str(settings)
                )
                shutil.copytree(self.folder / "data", kept)
                return
        shutil.copytree(kept, self.folder / "data")

    def kill(self) -> None:
        """SIGKILL; nothing is written any more. Killing twice is harmless."""
        self._signal(signal.SIGKILL)
        if self._process is not None:
            self._process.wait(STOPPED_WITHIN_S)
        atexit.unregister(self.kill)

    def freeze(self) -> None:
        """SIGSTOP: it holds its connections and answers nothing."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """SIGCONT."""
        self._signal(signal.SIGCONT)

    def stop(self, within_s: float = STOPPED_WITHIN_S) -> None:
        """SIGTERM, and SIGKILL when that does not end it in time."""
        if self._process is None:
            return
        self.thaw()
        self._signal(signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(within_s)
        self.kill()

    def _signal(self, number: signal.Signals) -> None:
        if self.is_running:
            assert self._process is not None
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, number)

    def refuse_if_ended(self) -> None:
        """Raise LocalKafkaError when the process has ended by itself."""
        if self._process is not None and self._process.poll() is not None:
            raise LocalKafkaError(f"broker {self.node} ended; the end of its log:\n{self.log}")


class Cluster:
    """Brokers 1 to n of one KRaft cluster, each a controller too, on ports of this machine."""

    def __init__(
        self,
        folder: Path,
        brokers: int = 1,
        ports: Sequence[int] | None = None,
        properties: Mapping[str, str] | None = None,
        java_options: Sequence[str] = JAVA_OPTIONS,
        format_options: Sequence[str] = (),
    ) -> None:
        """ports: of the brokers' listeners, free ones when None; controllers get free ones.

        properties: added to, or in the place of, those of every broker; `{port}` and `{controller}`
        in a value are the broker's ports.
        """
        self.folder = folder
        self.ports = list(ports) if ports is not None else [free_port() for _ in range(brokers)]
        controllers = [free_port() for _ in range(brokers)]
        voters = ",".join(f"{n + 1}@{HOST}:{port}" for n, port in enumerate(controllers))
        self.brokers = {}
        for index in range(brokers):
            own = _properties(self.ports[index], controllers[index], voters, brokers)
            own |= {
                name: value.format(port=self.ports[index], controller=controllers[index])
                for name, value in (properties or {}).items()
            }
            node = index + 1
            self.brokers[node] = Broker(
                node, folder / f"broker-{node}", own, java_options, format_options
            )

    @property
    def bootstrap(self) -> str:
        """What clients begin with: HOST:PORT,…"""
        return ",".join(f"{HOST}:{port}" for port in self.ports)

    def start(self) -> None:
        """Start all and wait until they listen. Raises LocalKafkaError with a log's end."""
        install()
        try:
            for broker in self.brokers.values():
                if not broker.is_running:
                    broker.begin()
            for node in self.brokers:
                self.await_listening(node)
        except BaseException:
            self.stop(at_once=True)
            raise

    def restart(self, node: int) -> None:
        """Start one again on its data and port, and wait until it listens."""
        self.brokers[node].begin()
        self.await_listening(node)

    def await_listening(self, node: int) -> None:
        """Wait until a broker takes connections."""
        deadline = time.monotonic() + STARTED_WITHIN_S
        while not listens(self.ports[node - 1]):
            self.brokers[node].refuse_if_ended()
            if time.monotonic() > deadline:
                log = self.brokers[node].log
                raise LocalKafkaError(f"broker {node} does not listen; the end of its log:\n{log}")
            time.sleep(POLL_S)

    def stop(self, at_once: bool = False) -> None:
        """Stop all; at_once: without letting them tidy up."""
        for broker in self.brokers.values():
            if at_once:
                broker.kill()
            else:
                broker.stop()


def _properties(port: int, controller: int, voters: str, brokers: int) -> dict[str, str]:
    copies = min(3, brokers)
    return {
        "process.roles": "broker,controller",
        "controller.quorum.voters": voters,
        "listeners": f"PLAINTEXT://{HOST}:{port},CONTROLLER://{HOST}:{controller}",
        "advertised.listeners": f"PLAINTEXT://{HOST}:{port}",
        "controller.listener.names": "CONTROLLER",
        "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
        "inter.broker.listener.name": "PLAINTEXT",
        "auto.create.topics.enable": "false",
        "unclean.leader.election.enable": "false",
        "default.replication.factor": str(copies),
        "min.insync.replicas": str(min(2, copies)),
        "offsets.topic.num.partitions": "1",
        "offsets.topic.replication.factor": str(copies),
        "transaction.state.log.num.partitions": "1",
        "transaction.state.log.replication.factor": str(copies),
        "transaction.state.log.min.isr": str(min(2, copies)),
        "share.coordinator.state.topic.replication.factor": str(copies),
        "share.coordinator.state.topic.min.isr": str(min(2, copies)),
        "group.initial.rebalance.delay.ms": "0",
        # A broker that dies is noticed within seconds, as tests of failures want it.
        "broker.heartbeat.interval.ms": "500",
        "broker.session.timeout.ms": "3000",
        "replica.lag.time.max.ms": "5000",
    }


def free_port() -> int:
    """A TCP port of the loopback interface that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port = probe.getsockname()[1]
    assert isinstance(port, int)
    return port


def listens(port: int) -> bool:
    """Whether something takes connections on a port of the loopback interface."""
    with socket.socket() as probe:
        probe.settimeout(1.0)
        return probe.connect_ex((HOST, port)) == 0


def _class_path() -> str:
    # In the same order always: the archive of classes is good for exactly this path.
    return os.pathsep.join(str(path) for path in install())


def _archive(java_options: Sequence[str]) -> list[str]:
    """The options by which Java uses the archive of loaded classes, which halves a start."""
    if tuple(java_options) != JAVA_OPTIONS:
        return []
    # In the archive stand the classes of one Java and one class path.
    archive = CACHE / f"classes-{hashlib.sha256(_java_version().encode()).hexdigest()[:12]}.jsa"
    with only_one(archive.with_suffix(".lock")):
        if not archive.exists():
            _make_archive(archive)
    return [f"-XX:SharedArchiveFile={archive}"]


def _make_archive(archive: Path) -> None:
    # Java writes it when a broker that was told to has ended properly.
    unfinished = archive.with_suffix(".new")
    options = (*JAVA_OPTIONS, f"-XX:ArchiveClassesAtExit={unfinished}")
    with tempfile.TemporaryDirectory() as folder:
        cluster = Cluster(Path(folder), java_options=options)
        cluster.start()
        for broker in cluster.brokers.values():
            broker.stop(ARCHIVED_WITHIN_S)
    if not unfinished.exists():
        raise LocalKafkaError(f"Java did not write {unfinished}")
    unfinished.replace(archive)


def _java_version() -> str:
    return subprocess.run([java(), "-version"], capture_output=True, text=True, check=True).stderr


def _run_tool(*arguments: str) -> None:
    command = [java(), *JAVA_OPTIONS, "-cp", _class_path(), *arguments]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=STARTED_WITHIN_S, check=False
    )
    if done.returncode != 0:
        raise LocalKafkaError(f"{arguments[0]} failed: {(done.stdout + done.stderr)[-800:]}")


def main() -> None:
    """Run brokers in the foreground until Ctrl-C."""
    parser = argparse.ArgumentParser(
        prog="deploy/scripts/kafka",
        description="Runs Kafka on this machine, to try muniment on it. Ctrl-C stops it.",
    )
    parser.add_argument("--brokers", type=int, default=1, choices=(1, 3), help="default: 1")
    parser.add_argument("--port", type=int, default=9092, help="of the first broker (9092)")
    parser.add_argument(
        "--data-dir", type=Path, default=Path("muniment-kafka"), help="default: ./muniment-kafka"
    )
    parser.add_argument("--install-only", action="store_true", help="fetch what is needed, and end")
    chosen = parser.parse_args()
    try:
        install()
        _archive(JAVA_OPTIONS)
        if not chosen.install_only:
            _serve(chosen.data_dir, chosen.brokers, chosen.port)
    except LocalKafkaError as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit(130)


def _serve(data_dir: Path, brokers: int, port: int) -> None:
    ports = [port + index for index in range(brokers)]
    for taken in filter(listens, ports):
        raise LocalKafkaError(f"port {taken} is in use; choose another by --port")
    cluster = Cluster(data_dir.resolve(), brokers, ports)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    try:
        cluster.start()
        print(
            f"Kafka listens on {cluster.bootstrap}, with its data in {data_dir}\n"
            f"  ./deploy/scripts/serve --kafka-bootstrap {cluster.bootstrap}",
            flush=True,
        )
        while True:
            time.sleep(1)
            for broker in cluster.brokers.values():
                broker.refuse_if_ended()
    finally:
        cluster.stop()


if __name__ == "__main__":
    main()

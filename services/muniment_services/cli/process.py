"""The serving process: its socket, its log lines, and what it says at its start and end."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from types import FrameType

import structlog
import uvicorn

from muniment_auth.issuers import Issuer
from muniment_services import bootstrap, instance
from muniment_services.api.app import build
from muniment_services.api.hosts import HostCheck
from muniment_services.clock import now_ms
from muniment_services.config import ConfigError, Settings
from muniment_services.metrics import Metrics
from muniment_services.release import release
from muniment_services.startup import DRAINING, Startup

BACKLOG = 2048
KEEP_ALIVE_S = 65

SWITCH_INTERVAL_S = 0.0005
"""How long a busy thread keeps the interpreter from others. With Python's 5 ms, the log's writer
and readers beside a busy event loop wait most of their time (reading was ten times slower)."""

EVERY_ADDRESS: Mapping[str, str] = {"0.0.0.0": "127.0.0.1", "::": "::1"}
"""Where this machine reaches a listener on every address."""

DRAIN_POLL_S = 0.05

DEMO_MODULE = "muniment_services.cli.demo"


def run(settings: Settings, demo: bool) -> None:
    """Listen and serve until SIGINT or SIGTERM.

    Raises ConfigError when the address cannot be had, and what a failed start raised.
    """
    signal.signal(signal.SIGTERM, _end)
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    startup, metrics = Startup(), Metrics(settings.log)
    listener = _listen(settings)
    verifier = bootstrap.authenticator(settings)
    hosts = HostCheck((*settings.allowed_hosts, settings.host))
    config = uvicorn.Config(
        build(
            lambda: bootstrap.services(settings, startup, metrics, verifier),
            hosts,
            bootstrap.callers(verifier),
            startup,
            metrics,
            settings.workspaces,
            bootstrap.recording(settings),
        ),
        loop="uvloop",
        http="httptools",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,  # Whom to believe about clients is a setting of ours.
        backlog=BACKLOG,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=settings.shutdown_s,
    )
    try:
        _Server(config, listener, settings, startup, demo).run(sockets=[listener])
    finally:
        # In the place of uvicorn's own exit, which says nothing.
        if startup.failure is not None:
            raise startup.failure from None


def _end(_: int, __: FrameType | None) -> None:
    # uvicorn stops at SIGTERM and sends it on when it has; that is a proper end.
    sys.exit(0)


class _Server(uvicorn.Server):
    # Says where it listens once it does, for people and for other commands.
    def __init__(
        self,
        config: uvicorn.Config,
        listener: socket.socket,
        settings: Settings,
        startup: Startup,
        demo: bool,
    ) -> None:
        super().__init__(config)
        self._listener = listener
        self._settings = settings
        self._startup = startup
        self._demo = demo
        self._demo_task: asyncio.Task[None] | None = None
        startup.on_serving = self._announce
        startup.on_failure = self._give_up

    def _give_up(self) -> None:
        self.should_exit = True

    def _announce(self) -> None:
        url = _url(self._settings.host, self._listener.getsockname()[1])
        now = instance.Instance(url=url, pid=os.getpid(), version=release(), started_at_ms=now_ms())
        instance.publish(self._settings.data_dir, now)
        print(
            f"muniment serves {url} from {self._settings.data_dir}\n"
            f"  export MLFLOW_TRACKING_URI={url}",
            flush=True,
        )
        for line in who_may_call(self._settings.all_issuers()):
            print(f"  {line}", flush=True)
        if self._demo:
            self._demo_task = asyncio.create_task(_log_demo(url, str(self._settings.data_dir)))

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        if self._demo_task is not None:
            self._demo_task.cancel()
        if self._startup.is_serving:
            self._startup.enter(DRAINING)
            await self._drain()
        self._startup.stop()
        await super().shutdown(sockets)
        instance.withdraw(self._settings.data_dir, os.getpid())

    async def _drain(self) -> None:
        # A load balancer sees that we are not ready, and turns away before connections are refused.
        ends = asyncio.get_running_loop().time() + self._settings.drain_s
        # uvicorn notes a second signal in a plain attribute.
        while asyncio.get_running_loop().time() < ends and not self.force_exit:  # noqa: ASYNC110
            await asyncio.sleep(DRAIN_POLL_S)


def who_may_call(issuers: Sequence[Issuer]) -> Iterator[str]:
    """Lines for people, one for each issuer. Secrets are in none."""
    if not issuers:
        yield "Nobody signs in: every caller is the local user. See --issuer."
    for issuer in issuers:
        admins = "" if issuer.admin_group is None else f"; admins: group {issuer.admin_group}"
        by_browser = "" if issuer.client_id is None else ", and by browser at /login"
        yield f"Callers sign in by tokens of {issuer.url}{by_browser}{admins}"


async def _log_demo(url: str, data_dir: str) -> None:
    command = (sys.executable, "-m", DEMO_MODULE, url, data_dir)
    process = await asyncio.create_subprocess_exec(*command)
    try:
        if await process.wait() != 0:
            print("muniment: the demo run failed; the server goes on.", file=sys.stderr, flush=True)
    except asyncio.CancelledError:
        with suppress(ProcessLookupError):
            process.kill()
        raise


def _url(host: str, port: int) -> str:
    address = EVERY_ADDRESS.get(host, host)
    return f"http://[{address}]:{port}" if ":" in address else f"http://{address}:{port}"


def _listen(settings: Settings) -> socket.socket:
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    listener = socket.socket(family)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((settings.host, settings.port))
    except OSError as error:
        listener.close()
        other = instance.find(settings.data_dir)
        if other is not None and other.url == _url(settings.host, settings.port):
            raise ConfigError(
                f"process {other.pid} serves {settings.data_dir} at {other.url} already."
            ) from None
        raise ConfigError(
            f"cannot listen on {settings.host}:{settings.port}: {error.strerror or error}. "
            "Choose another --port (0 picks a free one)."
        ) from None
    return listener


def configure_logging(level: str) -> None:
    """JSON lines on stderr, for uvicorn's messages too."""
    number = logging.getLevelNamesMapping()[level.upper()]
    shared: list[structlog.types.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    structlog.configure(
        processors=[
            *shared,
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
    logging.basicConfig(stream=sys.stderr, level=max(number, logging.WARNING), force=True)
    # kafka-python writes a line for every connection that is refused; what matters of it is told
    # by the log that uses it.
    logging.getLogger("kafka").propagate = number <= logging.DEBUG

"""`muniment serve`: run the server."""

from __future__ import annotations

import logging
import socket
import sys
from pathlib import Path
from typing import Annotated, Any

import structlog
import uvicorn
from cyclopts import Parameter

from muniment_services import bootstrap
from muniment_services.api.app import build
from muniment_services.api.gateway import Gateway
from muniment_services.api.hosts import HostCheck
from muniment_services.config import ConfigError, Settings, environment, load, refuse_open_network

BACKLOG = 2048
KEEP_ALIVE_S = 65


def serve(
    *,
    host: Annotated[str | None, Parameter(help="Address to listen on. Default: 127.0.0.1.")] = None,
    port: Annotated[int | None, Parameter(help="Port; 0 picks a free one. Default: 5000.")] = None,
    data_dir: Annotated[
        Path | None, Parameter(help="Folder that holds everything. Default: ./muniment-data.")
    ] = None,
    allowed_hosts: Annotated[
        list[str] | None, Parameter(help="Names that the server is known by, besides localhost.")
    ] = None,
    allow_unauthenticated_network_access: Annotated[
        bool | None, Parameter(help="Listen beyond loopback although nobody has to sign in.")
    ] = None,
    log_level: Annotated[
        str | None, Parameter(help="debug, info, warning or error. Default: info.")
    ] = None,
    config: Annotated[Path | None, Parameter(help="TOML file with settings.")] = None,
) -> None:
    """Serve MLflow's tracking and registry API, with every write kept as an event.

    Any MLflow client can use it: set `MLFLOW_TRACKING_URI` to the URL that is printed at the start.
    """
    flags: dict[str, Any] = {
        "host": host,
        "port": port,
        "data_dir": data_dir,
        "allowed_hosts": None if allowed_hosts is None else tuple(allowed_hosts),
        "allow_unauthenticated_network_access": allow_unauthenticated_network_access,
        "log_level": log_level,
    }
    given = {name: value for name, value in flags.items() if value is not None}
    settings = load(given, environment(), config).settings
    refuse_open_network(settings)
    configure_logging(settings.log_level)
    run(settings)


def run(settings: Settings) -> None:
    """Listen and serve until SIGINT or SIGTERM."""
    principal = bootstrap.local_user()
    hosts = HostCheck((*settings.allowed_hosts, settings.host))
    application = build(lambda: bootstrap.services(settings), hosts, principal)
    listener = _listen(settings)
    config = uvicorn.Config(
        application,
        loop="uvloop",
        http="httptools",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        backlog=BACKLOG,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=settings.shutdown_s,
    )
    _Server(config, application, listener, settings).run(sockets=[listener])


class _Server(uvicorn.Server):
    # Says where it listens once it does, and fails loudly when the start failed.
    def __init__(
        self,
        config: uvicorn.Config,
        application: Gateway,
        listener: socket.socket,
        settings: Settings,
    ) -> None:
        super().__init__(config)
        self._application = application
        self._listener = listener
        self._settings = settings

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            port = self._listener.getsockname()[1]
            url = f"http://{self._settings.host}:{port}"
            print(
                f"muniment serves {url} from {self._settings.data_dir}\n"
                f"  export MLFLOW_TRACKING_URI={url}",
                flush=True,
            )


def _listen(settings: Settings) -> socket.socket:
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    listener = socket.socket(family)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((settings.host, settings.port))
    except OSError as error:
        raise ConfigError(
            f"cannot listen on {settings.host}:{settings.port}: {error.strerror}. "
            "Choose another --port (0 picks a free one)."
        ) from None
    return listener


def configure_logging(level: str) -> None:
    """JSON lines on stderr, for uvicorn's messages too."""
    number = logging.getLevelNamesMapping().get(level.upper(), logging.INFO)
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

"""The two MLflow plugins: `MLFLOW_TRACKING_AUTH=muniment`, and our part of the User-Agent.

MLflow asks for the methods below by name, so nothing of MLflow is needed to define them; it makes
one instance of each when it is loaded, which does no work.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from muniment_client.auth import MunimentAuth

NAME = "muniment"


class MunimentAuthProvider:
    """MLflow's request_auth_provider of this name."""

    def __init__(self) -> None:
        self._auth: MunimentAuth | None = None

    def get_name(self) -> str:
        """The value of MLFLOW_TRACKING_AUTH that chooses this provider."""
        return NAME

    def get_auth(self) -> MunimentAuth:
        """The authentication of all requests of this process."""
        auth = self._auth
        if auth is None:
            from muniment_client.auth import MunimentAuth

            # Two threads may both make one: they store their tokens in the same files.
            auth = self._auth = MunimentAuth(_servers)
        return auth


class MunimentHeaderProvider:
    """Says in the User-Agent that this plugin is at work.

    MLflow gives these headers to every host that it calls, so nothing else belongs here: keys and
    trace parents are put on by MunimentAuth, which sees where a request goes.
    """

    def __init__(self) -> None:
        self._headers: dict[str, str] | None = None

    def in_context(self) -> bool:
        """Whether the plugin is at work."""
        return os.environ.get("MLFLOW_TRACKING_AUTH") == NAME

    def request_headers(self) -> dict[str, str]:
        """MLflow appends this to its own User-Agent."""
        if self._headers is None:
            from importlib.metadata import version

            self._headers = {"User-Agent": f"muniment-client/{version('muniment-client')}"}
        return dict(self._headers)


def _servers() -> Iterator[str]:
    from mlflow.tracking import get_registry_uri, get_tracking_uri

    yield get_tracking_uri()
    yield get_registry_uri()
    if named := os.environ.get("MUNIMENT_SERVER"):
        yield named

"""A running server, as other commands talk to it."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from muniment_services import instance
from muniment_services.cli.terminal import CliError

CALL_S = 600.0
"""Longest a call may take; a digest of large projections reads every row."""


REFUSED = 400
"""The least HTTP status of a refusal."""


class Client:
    """JSON calls to one server."""

    def __init__(self, url: str) -> None:
        """url: where the server listens, as http://127.0.0.1:5000."""
        if not url.startswith(("http://", "https://")):
            raise CliError(f"--url {url} is not a URL such as http://127.0.0.1:5000", 2)
        self._url = url.rstrip("/")
        # A proxy that the environment names is for the world, not for a server of one's own.
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def call(self, method: str, path: str) -> dict[str, Any]:
        """The answer's JSON object. Raises CliError when the server refuses or is not there."""
        status, found = self._exchange(method, path)
        if status >= REFUSED:
            raise CliError(f"{self._url} refuses: {found.get('message', f'HTTP status {status}')}")
        return found

    def probe(self, path: str) -> tuple[int, dict[str, Any]]:
        """Status and JSON object of a probe's answer, 503 included. Raises CliError."""
        return self._exchange("GET", path)

    def _exchange(self, method: str, path: str) -> tuple[int, dict[str, Any]]:
        request = urllib.request.Request(self._url + path, method=method)
        try:
            with self._opener.open(request, timeout=CALL_S) as answer:
                return answer.status, _object(answer.read())
        except urllib.error.HTTPError as error:
            return error.code, _object(error.read())
        except (urllib.error.URLError, TimeoutError, ConnectionError) as error:
            reason = getattr(error, "reason", error)
            raise CliError(f"{self._url} cannot be reached: {reason}") from None
        except json.JSONDecodeError:
            raise CliError(f"{self._url} is not a muniment server") from None


def server_of(data_dir: Path) -> Client | None:
    """The server that says it has the data folder, or None."""
    found = instance.find(data_dir)
    return None if found is None else Client(found.url)


def running_server_of(data_dir: Path) -> Client | None:
    """The server that has the data folder now, or None."""
    found = instance.find(data_dir)
    return Client(found.url) if found is not None and instance.runs(found.pid) else None


def _object(body: bytes) -> dict[str, Any]:
    found = json.loads(body)
    return found if isinstance(found, dict) else {}

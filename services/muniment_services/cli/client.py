"""A running server, as other commands talk to it."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from muniment_services import instance
from muniment_services.cli.terminal import CliError

CALL_S = 600.0
"""Longest a call may take; a digest of large projections reads every row."""

TOKEN_VARIABLES = ("MUNIMENT_TOKEN", "MLFLOW_TRACKING_TOKEN")
"""Where the environment may hold a token; the first that does counts."""

REFUSED = 300
"""The least HTTP status of a refusal. To be sent elsewhere is one: a token goes where it was told.
"""


class Client:
    """JSON calls to one server."""

    def __init__(self, url: str, token: str | None = None) -> None:
        """url: where the server listens, as http://127.0.0.1:5000.

        token: shown to it; if not given, the one that the environment holds, if any.
        """
        if not url.startswith(("http://", "https://")):
            raise CliError(f"--url {url} is not a URL such as http://127.0.0.1:5000", 2)
        self._url = url.rstrip("/")
        self._token = token or next(filter(None, map(os.environ.get, TOKEN_VARIABLES)), None)
        # A proxy that the environment names is for the world, not for a server of one's own.
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), _Stay)

    def call(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """The answer's JSON object. Raises CliError when the server refuses or is not there."""
        status, found = self._exchange(method, path, body)
        if status >= REFUSED:
            raise CliError(f"{self._url} refuses: {found.get('message', f'HTTP status {status}')}")
        return found

    def probe(self, path: str) -> tuple[int, dict[str, Any]]:
        """Status and JSON object of a probe's answer, 503 included. Raises CliError."""
        return self._exchange("GET", path)

    def fetch(
        self, path: str, body: Mapping[str, Any] | None = None
    ) -> tuple[bytes, Mapping[str, str]]:
        """An answer that is no JSON, and its headers by lower-case name. Raises CliError.

        body: what is posted; without one, the answer is got.
        """
        with self.opened(path, body) as answer:
            return answer.read(), {name.lower(): value for name, value in answer.headers.items()}

    def opened(self, path: str, body: Mapping[str, Any] | None = None) -> http.client.HTTPResponse:
        """The same, to be read piece by piece and closed. Raises CliError."""
        data = None if body is None else json.dumps(body).encode()
        return self._opened(self._request("GET" if data is None else "POST", path, data))

    def save(self, path: str, body: Mapping[str, Any], out: Path) -> Mapping[str, str]:
        """Have the answer to a POST as a file, whole or not at all; returns its headers by
        lower-case name. Raises CliError, OSError.
        """
        unfinished = out.with_name(f".{out.name}.unfinished")
        try:
            with self.opened(path, body) as answer, unfinished.open("wb") as file:
                shutil.copyfileobj(answer, file)
                headers = {name.lower(): value for name, value in answer.headers.items()}
            if unfinished.stat().st_size != int(headers.get("content-length", -1)):
                raise CliError(f"{self._url} broke off; try again")
            os.replace(unfinished, out)
        except http.client.HTTPException:
            raise CliError(f"{self._url} broke off; try again") from None
        finally:
            unfinished.unlink(missing_ok=True)
        return headers

    def events(self, path: str, last: str | None = None) -> Iterator[tuple[str, Any]]:
        """Server-sent events as (id, JSON), until the stream ends. last: the id to go on behind.

        Raises CliError when it is refused; a connection that breaks has ended.
        """
        request = self._request("GET", path)
        if last is not None:
            request.add_header("Last-Event-ID", last)
        place = ""
        with self._opened(request) as answer, suppress(OSError, http.client.HTTPException):
            for line in answer:
                name, _, value = line.decode().rstrip("\n").partition(": ")
                if name == "id":
                    place = value
                elif name == "data":
                    yield place, json.loads(value)

    def _opened(self, request: urllib.request.Request) -> http.client.HTTPResponse:
        try:
            answer: http.client.HTTPResponse = self._opener.open(request, timeout=CALL_S)
        except urllib.error.HTTPError as error:
            message = _refusal(error.read()).get("message", f"HTTP status {error.code}")
            raise CliError(f"{self._url} refuses: {message}") from None
        except (urllib.error.URLError, TimeoutError, ConnectionError) as error:
            reason = getattr(error, "reason", error)
            raise CliError(f"{self._url} cannot be reached: {reason}") from None
        return answer

    def _request(self, method: str, path: str, data: bytes | None = None) -> urllib.request.Request:
        request = urllib.request.Request(self._url + path, data, method=method)
        if data is not None:
            request.add_header("Content-Type", "application/json")
        if self._token is not None:
            # Not one that a redirect carries to another host.
            request.add_unredirected_header("Authorization", f"Bearer {self._token}")
        return request

    def _exchange(
        self, method: str, path: str, body: Mapping[str, Any] | None = None
    ) -> tuple[int, dict[str, Any]]:
        data = None if body is None else json.dumps(body).encode()
        request = self._request(method, path, data)
        try:
            with self._opener.open(request, timeout=CALL_S) as answer:
                return answer.status, _object(answer.read())
        except urllib.error.HTTPError as error:
            return error.code, _refusal(error.read())
        except (urllib.error.URLError, TimeoutError, ConnectionError) as error:
            reason = getattr(error, "reason", error)
            raise CliError(f"{self._url} cannot be reached: {reason}") from None
        except json.JSONDecodeError:
            raise CliError(f"{self._url} is not a muniment server") from None


def server_of(data_dir: Path, token: str | None = None) -> Client | None:
    """The server that says it has the data folder, or None."""
    found = instance.find(data_dir)
    return None if found is None else Client(found.url, token)


def running_server_of(data_dir: Path, token: str | None = None) -> Client | None:
    """The server that has the data folder now, or None. token: shown to it, if any."""
    found = instance.find(data_dir)
    return Client(found.url, token) if found is not None and instance.runs(found.pid) else None


class _Stay(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: object, **__: object) -> None:
        return None


def _refusal(body: bytes) -> dict[str, Any]:
    # Whoever stands before the server may refuse in words of its own.
    try:
        return _object(body)
    except ValueError:
        return {}


def _object(body: bytes) -> dict[str, Any]:
    found = json.loads(body)
    return found if isinstance(found, dict) else {}

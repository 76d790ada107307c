"""The `requests` authentication that MLflow puts on each of its calls.

It acts on requests to the user's own servers and leaves every other alone: artifact stores,
presigned URLs, redirect targets. requests calls it once for each logical request, before urllib3's
retries, so that all attempts carry the same stamps. A 401 is answered once: renew the token, send
the same request again.
"""

from __future__ import annotations

import logging
import os
import re
import threading
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any
from urllib.parse import urljoin

import requests
from requests.auth import AuthBase
from requests.utils import rewind_body

from muniment_client.cache import default_cache
from muniment_client.errors import CacheUnusable, ClientError, LoginNeeded, Refused
from muniment_client.origins import origin, server_url
from muniment_client.situation import find_source
from muniment_client.sources import Source
from muniment_client.stamps import OURS, Stamps

UNAUTHORIZED = 401
DESCRIPTION = re.compile(r'(error|error_description)="([^"]*)"')
AUTHORIZATION = "Authorization"

logger = logging.getLogger(__name__)


class MunimentAuth(AuthBase):
    """Signs and stamps requests to `servers`, and to servers with a stored sign-in."""

    def __init__(
        self,
        servers: Callable[[], Iterable[str]],
        environ: Mapping[str, str] = os.environ,
    ) -> None:
        """servers: the tracking and registry URIs as they are now, asked at each request."""
        self._servers = servers
        self._environ = environ
        self._stamps = Stamps(environ)
        self._lock = threading.Lock()
        self._sources: dict[str, Source] = {}
        self._process = os.getpid()

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        """Sign and stamp a request to one of the servers. Raises ClientError."""
        server = self._server_of(request.url or "")
        if server is None:
            return request
        self._stamps.stamp(request.method, request.headers)
        source, token = self._signed(server)
        if token is not None:
            request.headers[AUTHORIZATION] = f"Bearer {token}"
        request.register_hook("response", partial(self._answered, server, source, token))
        return request

    def _server_of(self, url: str) -> str | None:
        asked = origin(url)
        if not asked:
            return None
        for server in self._servers():
            if origin(server) == asked:
                return server_url(server)
        try:
            stored = default_cache(self._environ).all()
        except CacheUnusable as error:
            logger.warning("%s", error)
            return None
        return next((one.server for one in stored if origin(one.server) == asked), None)

    def _signed(self, server: str) -> tuple[Source | None, str | None]:
        """The source and its token; a sign-in that has ended gives way to a new one."""
        source = self._source(server)
        if source is None:
            return None, None
        try:
            return source, source.token()
        except LoginNeeded:
            self._forget(server)
            again = self._source(server)
            if again is None:
                raise
            return again, again.token()

    def _source(self, server: str) -> Source | None:
        with self._lock_of_this_process():
            source = self._sources.get(server)
            if source is None:
                source = find_source(server, self._environ)
                if source is not None:
                    self._sources[server] = source
            return source

    def _lock_of_this_process(self) -> threading.Lock:
        # A fork copies locks that a thread of the parent may hold, and that thread is not here.
        if self._process != os.getpid():
            self._lock, self._sources, self._process = threading.Lock(), {}, os.getpid()
        return self._lock

    def _forget(self, server: str) -> None:
        with self._lock_of_this_process():
            self._sources.pop(server, None)

    def _answered(
        self,
        server: str,
        source: Source | None,
        token: str | None,
        response: requests.Response,
        **sending: Any,
    ) -> requests.Response:
        request = response.request
        if response.is_redirect:
            _keep_from_strangers(response)
            return response
        if response.status_code != UNAUTHORIZED or origin(request.url or "") != origin(server):
            return response
        _finish(response)
        if source is None or token is None:
            raise LoginNeeded(server, f"{server} asks who you are, and nobody is signed in here.")
        try:
            new = source.renew(token)
        except LoginNeeded:
            self._forget(server)
            raise
        if new is None:
            raise _refusal(server, source, response)
        again = request.copy()
        if not _rewound(again):
            raise ClientError(
                f"{server} refused the token. There is a new one, but the body of this request "
                "cannot be sent a second time: repeat the call."
            )
        again.headers[AUTHORIZATION] = f"Bearer {new}"
        repeated = response.connection.send(again, **sending)
        repeated.history.append(response)
        repeated.request = again
        if repeated.status_code == UNAUTHORIZED:
            _finish(repeated)
            raise _refusal(server, source, repeated)
        assert isinstance(repeated, requests.Response)
        return repeated


def _keep_from_strangers(response: requests.Response) -> None:
    """Take our headers off before requests follows a redirect to another origin."""
    request = response.request
    target = urljoin(response.url, response.headers["Location"])
    if origin(target) != origin(request.url or ""):
        for header in (*OURS, AUTHORIZATION):
            request.headers.pop(header, None)


def _finish(response: requests.Response) -> None:
    """Read an answer to its end, so that its connection can be used again."""
    _ = response.content
    response.close()


def _rewound(request: requests.PreparedRequest) -> bool:
    """Put the body back to its beginning; whether that was possible."""
    if request.body is None or isinstance(request.body, bytes | str):
        return True
    try:
        rewind_body(request)
    except requests.exceptions.UnrewindableBodyError:
        return False
    return True


def _refusal(server: str, source: Source, response: requests.Response) -> Refused:
    challenge = dict(DESCRIPTION.findall(response.headers.get("WWW-Authenticate", "")))
    error = challenge.get("error", "401 Unauthorized")
    remedy = f"The token came from: {source.name}."
    if source.name.startswith("sign-in"):
        remedy += f" Run `muniment-client login {server}` to sign in anew."
    return Refused(server, error, challenge.get("error_description", ""), remedy)

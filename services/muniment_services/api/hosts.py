"""Host and Origin checks: a web page must not be able to use the server behind its user's back.

A page can make a browser send requests to a loopback server (DNS rebinding, cross-site forms). So
the Host header must be a name that the server is known by, and a write that carries an Origin must
come from such a host too. Source: MLflow 3.17 security middleware (403 in both cases).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from urllib.parse import urlsplit

from muniment_services.api.errors import ApiError

LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})
PROBES = frozenset({"/health", "/healthz", "/readyz", "/version"})
_SAFE = frozenset({"GET", "HEAD", "OPTIONS"})


class HostCheck:
    """Knows the host names that the server answers to; `*` as a name allows any."""

    def __init__(self, names: Iterable[str]) -> None:
        self._names = LOOPBACK_NAMES | {name.lower() for name in names}

    def check(self, method: str, path: str, headers: Mapping[bytes, bytes]) -> None:
        """Raise ApiError: 400 without a Host, 403 for an unknown one, or a write from its page.

        PROBES are open to any: load balancers call them by address, and they tell nothing.
        Source: RFC 9112, 3.2.
        """
        if "*" in self._names or path in PROBES:
            return
        if b"host" not in headers:
            raise ApiError("BAD_REQUEST", "The request has no Host header.")
        host = headers[b"host"].decode("latin-1")
        if not self._known(f"//{host}"):
            raise ApiError(
                "PERMISSION_DENIED",
                f"Host {host!r} is not one of this server's names. "
                "Start it with --allowed-hosts to add one.",
            )
        origin = headers.get(b"origin")
        if origin is not None and method not in _SAFE and not self._known(origin.decode("latin-1")):
            raise ApiError("PERMISSION_DENIED", "Cross-origin requests may not change anything.")

    def _known(self, url: str) -> bool:
        try:
            name = urlsplit(url).hostname
        except ValueError:
            return False
        return name is not None and name.lower() in self._names

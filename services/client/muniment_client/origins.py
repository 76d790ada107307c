"""Which URLs belong together, and which may be trusted to name an identity provider."""

from __future__ import annotations

from urllib.parse import urlsplit

DEFAULT_PORTS = (("http", 80), ("https", 443))


def origin(url: str) -> str:
    """`scheme://host:port` with the port spelled out; the empty string when not http(s)."""
    try:
        parts = urlsplit(url)
        port = parts.port or dict(DEFAULT_PORTS).get(parts.scheme)
    except ValueError:
        return ""
    if port is None or parts.scheme not in ("http", "https") or not parts.hostname:
        return ""
    return f"{parts.scheme}://{parts.hostname.lower()}:{port}"


def is_protected(url: str) -> bool:
    """Whether nobody on the network can change what this URL answers: https, or loopback."""
    parts = urlsplit(url)
    return parts.scheme == "https" or parts.hostname in ("127.0.0.1", "::1", "localhost")


def server_url(text: str) -> str:
    """A tracking URI as this package names a server: no credentials, query or closing slash."""
    parts = urlsplit(text.strip())
    host = parts.netloc.rpartition("@")[2].lower()
    return f"{parts.scheme}://{host}{parts.path.rstrip('/')}"

"""Where a request comes from: the client's address, as far as proxies are trusted to tell it."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Mapping
from typing import Final

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

HOPS_MAX = 20
"""Proxies that a request may have come through; what they say beyond that is not read."""

_FOR: Final = re.compile(r"for\s*=\s*(\"[^\"]*\"|[^;,\s]+)", re.IGNORECASE)


class Proxies:
    """The proxies in front of this server. trusted: their addresses and networks."""

    def __init__(self, trusted: Iterable[str] = ()) -> None:
        """Raises ValueError for what is neither an address nor a network."""
        self._networks: tuple[Network, ...] = tuple(map(ipaddress.ip_network, trusted))

    def client(self, peer: str | None, headers: Mapping[bytes, bytes]) -> str | None:
        """The address of whoever sent a request that arrived from `peer`.

        What a proxy says counts only if it is trusted itself, from the nearest on; the first that
        is not is the client. Source: RFC 7239, sections 5.2 and 8.1.
        """
        if peer is None or not self._networks:
            return peer
        client = peer
        hops = iter(reversed(_hops(headers)[-HOPS_MAX:]))
        while self._trusts(client):
            address = _address(next(hops, ""))
            if address is None:
                break
            client = str(address)
        return client

    def _trusts(self, address: str) -> bool:
        found = _address(address)
        return found is not None and any(found in network for network in self._networks)


def _hops(headers: Mapping[bytes, bytes]) -> list[str]:
    listed = headers.get(b"x-forwarded-for")
    if listed is not None:
        return listed.decode("latin-1").split(",")
    return _FOR.findall(headers.get(b"forwarded", b"").decode("latin-1"))


def _address(text: str) -> Address | None:
    # As proxies write them: 10.0.0.1, 10.0.0.1:80, 2001:db8::1, "[2001:db8::1]:80".
    bare = text.strip().strip('"')
    if bare.startswith("["):
        bare = bare[1:].partition("]")[0]
    elif bare.count(":") == 1:
        bare = bare.partition(":")[0]
    try:
        return ipaddress.ip_address(bare)
    except ValueError:
        return None

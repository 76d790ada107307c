"""Whom a request is from: what untrusted hops say counts for nothing."""

from __future__ import annotations

import pytest

from muniment_services.clients import Proxies

TRUSTED = ("10.0.0.0/8", "2001:db8::/32")


@pytest.mark.parametrize(
    ("peer", "headers", "client"),
    [
        ("192.0.2.1", {}, "192.0.2.1"),
        ("192.0.2.1", {b"x-forwarded-for": b"203.0.113.9"}, "192.0.2.1"),
        ("10.0.0.1", {b"x-forwarded-for": b"203.0.113.9"}, "203.0.113.9"),
        ("10.0.0.1", {b"x-forwarded-for": b"6.6.6.6, 203.0.113.9, 10.0.0.2"}, "203.0.113.9"),
        ("10.0.0.1", {b"x-forwarded-for": b"10.0.0.3, 10.0.0.2"}, "10.0.0.3"),
        ("10.0.0.1", {b"x-forwarded-for": b"6.6.6.6, unknown"}, "10.0.0.1"),
        ("10.0.0.1", {b"x-forwarded-for": b"203.0.113.9:4711"}, "203.0.113.9"),
        ("10.0.0.1", {b"forwarded": b'for="[2001:db8:1::7]:80";proto=https'}, "2001:db8:1::7"),
        ("10.0.0.1", {b"forwarded": b"for=6.6.6.6, For=203.0.113.9"}, "203.0.113.9"),
        ("10.0.0.1", {}, "10.0.0.1"),
        (None, {b"x-forwarded-for": b"6.6.6.6"}, None),
    ],
)
def test_the_client_is_the_first_hop_that_nobody_vouches_for(
    peer: str | None, headers: dict[bytes, bytes], client: str | None
) -> None:
    assert Proxies(TRUSTED).client(peer, headers) == client


def test_without_trusted_proxies_only_the_connection_counts() -> None:
    assert Proxies().client("10.0.0.1", {b"x-forwarded-for": b"6.6.6.6"}) == "10.0.0.1"

"""A load generator that costs little: HTTP/1.1, kept-alive connections, one request at a time each.

Requests are bytes made beforehand, so that what is timed is the server. Answers other than 200 stop
the run: a benchmark of errors says nothing.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast
from urllib.parse import urlsplit


@dataclass(frozen=True, slots=True)
class Timing:
    """What a run measured. latencies_s: one per request, sorted."""

    requests: int
    elapsed_s: float
    latencies_s: Sequence[float]

    @property
    def per_second(self) -> float:
        """Requests a second."""
        return self.requests / self.elapsed_s

    def percentile_ms(self, share: float) -> float:
        """Latency that `share` of the requests did not exceed, in milliseconds."""
        return self.latencies_s[min(len(self.latencies_s) - 1, int(share * self.requests))] * 1000


class _Connection(asyncio.Protocol):
    # Sends its requests one after the other and notes how long each took.
    def __init__(self, requests: Sequence[bytes], latencies: list[float]) -> None:
        self._requests = iter(requests)
        self._latencies = latencies
        self._buffer = b""
        self._sent_at = 0.0
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._next()

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        head, separator, body = self._buffer.partition(b"\r\n\r\n")
        if not separator:
            return
        start = head.lower().find(b"content-length:")
        length = int(head[start + 15 :].split(b"\r\n", 1)[0]) if start >= 0 else 0
        if len(body) < length:
            return
        self._latencies.append(time.perf_counter() - self._sent_at)
        self._buffer = b""
        if b" 200 " not in head[:16]:
            self._fail(RuntimeError(f"{head[:60]!r} {body[:300]!r}"))
            return
        self._next()

    def connection_lost(self, exc: Exception | None) -> None:
        self._fail(exc or ConnectionError("the server closed the connection"))

    def _next(self) -> None:
        request = next(self._requests, None)
        if request is None:
            if not self.done.done():
                self.done.set_result(None)
            self._transport.close()
            return
        self._sent_at = time.perf_counter()
        self._transport.write(request)

    def _fail(self, error: Exception) -> None:
        if not self.done.done():
            self.done.set_exception(error)
        self._transport.close()


def post(url: str, path: str, body: bytes) -> bytes:
    """The bytes of a POST with a JSON body."""
    host = urlsplit(url).netloc
    return (
        f"POST {path} HTTP/1.1\r\nhost: {host}\r\ncontent-type: application/json\r\n"
        f"content-length: {len(body)}\r\n\r\n"
    ).encode() + body


def run(url: str, per_connection: Sequence[Sequence[bytes]]) -> Timing:
    """Send all requests, each inner sequence on a connection of its own, and time them."""
    return asyncio.run(_run(url, per_connection))


async def _run(url: str, per_connection: Sequence[Sequence[bytes]]) -> Timing:
    address = urlsplit(url)
    latencies: list[float] = []
    loop = asyncio.get_running_loop()
    started = time.perf_counter()
    connections = [
        (
            await loop.create_connection(
                lambda requests=requests: _Connection(requests, latencies),  # type: ignore[misc]
                address.hostname or "127.0.0.1",
                address.port or 80,
            )
        )[1]
        for requests in per_connection
    ]
    await asyncio.gather(*(connection.done for connection in connections))
    elapsed = time.perf_counter() - started
    return Timing(len(latencies), elapsed, sorted(latencies))

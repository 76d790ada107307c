"""A small HTTP load balancer in front of replicas, as a test's stand-in for the one of a team.

It asks each replica's /readyz every CHECK_S and sends requests to those that are ready, in turn. A
request that could not be sent (nobody listens) goes to the next one; a request that was sent is
never sent again: when its replica dies, the client gets 502, and when none is ready, 503. Each
connection carries one request, so that a replica that drains loses its clients at once.
"""

from __future__ import annotations

import asyncio
import itertools
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from urllib.parse import urlsplit

from harness.server import free_port

CHECK_S = 0.2
CHECK_CALL_S = 1.0
HEAD_BYTES_MAX = 64 * 1024
RELAY_BYTES = 64 * 1024

_UNAVAILABLE = b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\n"
_BAD_GATEWAY = b"HTTP/1.1 502 Bad Gateway\r\n"
_EMPTY = b"Content-Length: 0\r\nConnection: close\r\n\r\n"


class Balancer:
    """One balancer; it runs on an event loop in a thread of its own. `counts`: what it did."""

    def __init__(self, urls: Sequence[str]) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.counts: Counter[str] = Counter()
        self._backends = [(urlsplit(u).hostname or "", urlsplit(u).port or 0) for u in urls]
        self._ready: set[tuple[str, int]] = set()
        self._turns = itertools.count()
        self._loop = asyncio.new_event_loop()
        self._stopping = asyncio.Event()
        self._started = threading.Event()
        self._thread = threading.Thread(target=self._run, name="balancer", daemon=True)

    def start(self) -> None:
        """Listen, and return once every replica has been asked."""
        self._thread.start()
        assert self._started.wait(30), "the balancer does not start"

    def stop(self) -> None:
        """Stop listening."""
        self._loop.call_soon_threadsafe(self._stopping.set)
        self._thread.join(30)

    def _run(self) -> None:
        self._loop.run_until_complete(self._serve())

    async def _serve(self) -> None:
        await self._check()
        checking = asyncio.create_task(self._keep_checking())
        server = await asyncio.start_server(self._relay, "127.0.0.1", self.port)
        self._started.set()
        async with server:
            await self._stopping.wait()
        checking.cancel()
        with suppress(asyncio.CancelledError):
            await checking

    async def _keep_checking(self) -> None:
        while True:
            await asyncio.sleep(CHECK_S)
            await self._check()

    async def _check(self) -> None:
        answers = await asyncio.gather(*map(_is_ready, self._backends))
        self._ready = {b for b, ready in zip(self._backends, answers, strict=True) if ready}

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            request = await _read_request(reader)
            if request is not None:
                await self._answer(request, writer)
        except (OSError, asyncio.IncompleteReadError):
            self.counts["client gone"] += 1
        finally:
            writer.close()

    async def _answer(self, request: bytes, writer: asyncio.StreamWriter) -> None:
        for backend in self._in_turn():
            try:
                theirs = await asyncio.open_connection(*backend)
            except OSError:
                self.counts["not sent, tried elsewhere"] += 1
                continue
            await self._forward(request, theirs, writer)
            return
        self.counts["503: none is ready"] += 1
        writer.write(_UNAVAILABLE + _EMPTY)
        await writer.drain()

    def _in_turn(self) -> Sequence[tuple[str, int]]:
        ready = [backend for backend in self._backends if backend in self._ready]
        first = next(self._turns) % max(1, len(ready))
        return [*ready[first:], *ready[:first]]

    async def _forward(
        self,
        request: bytes,
        theirs: tuple[asyncio.StreamReader, asyncio.StreamWriter],
        writer: asyncio.StreamWriter,
    ) -> None:
        answered = False
        try:
            theirs[1].write(request)
            await theirs[1].drain()
            while content := await theirs[0].read(RELAY_BYTES):
                answered = True
                writer.write(content)
                await writer.drain()
        except OSError:
            self.counts["replica gone"] += 1
        finally:
            theirs[1].close()
        if answered:
            self.counts["answered"] += 1
            return
        self.counts["502: sent and not answered"] += 1
        writer.write(_BAD_GATEWAY + _EMPTY)
        await writer.drain()


async def _read_request(reader: asyncio.StreamReader) -> bytes | None:
    """Head and body of one request, to be answered by a connection that is then closed."""
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError as nothing:
        if not nothing.partial:
            return None
        raise
    assert len(head) < HEAD_BYTES_MAX, "a head that is too long for this balancer"
    lines = head.rstrip(b"\r\n").split(b"\r\n")
    length = 0
    kept = [lines[0]]
    for line in lines[1:]:
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            length = int(value)
        assert name.lower() != b"transfer-encoding", "this balancer takes bodies of known length"
        if name.lower() not in (b"connection", b"keep-alive"):
            kept.append(line)
    body = await reader.readexactly(length)
    return b"\r\n".join([*kept, b"Connection: close", b"", body])


async def _is_ready(backend: tuple[str, int]) -> bool:
    try:
        async with asyncio.timeout(CHECK_CALL_S):
            reader, writer = await asyncio.open_connection(*backend)
            try:
                host = f"{backend[0]}:{backend[1]}".encode()
                writer.write(
                    b"GET /readyz HTTP/1.1\r\nHost: " + host + b"\r\nConnection: close\r\n\r\n"
                )
                status = await reader.readline()
            finally:
                writer.close()
    except (OSError, TimeoutError):
        return False
    return b" 200 " in status


@contextmanager
def balanced(urls: Sequence[str]) -> Iterator[Balancer]:
    """A balancer in front of these servers."""
    balancer = Balancer(urls)
    balancer.start()
    try:
        yield balancer
    finally:
        balancer.stop()

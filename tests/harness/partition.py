"""A network between a replica and brokers that can be cut: bytes stop, connections do not.

Brokers listen on a second address and say that they are reached at a third one, where relays of
ours stand. Who bootstraps there has all of its traffic pass through them. A cut holds bytes back in
one direction or both, as a network does that drops packets; what was held back arrives when it is
mended (or the connection was given up meanwhile).
"""

from __future__ import annotations

import asyncio
import random
import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Final

from local_kafka import Cluster

from harness import brokers

BEHIND = "127.0.0.1"
FACING = "127.0.0.2"
BEYOND = 10_000
"""A broker's second listener is so many ports above its first one (four digits, and a 1 before)."""

RELAY_BYTES = 256 * 1024

PROPERTIES: Final[Mapping[str, str]] = {
    "listeners": "PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller},"
    f"EDGE://{BEHIND}:1{{port}}",
    "advertised.listeners": f"PLAINTEXT://127.0.0.1:{{port}},EDGE://{FACING}:1{{port}}",
    "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,EDGE:PLAINTEXT",
}


class Network:
    """The relays in front of a cluster's brokers. Lives on an event loop in a thread of its own."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self._ports = [BEYOND + port for port in cluster.ports]
        self.bootstrap = ",".join(f"{FACING}:{port}" for port in self._ports)
        self._loop = asyncio.new_event_loop()
        self._requests = asyncio.Event()
        self._replies = asyncio.Event()
        self._stopping = asyncio.Event()
        self._started = threading.Event()
        self._thread = threading.Thread(target=self._run, name="network", daemon=True)
        self._relays: set[asyncio.Task[None]] = set()
        self._requests.set()
        self._replies.set()

    def start(self) -> None:
        """Listen."""
        self._thread.start()
        assert self._started.wait(30), "the relays do not start"

    def stop(self) -> None:
        """Close everything."""
        self._loop.call_soon_threadsafe(self._stopping.set)
        self._thread.join(30)

    def cut(self, *, requests: bool = True, replies: bool = True) -> None:
        """Hold back what goes to brokers (requests), what comes from them (replies), or both."""
        for held, gate in ((requests, self._requests), (replies, self._replies)):
            if held:
                self._loop.call_soon_threadsafe(gate.clear)

    def mend(self) -> None:
        """Let everything pass again."""
        self._loop.call_soon_threadsafe(self._requests.set)
        self._loop.call_soon_threadsafe(self._replies.set)

    def _run(self) -> None:
        self._loop.run_until_complete(self._serve())

    async def _serve(self) -> None:
        servers = [
            await asyncio.start_server(partial(self._accept, port), FACING, port)
            for port in self._ports
        ]
        self._started.set()
        await self._stopping.wait()
        for server in servers:
            server.close()
        for relay in self._relays:
            relay.cancel()
        await asyncio.gather(*self._relays, return_exceptions=True)

    def _accept(
        self, port: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        relay = asyncio.create_task(self._relay(reader, writer, port))
        self._relays.add(relay)
        relay.add_done_callback(self._relays.discard)

    async def _relay(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, port: int
    ) -> None:
        with suppress(OSError):
            await self._requests.wait()
            await self._replies.wait()
            theirs = await asyncio.open_connection(BEHIND, port)
            await asyncio.gather(
                _pass(reader, theirs[1], self._requests), _pass(theirs[0], writer, self._replies)
            )
        writer.close()


async def _pass(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, gate: asyncio.Event
) -> None:
    try:
        while content := await reader.read(RELAY_BYTES):
            await gate.wait()
            writer.write(content)
            await writer.drain()
    finally:
        writer.close()


@contextmanager
def cluster_behind_a_network(folder: Path, count: int) -> Iterator[Network]:
    """Brokers of the test's own: reached at once by `cluster.bootstrap`, through the network by
    its own `bootstrap`.
    """
    with brokers.cluster(folder, count, ports=_port_pairs(count), properties=PROPERTIES) as started:
        network = Network(started)
        network.start()
        try:
            yield network
        finally:
            network.mend()
            network.stop()


def _port_pairs(count: int) -> list[int]:
    # Ports of four digits that are free, as are those BEYOND them.
    chance = random.Random()
    found: list[int] = []
    while len(found) < count:
        port = chance.randrange(2_000, 9_999)
        if port not in found and _is_free(port) and _is_free(BEYOND + port):
            found.append(port)
    return found


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind((BEHIND, port))
        except OSError:
            return False
    return True

"""Witnesses that listen on loopback: honest ones, one that lies, and the address of none."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Generator, Iterable
from contextlib import asynccontextmanager, contextmanager
from hashlib import sha256
from pathlib import Path

import uvicorn

from muniment_services.cli.witness import application
from muniment_services.proof import checkpoint, note
from muniment_services.proof.note import Kind, VerifierKey
from muniment_services.proof.signing import SoftKey
from muniment_services.proof.witness import Reply, Witness, parse_submission

NOW_S = 1_800_000_000


class Liar(Witness):
    """A witness that cosigns something else than it was asked for."""

    def add(self, body: bytes) -> Reply:
        """A cosignature of another root."""
        asked = parse_submission(body)
        head = checkpoint.parse(note.parse(asked.raw).text)
        other = checkpoint.Checkpoint(head.origin, head.size, bytes(32))
        return Reply(200, self.key.sign(self._signing, other.text, NOW_S).line.encode())


def witness(
    folder: Path,
    logs: Iterable[VerifierKey],
    name: str = "witness.example/w",
    kind: type[Witness] = Witness,
) -> Witness:
    """A witness whose key follows from its name."""
    folder.mkdir(parents=True, exist_ok=True)
    key = SoftKey(Kind.ED25519, sha256(name.encode()).digest())
    return kind(name, key, logs, folder / "witness.json", lambda: NOW_S)


class _Quiet(uvicorn.Server):
    """A server that leaves signals to the tests."""

    @contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """Capture none."""
        yield


@asynccontextmanager
async def listening(*witnesses: Witness) -> AsyncIterator[list[str]]:
    """Have witnesses listen; yields their URLs."""
    servers, tasks, urls = [], [], []
    for one in witnesses:
        free = socket.create_server(("127.0.0.1", 0))
        config = uvicorn.Config(application(one), log_level="error", lifespan="off")
        servers.append(_Quiet(config))
        tasks.append(asyncio.create_task(servers[-1].serve(sockets=[free])))
        urls.append(f"http://127.0.0.1:{free.getsockname()[1]}")
    try:
        yield urls
    finally:
        for server in servers:
            server.should_exit = True
        await asyncio.gather(*tasks)


def nobody() -> str:
    """The URL of a port where nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        return f"http://127.0.0.1:{free.getsockname()[1]}"

"""A log in memory with a prover on it, and what tests ask of both."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random

from harness.memory_log import MemoryLog, Stored
from muniment_auth.identity import FolderKeys
from muniment_schemas.codec import Codec
from muniment_schemas.envelope import Actor
from muniment_schemas.subjects import Schemas
from muniment_services.clock import now_ms
from muniment_services.log.base import NewRecord, TopicPartition
from muniment_services.proof.note import Kind
from muniment_services.proof.prover import Prover
from muniment_services.proof.signing import PlaceKeys

CODEC = Codec(Schemas.load())
ACTOR = Actor(principal_id="system", auth_method="system")
WITHIN_S = 20.0
CATALOG = TopicPartition("catalog", 0)
RUNS = TopicPartition("runs", 0)
HEADS = TopicPartition("checkpoints", 0)


def keyring(folder: Path, *kinds: Kind) -> PlaceKeys:
    """Keys in a folder."""
    return PlaceKeys(FolderKeys(folder), kinds or (Kind.ED25519,), Random(1).randbytes, folder)


@asynccontextmanager
async def proved(
    folder: Path,
    stored: Stored | None = None,
    *,
    keys: PlaceKeys | None = None,
) -> AsyncIterator[Prover]:
    """A prover at work on a log. stored: what the log has; folder: keys and cache."""
    log = MemoryLog(runs_partitions=2, stored=stored)
    await log.start()
    ring = keys or keyring(folder / "keys")
    prover = Prover(
        log, CODEC, ring, folder / "proof", "log.test", ACTOR, now_ms, Random(2).randbytes
    )
    prover.start()
    try:
        yield prover
    finally:
        await prover.close()
        await log.close()


async def append(prover: Prover, at: TopicPartition, count: int) -> None:
    """Append records that nobody decodes."""
    log = prover.log
    end = (await log.end_offsets())[at]
    for number in range(end, end + count):
        headers = (("ce_id", b"%d" % number), ("ce_type", b"Tested"))
        await log.append(NewRecord(at, b"key", b"value %d" % number, headers, number))


async def until(true: Callable[[], bool], prover: Prover | None = None) -> None:
    """Wait until something is true. An AssertionError after WITHIN_S."""
    for _ in range(int(WITHIN_S / 0.02)):
        if true():
            return
        await asyncio.sleep(0.02)
    raise AssertionError(f"not within {WITHIN_S} s; {prover.problem if prover else ''}")


def size_of(prover: Prover, at: TopicPartition) -> int:
    """What the newest signed head covers."""
    head = prover.forest.served(at)
    return head.size if head else 0


async def signed(prover: Prover, at: TopicPartition, size: int) -> None:
    """Wait until a signed head covers so many records."""
    await until(lambda: size_of(prover, at) == size, prover)

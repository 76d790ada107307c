"""Two servers that share a store and a log: the log's last digest is that of the file there."""

from __future__ import annotations

import asyncio
import hashlib
import random
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

import pytest

from muniment_services.artifacts.base import Overtaken, Stored
from muniment_services.artifacts.keeper import AGREE_TRIES_MAX, Artifacts
from muniment_services.artifacts.local import LocalArtifacts
from muniment_services.log.base import LogUnavailable

UPLOAD_TRIES_MAX = 20


def server(folder: Path) -> Artifacts:
    parts = LocalArtifacts(folder / "parts", transient=True, shared=True)
    made = Artifacts(LocalArtifacts(folder, shared=True), parts, random.Random(1).randbytes)
    asyncio.run(made.start())
    return made


async def body(content: bytes) -> AsyncIterator[bytes]:
    yield content


async def content_of(artifacts: Artifacts, path: str) -> bytes:
    return b"".join([chunk async for chunk in (await artifacts.store.get(path)).chunks])


def test_the_order_of_events_need_not_be_that_of_the_files(tmp_path: Path) -> None:
    one, other = server(tmp_path), server(tmp_path)
    log: list[bytes] = []

    async def record(stored: Stored, replaced: bool) -> None:
        log.append(stored.sha256)

    async def record_late(stored: Stored, replaced: bool) -> None:
        if not log:  # The other server does all of its upload between our file and our event.
            await other.upload("f", body(b"second"), record)
        await record(stored, replaced)

    async def run() -> None:
        await one.upload("f", body(b"first"), record_late)
        assert await content_of(one, "f") == b"second"

    asyncio.run(run())
    first, second = (hashlib.sha256(text).digest() for text in (b"first", b"second"))
    assert log == [second, first, second]


@pytest.mark.parametrize("seed", range(20))
def test_uploads_on_many_servers_end_with_the_digest_of_what_is_there(
    tmp_path: Path, seed: int
) -> None:
    servers = [server(tmp_path) for _ in range(3)]
    chance = random.Random(seed)
    log: list[bytes] = []

    async def record(stored: Stored, replaced: bool) -> None:
        await asyncio.sleep(chance.random() / 100)
        log.append(stored.sha256)
        await asyncio.sleep(chance.random() / 100)

    async def upload(at: Artifacts, number: int) -> None:
        await asyncio.sleep(chance.random() / 50)
        for _ in range(UPLOAD_TRIES_MAX):
            with suppress(Overtaken):  # A client would come again, too.
                await at.upload("d/f", body(b"%d" % number), record)
                return
        raise AssertionError("overtaken again and again")

    async def run() -> bytes:
        await asyncio.gather(*(upload(servers[n % 3], n) for n in range(9)))
        return await content_of(servers[0], "d/f")

    there = asyncio.run(run())
    assert log[-1] == hashlib.sha256(there).digest()


def test_a_refused_upload_does_not_take_back_what_another_server_stored(tmp_path: Path) -> None:
    one, other = server(tmp_path), server(tmp_path)

    async def accept(stored: Stored, replaced: bool) -> None:
        return

    async def refuse(stored: Stored, replaced: bool) -> None:
        await other.upload("f", body(b"accepted"), accept)
        raise LogUnavailable("away")

    async def run() -> None:
        with pytest.raises(LogUnavailable):
            await one.upload("f", body(b"refused"), refuse)
        assert await content_of(one, "f") == b"accepted"

    asyncio.run(run())


def test_an_upload_that_never_comes_to_rest_is_given_up(tmp_path: Path) -> None:
    one, other = server(tmp_path), server(tmp_path)
    recorded = 0

    async def accept(stored: Stored, replaced: bool) -> None:
        return

    async def replaced_each_time(stored: Stored, replaced: bool) -> None:
        nonlocal recorded
        recorded += 1
        await other.upload("f", body(b"%d" % recorded), accept)

    async def removed(stored: Stored, replaced: bool) -> None:
        await other.store.delete("g")

    async def run() -> None:
        with pytest.raises(Overtaken, match="again and again"):
            await one.upload("f", body(b"1"), replaced_each_time)
        with pytest.raises(Overtaken, match="removed"):
            await one.upload("g", body(b"1"), removed)

    asyncio.run(run())
    assert recorded == AGREE_TRIES_MAX

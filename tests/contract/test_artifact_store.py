"""What every artifact store promises, held against each of them."""

from __future__ import annotations

import asyncio
import errno
import hashlib
import os
import time
import uuid
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest
from obstore.exceptions import GenericError

from harness.object_store import (
    ObjectStoreServer,
    minio_binary,
    running_minio,
    running_moto,
)
from muniment_services.artifacts.base import (
    ABANDONED_S,
    BLOCK_BYTES,
    ArtifactIsFolder,
    ArtifactMissing,
    ArtifactStore,
    Entry,
    PathRefused,
    StorageFull,
    StoreUnavailable,
)
from muniment_services.artifacts.failures import translated
from muniment_services.artifacts.local import STAGING, LocalArtifacts
from muniment_services.artifacts.objects import FILES, PART_BYTES, ObjectArtifacts
from muniment_services.artifacts.place import open_bucket

Test = Callable[[ArtifactStore], Coroutine[Any, Any, None]]


S3_SERVERS = {"s3": running_moto} | ({"minio": running_minio} if minio_binary() else {})
"""moto everywhere; MinIO too where somebody has built it."""


@pytest.fixture(scope="module", params=["local", *S3_SERVERS])
def place(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ObjectStoreServer | None]:
    """A running S3, or None for local folders."""
    if request.param == "local":
        yield None
        return
    with (
        S3_SERVERS[request.param](tmp_path_factory.mktemp("s3")) as server,
        pytest.MonkeyPatch.context() as patch,
    ):
        for name, value in server.environment.items():
            patch.setenv(name, value)
        yield server


@pytest.fixture
def store(place: ObjectStoreServer | None, tmp_path: Path) -> ArtifactStore:
    made: ArtifactStore
    if place is None:
        made = LocalArtifacts(tmp_path)
    else:
        bucket = place.make_bucket(f"b-{uuid.uuid4().hex}")
        made = ObjectArtifacts(open_bucket(f"{bucket}/some/prefix"), bucket)
    asyncio.run(made.start())
    return made


async def body(*chunks: bytes, error: Exception | None = None) -> AsyncIterator[bytes]:
    for chunk in chunks:
        yield chunk
    if error is not None:
        raise error


async def read(store: ArtifactStore, path: str, span: range | None = None) -> bytes:
    opened = await store.get(path, span)
    return b"".join([chunk async for chunk in opened.chunks])


async def walked(store: ArtifactStore, folder: str) -> dict[str, int | None]:
    return {entry.path: entry.size_bytes async for entry in store.walk(folder)}


LARGE = (bytes(range(256)) * 4099, b"x" * 77) * 25
"""More than two blocks and two parts, in chunks that neither is a multiple of."""

assert sum(map(len, LARGE)) > 2 * max(BLOCK_BYTES, PART_BYTES)


@pytest.mark.parametrize("chunks", [(), (b"",), (b"hello",), (b"a" * BLOCK_BYTES,), LARGE], ids=len)
def test_a_file_comes_back_as_it_was_put(store: ArtifactStore, chunks: tuple[bytes, ...]) -> None:
    async def run() -> None:
        content = b"".join(chunks)
        stored = await store.put("a/b c/ü%20x", body(*chunks))
        assert stored.size_bytes == len(content)
        assert stored.sha256 == hashlib.sha256(content).digest()
        assert await store.is_current("a/b c/ü%20x", stored)
        assert await store.describe("a/b c/ü%20x") == stored
        assert await read(store, "a/b c/ü%20x") == content
        assert await store.size("a/b c/ü%20x") == len(content)

    asyncio.run(run())


def test_a_range_is_cut_out_of_the_file(store: ArtifactStore) -> None:
    async def run() -> None:
        content = b"".join(LARGE)
        await store.put("f", body(*LARGE))
        for span in (range(0, 1), range(5, BLOCK_BYTES + 9), range(len(content) - 3, len(content))):
            assert await read(store, "f", span) == content[span.start : span.stop]
        assert (await store.get("f", range(1, 2))).size_bytes == len(content)

    asyncio.run(run())


@pytest.mark.parametrize("chunks", [(b"begun",), LARGE], ids=["small", "large"])
def test_a_broken_upload_leaves_nothing(store: ArtifactStore, chunks: tuple[bytes, ...]) -> None:
    async def run() -> None:
        await store.put("kept", body(b"old"))
        for path in ("new/file", "kept"):
            with pytest.raises(ZeroDivisionError):
                await store.put(path, body(*chunks, error=ZeroDivisionError()))
        assert await walked(store, "") == {"kept": 3}
        assert await read(store, "kept") == b"old"

    asyncio.run(run())


def test_an_upload_replaces_the_file_whole(store: ArtifactStore) -> None:
    async def run() -> None:
        await store.put("f", body(*LARGE))
        await store.put("f", body(b"new"))
        assert await read(store, "f") == b"new"

    asyncio.run(run())


def test_content_that_another_put_replaced_is_not_current(store: ArtifactStore) -> None:
    async def run() -> None:
        first = await store.put("f", body(b"one"))
        second = await store.put("f", body(b"two"))
        assert not await store.is_current("f", first)
        assert await store.is_current("f", second)
        kept = await store.keep("f")
        third = await store.put("f", body(*LARGE))
        assert not await store.is_current("f", second)
        await store.restore("f", kept)
        assert await read(store, "f") == b"two"
        assert not await store.is_current("f", third)
        await store.delete("f")
        assert not await store.is_current("f", second)
        with pytest.raises(ArtifactMissing):
            await store.describe("f")
        assert await walked(store, "") == {}

    asyncio.run(run())


def test_what_is_not_there(store: ArtifactStore) -> None:
    async def run() -> None:
        await store.put("folder/file", body(b"1"))
        for path in ("none", "folder/none", "folder/file/below", "n" * 300, "d/" * 400 + "n"):
            assert await store.size(path) is None
            assert list(await store.list(path)) == []
            with pytest.raises(ArtifactMissing):
                await store.get(path)
            await store.delete(path)
        with pytest.raises(ArtifactIsFolder):
            await store.get("folder")
        assert await store.size("folder") is None

    asyncio.run(run())


def test_listing_is_one_level_sorted_with_sizes(store: ArtifactStore) -> None:
    async def run() -> None:
        for path in ("b/z", "b/a/deep", "b.txt", "a", "b/c"):
            await store.put(path, body(path.encode()))
        assert list(await store.list("")) == [Entry("a", 1), Entry("b", None), Entry("b.txt", 5)]
        assert list(await store.list("b")) == [
            Entry("b/a", None),
            Entry("b/c", 3),
            Entry("b/z", 3),
        ]
        assert list(await store.list("a")) == []
        assert await walked(store, "b") == {"b/z": 3, "b/a/deep": 8, "b/c": 3}
        assert await walked(store, "a") == {"a": 1}

    asyncio.run(run())


def test_deleting_a_file_or_a_folder(store: ArtifactStore) -> None:
    async def run() -> None:
        for path in ("m/a", "m/b/c", "mm", "n"):
            await store.put(path, body(b"1"))
        await store.delete("m")
        assert await walked(store, "") == {"mm": 1, "n": 1}
        assert list(await store.list("")) == [Entry("mm", 1), Entry("n", 1)]
        await store.delete("n")
        await store.put("m/a", body(b"again"))
        assert await walked(store, "") == {"mm": 1, "m/a": 5}
        await store.delete("")
        assert await walked(store, "") == {}

    asyncio.run(run())


def test_uploads_and_deletions_at_once_do_not_break_each_other(store: ArtifactStore) -> None:
    async def run() -> None:
        async def put_and_delete(number: int) -> None:
            await store.put(f"a/b/{number}", body(b"1"))
            await store.delete(f"a/b/{number}")

        await asyncio.gather(*(put_and_delete(number) for number in range(50)))
        assert await walked(store, "") == {}

    asyncio.run(run())


def test_local_folders_and_files_exclude_each_other(tmp_path: Path) -> None:
    async def run() -> None:
        store = LocalArtifacts(tmp_path)
        await store.start()
        await store.put("a/b", body(b"1"))
        for path in ("a", "a/b/c", "n" * 300):
            with pytest.raises(PathRefused):
                await store.put(path, body(b"2"))
        assert await walked(store, "") == {"a/b": 1}
        assert list((tmp_path / STAGING).iterdir()) == []

    asyncio.run(run())


def test_local_writes_are_flushed_before_they_show(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[str] = []
    fsync, replace = os.fsync, os.replace

    def flush(descriptor: int) -> None:
        steps.append(os.readlink(f"/proc/self/fd/{descriptor}"))
        fsync(descriptor)

    def move(source: Path, target: Path) -> None:
        steps.append("moved")
        replace(source, target)

    async def run() -> None:
        store = LocalArtifacts(tmp_path)
        await store.start()
        monkeypatch.setattr(os, "fsync", flush)
        monkeypatch.setattr(os, "replace", move)
        await store.put("run/folder/file", body(b"1"))
        before, after = steps[: steps.index("moved")], steps[steps.index("moved") + 1 :]
        files = tmp_path / FILES
        assert Path(before[0]).parent == tmp_path / STAGING
        assert {str(tmp_path), str(files), str(files / "run")} <= set(before)
        assert after == [str(files / "run" / "folder")]
        steps.clear()
        await store.put("run/folder/other", body(b"1"))
        assert len(steps) == 3, "a known folder's parents are not flushed again"

    asyncio.run(run())


def test_a_start_removes_what_a_crash_left(tmp_path: Path) -> None:
    async def run() -> None:
        first = LocalArtifacts(tmp_path)
        await first.start()
        await first.put("f", body(b"1"))
        (tmp_path / STAGING / "7").write_bytes(b"half")
        second = LocalArtifacts(tmp_path)
        await second.start()
        assert list((tmp_path / STAGING).iterdir()) == []
        assert await walked(second, "") == {"f": 1}
        third = LocalArtifacts(tmp_path, transient=True)
        await third.start()
        assert await walked(third, "") == {}

    asyncio.run(run())


def test_a_start_leaves_alone_what_others_may_be_working_on(tmp_path: Path) -> None:
    async def run() -> None:
        first = LocalArtifacts(tmp_path, transient=True, shared=True)
        await first.start()
        old, young = await first.put("a/old", body(b"1")), await first.put("b/young", body(b"2"))
        kept = await first.keep("b/young")
        assert kept is not None
        long_ago = time.time() - ABANDONED_S - 1
        os.utime(tmp_path / FILES / "a" / "old", (long_ago, long_ago))
        second = LocalArtifacts(tmp_path, transient=True, shared=True)
        await second.start()
        assert await walked(second, "") == {"b/young": young.size_bytes}
        assert not (tmp_path / FILES / "a").exists()
        await first.restore("b/young", kept)
        assert not await second.is_current("a/old", old)

    asyncio.run(run())


def test_a_reader_keeps_the_file_that_it_opened(tmp_path: Path) -> None:
    async def run() -> None:
        store = LocalArtifacts(tmp_path)
        await store.start()
        await store.put("f", body(b"o" * (2 * BLOCK_BYTES)))
        opened = await store.get("f")
        await store.put("f", body(b"n" * (2 * BLOCK_BYTES)))
        assert set(b"".join([chunk async for chunk in opened.chunks])) == {ord("o")}

    asyncio.run(run())


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (OSError(errno.ENOSPC, "full"), StorageFull),
        (GenericError("Unable to copy data: No space left on device (os error 28)"), StorageFull),
        (GenericError("Disk quota exceeded (os error 122)"), StorageFull),
        (OSError(errno.EIO, "broken"), StoreUnavailable),
        (GenericError("the service is away"), StoreUnavailable),
        (FileNotFoundError(), ArtifactMissing),
    ],
)
def test_errors_of_the_backend_have_a_meaning(error: Exception, expected: type[Exception]) -> None:
    with pytest.raises(expected), translated("p"):
        raise error

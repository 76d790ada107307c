"""Changing artifacts: file and event in the right order, and never two changes of one path."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import duckdb
import pytest

from muniment_projections.artifacts.apply import ArtifactsProjection
from muniment_projections.runner import ProjectionsUnavailable
from muniment_services.artifacts.base import Stored
from muniment_services.artifacts.keeper import Artifacts
from muniment_services.artifacts.local import LocalArtifacts
from muniment_services.artifacts.verify import CHANGED, MISSING, UNRECORDED, verify_artifacts
from muniment_services.authority import Denied
from muniment_services.domain.errors import Quarantined, ReviewRequired
from muniment_services.log.base import LogUnavailable

RUN = "0123456789abcdef0123456789abcdef"


def keeper(folder: Path) -> Artifacts:
    parts = LocalArtifacts(folder / "parts", transient=True)
    made = Artifacts(LocalArtifacts(folder), parts, os.urandom)
    asyncio.run(made.start())
    return made


async def body(content: bytes) -> AsyncIterator[bytes]:
    yield content


def test_the_file_is_there_before_its_event(tmp_path: Path) -> None:
    artifacts = keeper(tmp_path)
    seen: list[tuple[int | None, bool, bool]] = []

    async def record(stored: Stored, replaced: bool) -> None:
        size = await artifacts.store.size("f")
        seen.append((size, replaced, artifacts.is_changing("f")))

    async def run() -> None:
        await artifacts.upload("f", body(b"one"), record)
        await artifacts.upload("f", body(b"three"), record)
        assert not artifacts.is_changing("f")

    asyncio.run(run())
    assert seen == [(3, False, True), (5, True, True)]


@pytest.mark.parametrize(
    "refusal",
    [
        LogUnavailable("disk full"),
        ReviewRequired("it stays"),
        Denied("the grant was taken back meanwhile"),
        Quarantined("run", RUN),
        ProjectionsUnavailable("they are read anew"),
        asyncio.CancelledError(),
    ],
)
def test_an_upload_that_cannot_be_recorded_leaves_what_was_there(
    tmp_path: Path, refusal: BaseException
) -> None:
    artifacts = keeper(tmp_path)

    async def accept(stored: Stored, replaced: bool) -> None:
        return

    async def refuse(stored: Stored, replaced: bool) -> None:
        raise refusal

    async def content(path: str) -> bytes:
        return b"".join([chunk async for chunk in (await artifacts.store.get(path)).chunks])

    async def run() -> None:
        await artifacts.upload("a/old", body(b"accepted"), accept)
        for path in ("a/old", "a/new"):
            with pytest.raises(type(refusal)):
                await artifacts.upload(path, body(b"refused"), refuse)
        assert await content("a/old") == b"accepted"
        assert await artifacts.store.size("a/new") is None
        await artifacts.upload("a/old", body(b"again"), accept)
        assert await content("a/old") == b"again"
        assert list((tmp_path / "staging").iterdir()) == []

    asyncio.run(run())


@pytest.mark.parametrize("accepted", [True, False])
def test_an_upload_that_is_given_up_while_it_is_recorded_goes_by_its_event(
    tmp_path: Path, accepted: bool
) -> None:
    artifacts = keeper(tmp_path)

    async def accept(stored: Stored, replaced: bool) -> None:
        return

    async def run() -> bytes:
        await artifacts.upload("f", body(b"old"), accept)
        recording, heard = asyncio.Event(), asyncio.Event()

        async def record(stored: Stored, replaced: bool) -> None:
            recording.set()
            await heard.wait()
            if not accepted:
                raise Denied("no more")

        upload = asyncio.create_task(artifacts.upload("f", body(b"new"), record))
        await recording.wait()
        upload.cancel()
        await asyncio.sleep(0)
        heard.set()
        with pytest.raises(asyncio.CancelledError):
            await upload
        assert not artifacts.is_changing("f")
        assert list((tmp_path / "staging").iterdir()) == []
        return b"".join([chunk async for chunk in (await artifacts.store.get("f")).chunks])

    assert asyncio.run(run()) == (b"new" if accepted else b"old")


def test_an_upload_that_is_given_up_at_any_step_leaves_a_file_that_its_event_speaks_of(
    tmp_path: Path,
) -> None:
    artifacts = keeper(tmp_path)
    log = [b"0"]

    async def upload(number: int) -> None:
        content = b"%d" % number

        async def record(stored: Stored, replaced: bool) -> None:
            for _ in range(3):
                await asyncio.sleep(0)
            log.append(content)

        await artifacts.upload("f", body(content), record)

    async def run() -> None:
        await upload(0)
        for steps in range(1, 60):
            given_up = asyncio.create_task(upload(steps))
            for _ in range(steps):
                await asyncio.sleep(0.0002)
            given_up.cancel()
            await asyncio.wait([given_up])
            chunks = (await artifacts.store.get("f")).chunks
            assert b"".join([chunk async for chunk in chunks]) == log[-1]
            assert list((tmp_path / "staging").iterdir()) == []

    asyncio.run(run())
    assert len(log) > 2


def test_a_deletion_that_is_refused_half_way_removes_what_it_recorded(tmp_path: Path) -> None:
    artifacts = keeper(tmp_path)

    async def upload(stored: Stored, replaced: bool) -> None:
        return

    async def deletion(owners: Mapping[str, int]) -> AsyncIterator[str]:
        yield RUN
        raise Denied("no more")

    async def run() -> None:
        for path in ("0/loose", f"0/{RUN}/artifacts/a"):
            await artifacts.upload(path, body(b"1"), upload)
        with pytest.raises(Denied):
            await artifacts.delete("0", deletion)
        assert [entry.path async for entry in artifacts.store.walk("")] == ["0/loose"]

    asyncio.run(run())


def test_a_deletion_is_recorded_by_owner_before_the_files_go(tmp_path: Path) -> None:
    artifacts = keeper(tmp_path)
    seen: list[dict[str, int]] = []

    async def upload(stored: Stored, replaced: bool) -> None:
        return

    async def deletion(owners: Mapping[str, int]) -> AsyncIterator[str]:
        assert await artifacts.store.size("0/loose") == 1
        seen.append(dict(owners))
        for owner in owners:
            yield owner

    async def run() -> None:
        for path in ("0/loose", f"0/{RUN}/artifacts/a", f"0/{RUN}/artifacts/b/c"):
            await artifacts.upload(path, body(b"1"), upload)
        await artifacts.delete("0", deletion)
        await artifacts.delete("0", deletion)
        assert [entry async for entry in artifacts.store.walk("")] == []

    asyncio.run(run())
    assert seen == [{"0": 1, RUN: 2}]


def test_a_deletion_that_cannot_be_recorded_removes_nothing(tmp_path: Path) -> None:
    artifacts = keeper(tmp_path)

    async def upload(stored: Stored, replaced: bool) -> None:
        return

    async def deletion(owners: Mapping[str, int]) -> AsyncIterator[str]:
        raise ConnectionError
        yield ""  # makes this a generator

    async def run() -> None:
        await artifacts.upload("f", body(b"1"), upload)
        with pytest.raises(ConnectionError):
            await artifacts.delete("f", deletion)
        assert await artifacts.store.size("f") == 1
        assert not artifacts.is_changing("f")

    asyncio.run(run())


def test_events_of_one_path_come_in_the_order_of_its_contents(tmp_path: Path) -> None:
    artifacts = keeper(tmp_path)
    recorded: list[int] = []

    async def record(stored: Stored, replaced: bool) -> None:
        await asyncio.sleep(0)
        recorded.append(stored.size_bytes)

    async def run() -> None:
        uploads = (artifacts.upload("d/f", body(b"x" * n), record) for n in range(1, 20))
        await asyncio.gather(*uploads)
        assert await artifacts.store.size("d/f") == recorded[-1]

    asyncio.run(run())
    assert sorted(recorded) == list(range(1, 20))


def test_only_paths_that_overlap_exclude_each_other(tmp_path: Path) -> None:
    artifacts = keeper(tmp_path)
    together = asyncio.Barrier(2)

    async def meet(stored: Stored, replaced: bool) -> None:
        await together.wait()

    async def run() -> None:
        async with asyncio.timeout(10):
            await asyncio.gather(
                artifacts.upload("d/a", body(b"1"), meet),
                artifacts.upload("d/ab", body(b"1"), meet),
            )
        assert not artifacts.is_changing("")

    asyncio.run(run())


def test_verification_finds_what_differs(tmp_path: Path) -> None:
    artifacts = keeper(tmp_path)
    connection = duckdb.connect()
    ArtifactsProjection().create(connection)

    async def record(stored: Stored, replaced: bool) -> None:
        return

    async def put(path: str, content: bytes, recorded: bytes | None) -> None:
        await artifacts.upload(path, body(content), record)
        if recorded is not None:
            expected = await artifacts.parts.put("expected", body(recorded))
            row = [path, "o", expected.size_bytes, expected.sha256, 1, "me"]
            connection.execute("INSERT INTO artifacts VALUES (?, ?, ?, ?, ?, ?)", row)

    async def run() -> list[tuple[str, str]]:
        await put("good", b"1", b"1")
        await put("same-size", b"1", b"2")
        await put("longer", b"11", b"1")
        await put("unrecorded", b"1", None)
        await put("gone", b"1", b"1")
        await artifacts.store.delete("gone")
        found = verify_artifacts(artifacts.store, connection)
        return sorted([(finding.path, finding.kind) async for finding in found])

    assert asyncio.run(run()) == [
        ("gone", MISSING),
        ("longer", CHANGED),
        ("same-size", CHANGED),
        ("unrecorded", UNRECORDED),
    ]

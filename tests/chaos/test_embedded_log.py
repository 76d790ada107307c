"""What processes, disks and neighbours can do to the embedded log.

Run as a program, this file is the process that is killed, or that runs into a full disk:
`python test_embedded_log.py write|fill FILE` prints each acknowledged record as a line of its own.
"""

from __future__ import annotations

import asyncio
import gc
import os
import random
import resource
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Sequence
from contextlib import aclosing
from pathlib import Path

import pytest

from muniment_schemas.ids import Offset
from muniment_services.log import embedded
from muniment_services.log.base import (
    CATALOG,
    RUNS,
    LogCorrupt,
    LogUnavailable,
    NewRecord,
    Record,
    TopicPartition,
)
from muniment_services.log.embedded import EmbeddedLog

KILLS = 24
WRITERS = 32
FULL_AT_BYTES = 1_000_000
REFUSALS = 5
DEADLINE_S = 60

CAT = TopicPartition(CATALOG, 0)
RUN = tuple(TopicPartition(RUNS, partition) for partition in range(6))


def new(at: TopicPartition, value: str) -> NewRecord:
    return NewRecord(at, b"key", value.encode(), (("ce_type", b"RunCreated"),), 1_700_000_000_000)


def tell(record: Record) -> None:
    line = f"{record.at.partition} {record.offset} {record.value.decode().split()[0]}\n"
    os.write(1, line.encode())


async def write_until_killed(path: Path) -> None:
    log = EmbeddedLog(path)
    await log.start()

    async def write(writer: int) -> None:
        count = 0
        while True:
            count += 1
            value = f"{os.getpid()}-{writer}-{count} {'x' * (count % 700)}"
            tell(await log.append(new(RUN[(writer + count) % 6], value)))

    await asyncio.gather(*[write(writer) for writer in range(WRITERS)])


async def write_until_full(path: Path) -> None:
    """Write until the disk is full, stay full for a while, make room, write on."""
    log = EmbeddedLog(path)
    await log.start()
    refused = count = 0
    after_full = 100
    while after_full:
        count += 1
        try:
            tell(await log.append(new(RUN[count % 6], f"{count} {'x' * 4000}")))
        except LogUnavailable as error:
            refused += 1
            os.write(1, f"refused {count} {type(error).__name__}\n".encode())
            if refused == REFUSALS:
                make_room()
        if refused >= REFUSALS:
            after_full -= 1
    await log.close()


def make_room() -> None:
    hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))


def limit_files() -> None:
    hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    resource.setrlimit(resource.RLIMIT_FSIZE, (FULL_AT_BYTES, hard))


def spawn(mode: str, path: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, __file__, mode, str(path)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )


def acknowledged(lines: Sequence[str]) -> dict[tuple[int, int], str]:
    """(partition, offset) -> first word of the value, without a line that the kill cut off."""
    whole = [line.split() for line in lines if line.endswith("\n") and "refused" not in line]
    found = {(int(partition), int(offset)): word for partition, offset, word in whole}
    assert len(found) == len(whole), "an offset was acknowledged twice"
    return found


async def contents(path: Path) -> dict[tuple[int, int], str]:
    """Everything in the runs topic, read beside whoever writes; offsets checked for holes."""
    log = EmbeddedLog(path, read_only=True)
    await log.start()
    ends = await log.end_offsets()
    found: dict[tuple[int, int], str] = {}
    for at in RUN:
        due = 0
        while batch := log.read(at, Offset(due)):
            for record in batch:
                assert record.offset == due
                found[at.partition, due] = record.value.decode().split()[0]
                due += 1
        assert due >= ends[at]
    await log.close()
    return found


@pytest.mark.slow
def test_what_was_acknowledged_outlives_kill_9(tmp_path: Path) -> None:
    path, chance = tmp_path / "log.sqlite", random.Random(20)
    known: dict[tuple[int, int], str] = {}
    for _ in range(KILLS):
        with spawn("write", path) as process:
            assert process.stdout is not None
            lines = [process.stdout.readline() for _ in range(chance.randint(1, 1500))]
            process.kill()
            lines += process.stdout.readlines()
        answers = acknowledged(lines)
        assert answers
        assert not known.keys() & answers.keys(), "an offset was given out again"
        known |= answers
        found = asyncio.run(contents(path))
        assert known.items() <= found.items()
        assert len(set(found.values())) == len(found), "a record is there twice"


def test_a_full_disk_refuses_and_recovers(tmp_path: Path) -> None:
    path = tmp_path / "log.sqlite"
    with spawn("fill", path) as process:
        assert process.stdout is not None
        lines = process.stdout.readlines()
    assert process.returncode == 0
    refused = [line.split() for line in lines if line.startswith("refused")]
    assert len(refused) == REFUSALS
    found = asyncio.run(contents(path))
    assert found == acknowledged(lines)
    assert not {word for _, word, _ in refused} & set(found.values())


class Faulty(sqlite3.Connection):
    """A connection whose next INSERT fails: before it is done, or after it has reached the disk.

    `fault` is "before", "after", or "doubt": after, and then the record cannot be read back either.
    """

    fault = ""

    def execute(self, sql: str, *parameters: object) -> sqlite3.Cursor:
        fault = Faulty.fault
        if sql.startswith("INSERT INTO record") and fault:
            Faulty.fault = "reading" if fault == "doubt" else ""
            if fault != "before":
                super().execute(sql, *parameters)  # type: ignore[arg-type]
            raise sqlite3.OperationalError("disk I/O error")
        if sql.startswith("SELECT id, timestamp_ms") and fault == "reading":
            Faulty.fault = ""
            raise sqlite3.OperationalError("disk I/O error")
        return super().execute(sql, *parameters)  # type: ignore[arg-type]


@pytest.fixture
def faulty(monkeypatch: pytest.MonkeyPatch) -> type[Faulty]:
    connect = sqlite3.connect
    monkeypatch.setattr(
        sqlite3, "connect", lambda *args, **named: connect(*args, **named, factory=Faulty)
    )
    monkeypatch.setattr(Faulty, "fault", "")
    return Faulty


def test_a_failed_commit_that_reached_the_disk_is_acknowledged(
    tmp_path: Path, faulty: type[Faulty]
) -> None:
    async def run() -> None:
        log = EmbeddedLog(tmp_path / "log.sqlite")
        await log.start()
        follower = log.follow({CAT: Offset(0)})
        faulty.fault = "after"
        first = await log.append(new(CAT, "first"))
        assert first.offset == 0
        assert faulty.fault == ""
        assert list(await anext(follower)) == [first]
        second = await log.append(new(CAT, "second"))
        assert second.offset == 1
        assert list(await anext(follower)) == [second]
        await log.close()

    asyncio.run(run())


def test_a_failed_commit_that_did_not_is_refused(tmp_path: Path, faulty: type[Faulty]) -> None:
    async def run() -> None:
        log = EmbeddedLog(tmp_path / "log.sqlite")
        await log.start()
        faulty.fault = "before"
        with pytest.raises(LogUnavailable, match="disk I/O error"):
            await log.append(new(CAT, "first"))
        assert (await log.append(new(CAT, "second"))).offset == 0
        await log.close()

    asyncio.run(run())


def test_a_refused_record_that_was_written_takes_its_offset(
    tmp_path: Path, faulty: type[Faulty]
) -> None:
    async def run() -> None:
        log = EmbeddedLog(tmp_path / "log.sqlite")
        await log.start()
        follower = log.follow({CAT: Offset(0)})
        zero = await log.append(new(CAT, "zero"))
        assert list(await anext(follower)) == [zero]
        waiting = asyncio.ensure_future(anext(follower))
        await asyncio.sleep(0)
        faulty.fault = "doubt"
        with pytest.raises(LogUnavailable):
            await log.append(new(CAT, "one"))
        two = await log.append(new(CAT, "two"))
        assert two.offset == 2
        found = list(await waiting)
        assert [record.value for record in found] == [b"one", b"two"]
        await log.close()

    asyncio.run(run())


def test_a_record_that_sqlite_cannot_hold_fails_alone(tmp_path: Path) -> None:
    async def run() -> None:
        log = EmbeddedLog(tmp_path / "log.sqlite")
        await log.start()
        with pytest.raises(LogUnavailable):
            await log.append(NewRecord(CAT, b"", b"", (), 2**70))
        assert (await log.append(new(CAT, "next"))).offset == 0
        await log.close()

    asyncio.run(run())


def test_a_second_writer_is_told_who_writes(tmp_path: Path) -> None:
    path = tmp_path / "log.sqlite"

    async def second() -> None:
        with pytest.raises(LogUnavailable, match=rf"process {process.pid} "):
            await EmbeddedLog(path).start()

    with spawn("write", path) as process:
        assert process.stdout is not None
        process.stdout.readline()
        asyncio.run(second())
        process.kill()
        process.stdout.readlines()

    async def next_one() -> None:
        log = EmbeddedLog(path)
        await log.start()
        await log.append(new(CAT, "mine"))
        await log.close()
        log = EmbeddedLog(path)
        await log.start()
        assert (await log.end_offsets())[CAT] == 1
        await log.close()

    asyncio.run(next_one())


def test_a_reader_follows_another_process(tmp_path: Path) -> None:
    path = tmp_path / "log.sqlite"

    async def follow(count: int) -> list[Record]:
        log = EmbeddedLog(path, read_only=True)
        await log.start()
        with pytest.raises(LogUnavailable, match="read only"):
            log.append(new(CAT, "not mine"))
        found: list[Record] = []
        async with (
            asyncio.timeout(DEADLINE_S),
            aclosing(log.follow(dict.fromkeys(RUN, Offset(0)))) as batches,  # type: ignore[type-var]
        ):
            while len(found) < count:
                found += await anext(batches)
        await log.close()
        return found

    with spawn("write", path) as process:
        assert process.stdout is not None
        lines = [process.stdout.readline()]
        found = asyncio.run(follow(3000))
        process.kill()
        lines += process.stdout.readlines()
    for at in RUN:
        offsets = [record.offset for record in found if record.at == at]
        assert offsets == list(range(len(offsets)))
    words = {(r.at.partition, int(r.offset)): r.value.decode().split()[0] for r in found}
    answers = acknowledged(lines)
    assert words.keys() & answers.keys()
    assert all(answers[place] == words[place] for place in words.keys() & answers.keys())


def test_close_ends_a_reading_follower(tmp_path: Path) -> None:
    async def run() -> None:
        writer = EmbeddedLog(tmp_path / "log.sqlite")
        await writer.start()
        written = await writer.append(new(CAT, "a"))
        log = EmbeddedLog(tmp_path / "log.sqlite", read_only=True)
        await log.start()
        follower = log.follow({CAT: Offset(0)})
        assert list(await anext(follower)) == [written]
        waiting = asyncio.ensure_future(anext(follower, None))
        await asyncio.sleep(0)
        await log.close()
        assert await asyncio.wait_for(waiting, DEADLINE_S) is None
        await writer.close()

    asyncio.run(run())


@pytest.mark.parametrize("closed_first", [True, False], ids=["closed", "with its WAL"])
def test_a_copied_folder_can_be_read(tmp_path: Path, closed_first: bool) -> None:
    async def run() -> None:
        log = EmbeddedLog(tmp_path / "data" / "log.sqlite", runs_partitions=2)
        await log.start()
        records = await asyncio.gather(*[log.append(new(CAT, f"{n}")) for n in range(50)])
        if closed_first:
            await log.close()
        shutil.copytree(tmp_path / "data", tmp_path / "copy")
        (tmp_path / "copy" / "log.sqlite-shm").unlink(missing_ok=True)
        copy = EmbeddedLog(tmp_path / "copy" / "log.sqlite", read_only=True)
        await copy.start()
        assert copy.partitions[RUNS] == 2
        assert copy.log_id == log.log_id != ""
        assert list(copy.read(CAT, Offset(0))) == records
        await copy.close()
        await log.close()

    asyncio.run(run())


def test_the_partition_count_is_fixed(tmp_path: Path) -> None:
    async def run() -> None:
        log = EmbeddedLog(tmp_path / "log.sqlite", runs_partitions=3)
        await log.start()
        await log.close()
        with pytest.raises(LogCorrupt, match="runs_partitions=3"):
            await EmbeddedLog(tmp_path / "log.sqlite", runs_partitions=4).start()
        await (again := EmbeddedLog(tmp_path / "log.sqlite", runs_partitions=3)).start()
        assert again.log_id == log.log_id
        await again.close()

    asyncio.run(run())


@pytest.mark.parametrize("read_only", [True, False])
def test_a_file_that_is_not_a_log_is_refused(tmp_path: Path, read_only: bool) -> None:
    text, other, future = (tmp_path / name for name in ("text", "other", "future"))
    text.write_text("not a database\n" * 500)
    for path, statements in {
        other: ["CREATE TABLE unrelated (a)"],
        future: [
            "CREATE TABLE record (id INTEGER PRIMARY KEY)",
            "CREATE TABLE meta (name, value)",
            "INSERT INTO meta VALUES ('layout', '2')",
        ],
    }.items():
        connection = sqlite3.connect(path, isolation_level=None)
        for statement in statements:
            connection.execute(statement)
        connection.close()

    async def run() -> None:
        for path, reason in {
            text: "damaged",
            other: "not an event log",
            future: "layout 2",
        }.items():
            with pytest.raises(LogCorrupt, match=reason):
                await EmbeddedLog(path, read_only=read_only).start()

    asyncio.run(run())


def test_nothing_to_read_and_nowhere_to_write(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    async def run() -> None:
        with pytest.raises(LogUnavailable, match="no log at"):
            await EmbeddedLog(tmp_path / "none.sqlite", read_only=True).start()
        with pytest.raises(LogUnavailable):
            await EmbeddedLog(tmp_path / "file" / "log.sqlite").start()
        assert not (tmp_path / "none.sqlite").exists()

    asyncio.run(run())


def test_a_hole_is_found(tmp_path: Path) -> None:
    path = tmp_path / "log.sqlite"

    async def run() -> None:
        log = EmbeddedLog(path)
        await log.start()
        await asyncio.gather(*[log.append(new(CAT, f"{n}")) for n in range(5)])
        with sqlite3.connect(path) as connection:
            connection.execute("DELETE FROM record WHERE id = 2")
        connection.close()
        assert len(log.read(CAT, Offset(0), records_max=2)) == 2
        for start in (0, 2):
            with pytest.raises(LogCorrupt, match="no record catalog/0 2"):
                log.read(CAT, Offset(start))
        await log.close()

    asyncio.run(run())


def records_in_memory() -> int:
    return sum(isinstance(thing, Record) for thing in gc.get_objects())


def test_a_stalled_follower_holds_a_bounded_number_of_records(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedded, "FOLLOW_RECORDS_MAX", 50)

    async def run() -> None:
        before = records_in_memory()
        log = EmbeddedLog(tmp_path / "log.sqlite")
        await log.start()
        follower = log.follow({CAT: Offset(0)})
        await log.append(new(CAT, "0"))
        found = [record.offset for record in await anext(follower)]
        waiting = asyncio.ensure_future(anext(follower))
        await asyncio.sleep(0)
        await log.append(new(CAT, "1"))
        found += [record.offset for record in await waiting]  # It follows live from here on.
        for n in range(2, 1000):
            await log.append(new(CAT, f"{n}"))
        assert records_in_memory() - before < 100
        while len(found) < 1000:
            found += [record.offset for record in await anext(follower)]
        assert found == list(range(1000))
        await log.close()

    asyncio.run(run())


if __name__ == "__main__":
    if sys.argv[1] == "fill":
        limit_files()
        asyncio.run(write_until_full(Path(sys.argv[2])))
    else:
        asyncio.run(write_until_killed(Path(sys.argv[2])))

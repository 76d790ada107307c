"""A log carried from any place to any other: every record at its offset, byte for byte."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from harness.event_log import CAT, RUN, appended, read_all
from harness.memory_log import MemoryLog
from muniment_services.log.base import NewRecord
from muniment_services.log.embedded import EmbeddedLog
from muniment_services.log_copy import CopyDiffers, CopyRefused, LogCopy

if TYPE_CHECKING:
    from contract.conftest import LogHome

RECORDS = 2_500


def records(seed: int, count: int = RECORDS) -> list[NewRecord]:
    chance = random.Random(seed)
    return [
        NewRecord(
            chance.choice((CAT, *RUN)),
            chance.randbytes(8),
            chance.randbytes(chance.randrange(200)),
            (("ce_id", chance.randbytes(4)), ("ce_type", b"x")),
            1_700_000_000_000 + n,
        )
        for n in range(count)
    ]


async def filled(seed: int = 1) -> MemoryLog:
    log = MemoryLog()
    await log.start()
    await appended(log, records(seed))
    return log


def nothing(_: int) -> None:
    """No progress is shown."""


def test_every_record_arrives_at_its_place(new_home: Callable[[], LogHome]) -> None:
    async def run() -> None:
        source, home = await filled(), new_home()
        target = home.open()
        await target.start()
        done = 0

        def told(more: int) -> None:
            nonlocal done
            done += more

        copy = LogCopy(source, target)
        assert await copy.missing() == RECORDS
        assert await copy.run(told) == done == RECORDS
        found = await copy.verify(nothing)
        assert found.records == RECORDS
        for at in (CAT, *RUN):
            assert read_all(target, at) == read_all(source, at)
        # A source that has grown is copied further; nothing is copied twice.
        await appended(source, records(2, 10))
        assert await copy.run(nothing) == 10
        assert (await copy.verify(nothing)).sha256 != found.sha256
        await target.close()

    asyncio.run(run())


def test_back_again_gives_the_same_log(new_home: Callable[[], LogHome], tmp_path: Path) -> None:
    async def run() -> None:
        source, there = await filled(), new_home().open()
        back = EmbeddedLog(tmp_path / "back.sqlite")
        await there.start()
        await back.start()
        await LogCopy(source, there).run(nothing)
        await LogCopy(there, back).run(nothing)
        again = await LogCopy(source, back).verify(nothing)
        assert again == await LogCopy(source, there).verify(nothing)
        await there.close()
        await back.close()

    asyncio.run(run())


def test_a_target_that_has_other_records_is_refused() -> None:
    async def run() -> None:
        source, other, longer = await filled(1), await filled(2), await filled(1)
        with pytest.raises(CopyRefused):
            await LogCopy(source, other).run(nothing)
        await appended(longer, records(3, 5))
        with pytest.raises(CopyRefused, match="another log"):
            await LogCopy(source, longer).run(nothing)

    asyncio.run(run())


def test_other_partition_counts_are_refused() -> None:
    async def run() -> None:
        with pytest.raises(CopyRefused, match="runs_partitions"):
            await LogCopy(await filled(), MemoryLog(runs_partitions=3)).run(nothing)

    asyncio.run(run())


def test_one_changed_byte_is_found() -> None:
    async def run() -> None:
        source, target = await filled(1), await filled(1)
        await LogCopy(source, target).verify(nothing)
        stored = target.stored[RUN[1]]
        stored[7] = type(stored[7])(
            stored[7].at, stored[7].offset, stored[7].key, b"other", stored[7].headers, 1
        )
        with pytest.raises(CopyDiffers, match="runs/1@7"):
            await LogCopy(source, target).verify(nothing)

    asyncio.run(run())

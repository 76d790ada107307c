"""What every EventLog promises, tried on every implementation."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import aclosing
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from harness.event_log import (
    CAT,
    DEADLINE_S,
    RUN,
    appended,
    followed,
    followed_to_the_end,
    new,
    of,
    opened,
    read_all,
    since,
    stored,
)
from harness.examples import examples
from muniment_schemas.ids import Offset
from muniment_services.log.base import (
    IN_FLIGHT_BYTES_MAX,
    IN_FLIGHT_RECORDS_MAX,
    RECORD_BYTES_MAX,
    LogBackpressure,
    LogUnavailable,
    NewRecord,
    Record,
    RecordTooLarge,
    TopicPartition,
    topics,
)

if TYPE_CHECKING:
    from contract.conftest import LogHome


def test_a_new_log_is_empty(home: LogHome) -> None:
    async def run() -> None:
        async with opened(home) as log:
            assert dict(log.partitions) == topics()
            ends = await log.end_offsets()
            assert set(ends.values()) == {0}
            assert len(ends) == sum(topics().values())
            assert list(log.read(CAT, Offset(0))) == []

    asyncio.run(run())


def test_offsets_follow_the_calls_without_holes(home: LogHome) -> None:
    async def run() -> None:
        async with opened(home) as log:
            news = [new(RUN[n % 3], f"{n}") for n in range(900)]
            records = await appended(log, news)
            assert records == [stored(one, n // 3) for n, one in enumerate(news)]
            for at in RUN:
                assert read_all(log, at) == of(records, at)
                assert (await log.end_offsets())[at] == 300

    asyncio.run(run())


def test_topic_partitions_do_not_see_each_other(home: LogHome) -> None:
    async def run() -> None:
        async with opened(home) as log:
            places = list(await log.end_offsets())
            news = [new(at, f"{at} {n}") for at in places for n in range(3)]
            records = await appended(log, news)
            for at in places:
                assert [record.offset for record in of(records, at)] == [0, 1, 2]
                assert read_all(log, at) == of(records, at)

    asyncio.run(run())


@pytest.mark.parametrize(
    "record",
    [
        NewRecord(CAT, b"", b"", (), 0),
        NewRecord(CAT, b"\x00\xff", b"\x00", (("ce_type", b""),), 1),
        NewRecord(CAT, b"k", b"\xc3\x01" * 9, (("a", b"1"), ("a", b"2"), ("é", b"\xff")), 2**52),
        NewRecord(CAT, b"k", bytes(range(256)) * 1000, (), 1_700_000_000_000),
    ],
    ids=["empty", "zero bytes", "repeated header names", "a quarter of a megabyte"],
)
def test_a_record_is_read_back_byte_for_byte(home: LogHome, record: NewRecord) -> None:
    async def run() -> None:
        async with opened(home) as log:
            assert await log.append(record) == stored(record, 0)
            assert list(log.read(CAT, Offset(0))) == [stored(record, 0)]

        async with opened(home) as log:
            assert list(log.read(CAT, Offset(0))) == [stored(record, 0)]

    asyncio.run(run())


def test_what_was_acknowledged_is_there_for_the_next_instance(home: LogHome) -> None:
    async def run() -> None:
        expected: list[Record] = []
        for instance in range(4):
            async with opened(home) as log:
                assert read_all(log, CAT) == expected
                expected += await appended(log, [new(CAT, f"{instance} {n}") for n in range(5)])
        assert [record.offset for record in expected] == list(range(20))

    asyncio.run(run())


def test_read_limits(home: LogHome) -> None:
    async def run() -> None:
        async with opened(home) as log:
            records = await appended(log, [new(CAT, b"x" * 1000) for _ in range(10)])
            assert list(log.read(CAT, Offset(3), records_max=4)) == records[3:7]
            assert list(log.read(CAT, Offset(9), records_max=4)) == records[9:]
            assert list(log.read(CAT, Offset(10))) == []
            assert list(log.read(CAT, Offset(11))) == []
            assert list(log.read(CAT, Offset(0), bytes_max=1)) == records[:1]
            assert 2 <= len(log.read(CAT, Offset(0), bytes_max=2500)) <= 3

    asyncio.run(run())


def test_read_works_in_other_threads(home: LogHome) -> None:
    async def run() -> None:
        async with opened(home) as log:
            records = await appended(log, [new(CAT, f"{n}") for n in range(200)])
            reads = [asyncio.to_thread(read_all, log, CAT, 7) for _ in range(12)]
            assert await asyncio.gather(*reads) == [records] * 12

    asyncio.run(run())


def test_a_record_that_is_too_large_is_refused_at_once(home: LogHome) -> None:
    async def run() -> None:
        async with opened(home) as log:
            with pytest.raises(RecordTooLarge) as refused:
                log.append(new(CAT, bytes(RECORD_BYTES_MAX + 1)))
            assert refused.value.size_bytes == RECORD_BYTES_MAX + 1
            largest = await log.append(new(CAT, bytes(RECORD_BYTES_MAX)))
            assert largest.offset == 0
            assert list(log.read(CAT, Offset(0))) == [largest]

    asyncio.run(run())


def test_too_many_records_in_flight(home: LogHome) -> None:
    async def run() -> None:
        async with opened(home) as log:
            futures = [log.append(new(RUN[0], b"")) for _ in range(IN_FLIGHT_RECORDS_MAX)]
            with pytest.raises(LogBackpressure):
                log.append(new(RUN[0]))
            records = await asyncio.gather(*futures)
            assert [record.offset for record in records] == list(range(IN_FLIGHT_RECORDS_MAX))
            assert (await log.append(new(RUN[0]))).offset == IN_FLIGHT_RECORDS_MAX

    asyncio.run(run())


def test_too_many_bytes_in_flight(home: LogHome) -> None:
    async def run() -> None:
        async with opened(home) as log:
            fitting = IN_FLIGHT_BYTES_MAX // RECORD_BYTES_MAX
            large = new(RUN[0], bytes(RECORD_BYTES_MAX))
            futures = [log.append(large) for _ in range(fitting)]
            with pytest.raises(LogBackpressure):
                log.append(large)
            await asyncio.gather(*futures)
            assert (await log.append(large)).offset == fitting

    asyncio.run(run())


def test_a_broken_storage_fails_the_futures_and_leaves_no_hole(home: LogHome) -> None:
    async def run() -> None:
        async with opened(home) as log:
            kept = await appended(log, [new(CAT, "a"), new(RUN[0], "b")])
            home.break_writes()
            futures = [log.append(new(RUN[n % 3], "lost")) for n in range(30)]
            outcomes = await asyncio.gather(*futures, return_exceptions=True)
            assert {type(outcome) for outcome in outcomes} == {LogUnavailable}
            assert read_all(log, RUN[0]) == of(kept, RUN[0])
            home.mend_writes()
            kept += await appended(log, [new(RUN[n % 3], f"{n}") for n in range(6)])
            assert [record.offset for record in kept] == [0, 0, 1, 0, 0, 2, 1, 1]
        async with opened(home) as log:
            for at in (CAT, *RUN):
                assert read_all(log, at) == of(kept, at)

    asyncio.run(run())


def test_what_failed_is_no_longer_in_flight(home: LogHome) -> None:
    async def run() -> None:
        async with opened(home) as log:
            large = new(RUN[0], bytes(RECORD_BYTES_MAX))
            more_than_half = IN_FLIGHT_BYTES_MAX // RECORD_BYTES_MAX // 2 + 1
            home.break_writes()
            futures = [log.append(large) for _ in range(more_than_half)]
            outcomes = await asyncio.gather(*futures, return_exceptions=True)
            assert {type(outcome) for outcome in outcomes} == {LogUnavailable}
            home.mend_writes()
            records = await appended(log, [large] * more_than_half)
            assert [record.offset for record in records] == list(range(more_than_half))

    asyncio.run(run())


def test_followers_do_not_see_what_failed(home: LogHome) -> None:
    async def run() -> None:
        async with opened(home) as log:
            follower = asyncio.create_task(followed(log, since(0, CAT), 20))
            kept = await appended(log, [new(CAT, f"{n}") for n in range(10)])
            home.break_writes()
            with pytest.raises(LogUnavailable):
                await log.append(new(CAT, "lost"))
            home.mend_writes()
            kept += await appended(log, [new(CAT, f"{n}") for n in range(10, 20)])
            assert await follower == kept

    asyncio.run(run())


def test_a_waiter_that_gives_up_breaks_nothing(home: LogHome) -> None:
    async def run() -> None:
        async with opened(home) as log:
            futures = [log.append(new(CAT, f"{n}")) for n in range(100)]
            for future in futures[::2]:
                future.cancel()
            kept = await asyncio.gather(*futures[1::2])
            assert [record.value for record in kept] == [b"%d" % n for n in range(1, 100, 2)]
            last = await log.append(new(CAT, "last"))
            records = read_all(log, CAT)
            assert [record.offset for record in records] == list(range(last.offset + 1))
            assert [record for record in records if record in kept] == list(kept)

    asyncio.run(run())


def test_follow_from_every_cut(home: LogHome) -> None:
    async def run() -> None:
        async with opened(home) as log:
            records = await appended(log, [new(CAT, f"{n}") for n in range(25)])
            for cut in range(25):
                assert await followed(log, since(cut, CAT), 25 - cut) == records[cut:]
            follower = asyncio.create_task(followed(log, since(25, CAT), 1))
            await asyncio.sleep(0)
            records.append(await log.append(new(CAT, "25")))
            assert await follower == records[25:]

    asyncio.run(run())


def test_follow_gives_only_what_was_asked_for(home: LogHome) -> None:
    async def run() -> None:
        async with opened(home) as log:
            follower = asyncio.create_task(
                followed(log, {RUN[0]: Offset(2), RUN[1]: Offset(0)}, 18)
            )
            news = [new(at, f"{n}") for n in range(10) for at in (CAT, *RUN)]
            records = await appended(log, news)
            found = await follower
            assert of(found, RUN[0]) == of(records, RUN[0])[2:]
            assert of(found, RUN[1]) == of(records, RUN[1])
            assert len(found) == 18

    asyncio.run(run())


def test_several_followers_while_appending(home: LogHome) -> None:
    async def run() -> None:
        async with opened(home) as log:

            async def writer(name: int) -> list[Record]:
                return [await log.append(new(RUN[n % 3], f"{name} {n}")) for n in range(120)]

            followers: list[asyncio.Task[list[Record]]] = []
            writers = [asyncio.create_task(writer(name)) for name in range(8)]
            while not all(task.done() for task in writers):
                if len(followers) < 20:
                    followers.append(asyncio.create_task(followed(log, since(0, *RUN), 960)))
                await asyncio.sleep(0)
            written = [record for task in writers for record in await task]
            for follower in followers:
                found = await follower
                assert len(found) == len(written) == 960
                for at in RUN:
                    by_offset = sorted(of(written, at), key=lambda record: record.offset)
                    assert of(found, at) == by_offset

    asyncio.run(run())


def test_a_slow_follower_misses_nothing(home: LogHome) -> None:
    async def run() -> None:
        async with opened(home) as log:
            async with aclosing(log.follow(since(0, *RUN))) as batches:  # type: ignore[type-var]
                news = [new(RUN[n % 3], f"{n}") for n in range(25_000)]
                written = await appended(log, news[:10])
                found = list(await anext(batches))
                written += await appended(log, news[10:])
                while len(found) < len(news):
                    found += await anext(batches)
            for at in RUN:
                assert of(found, at) == of(written, at)

    asyncio.run(run())


def test_close_writes_what_is_queued_and_ends_the_followers(home: LogHome) -> None:
    async def run() -> None:
        log = home.open()
        await log.start()
        follower = asyncio.create_task(followed_to_the_end(log, since(0, CAT)))
        late = log.follow(since(0, CAT))
        first = await log.append(new(CAT, "first"))
        futures = [log.append(new(CAT, f"{n}")) for n in range(500)]
        await log.close()
        assert all(future.done() for future in futures)
        records = [first] + [future.result() for future in futures]
        assert await asyncio.wait_for(follower, DEADLINE_S) == records
        assert [record async for batch in late for record in batch] == records
        async with opened(home) as log:
            assert read_all(log, CAT) == records

    asyncio.run(run())


def test_close_twice_and_use_afterwards(home: LogHome) -> None:
    async def run() -> None:
        log = home.open()
        await log.start()
        await log.append(new(CAT))
        await asyncio.gather(log.close(), log.close())
        await log.close()
        with pytest.raises(LogUnavailable):
            log.append(new(CAT))
        with pytest.raises(LogUnavailable):
            log.read(CAT, Offset(0))

    asyncio.run(run())


def test_a_log_that_was_never_started_takes_nothing_and_closes(home: LogHome) -> None:
    async def run() -> None:
        log = home.open()
        with pytest.raises(LogUnavailable):
            log.append(new(CAT))
        await log.close()

    asyncio.run(run())


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("append"), st.integers(0, 2), st.integers(1, 40)),
        st.tuples(st.just("cancel"), st.integers(0, 2), st.just(1)),
        st.tuples(st.just("follow"), st.integers(0, 2), st.integers(0, 5)),
        st.tuples(st.just("turn"), st.just(0), st.integers(1, 5)),
        st.tuples(st.just("settle"), st.just(0), st.just(0)),
        st.tuples(st.just("reopen"), st.just(0), st.just(0)),
    ),
    max_size=25,
)


class Play:
    """Steps in any order on one home, with a plain list as what must come out."""

    def __init__(self, home: LogHome) -> None:
        self.home = home
        self.count = 0
        self.expected: dict[TopicPartition, list[Record]] = {at: [] for at in RUN}
        self.futures: list[asyncio.Future[Record]] = []
        self.followers: list[tuple[TopicPartition, int, asyncio.Task[list[Record]]]] = []

    async def run(self, steps: Sequence[tuple[str, int, int]]) -> None:
        await self.start()
        for step, place, amount in steps:
            if step in ("append", "cancel"):
                self.append(RUN[place], amount, step == "cancel")
            elif step == "follow":
                cut = min(amount, len(self.expected[RUN[place]]))
                following = followed_to_the_end(self.log, since(cut, RUN[place]))
                self.followers.append((RUN[place], cut, asyncio.create_task(following)))
            elif step == "turn":
                for _ in range(amount):
                    await asyncio.sleep(0)
            elif step == "settle":
                await asyncio.gather(*self.futures)
            else:
                await self.stop()
                await self.start()
        await self.stop()

    def append(self, at: TopicPartition, amount: int, cancelled: bool) -> None:
        for _ in range(amount):
            self.count += 1
            record = new(at, f"{self.count}")
            self.expected[at].append(stored(record, len(self.expected[at])))
            future = self.log.append(record)
            if cancelled:
                future.cancel()
            else:
                self.futures.append(future)

    async def start(self) -> None:
        self.log = self.home.open()
        await self.log.start()
        for at in RUN:
            assert read_all(self.log, at, 11) == self.expected[at]

    async def stop(self) -> None:
        # A follower that has not begun would find the log closed; that is tried elsewhere.
        await asyncio.sleep(0)
        await self.log.close()
        for future in self.futures:
            record = future.result()
            assert self.expected[record.at][record.offset] == record
        for at, cut, task in self.followers:
            assert await asyncio.wait_for(task, DEADLINE_S) == self.expected[at][cut:]
        self.futures.clear()
        self.followers.clear()


@settings(
    max_examples=examples(20),
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(steps=STEPS)
def test_any_order_of_steps(
    new_home: Callable[[], LogHome], steps: list[tuple[str, int, int]]
) -> None:
    asyncio.run(check(new_home(), steps))


async def check(home: LogHome, steps: Sequence[tuple[str, int, int]]) -> None:
    play = Play(home)
    await play.run(steps)
    assert sum(len(records) for records in play.expected.values()) == play.count

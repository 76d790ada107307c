"""What the log on Kafka promises beyond the contract of all logs: its topics, its producer."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path

import pytest
from kafka import KafkaProducer
from kafka import TopicPartition as KafkaPartition
from kafka.admin import KafkaAdminClient
from local_kafka import Cluster

from harness.brokers import (
    admin,
    await_brokers,
    cluster,
    delete_topic,
    fresh_prefix,
    set_topic_config,
)
from harness.event_log import CAT, RUN, appended, new, read_all
from muniment_schemas.ids import Offset
from muniment_services.log import kafka_reader
from muniment_services.log.base import (
    LogCorrupt,
    LogUnavailable,
    NewRecord,
    Record,
    topics,
)
from muniment_services.log.kafka import KafkaLog
from muniment_services.log.kafka_connection import Brokers
from muniment_services.log.kafka_producer import APPEND_S_MAX, REQUEST_S_MAX, WATCH_S

pytestmark = pytest.mark.slow

HEALED_WITHIN_S = 30.0
CLEAR_WITHIN_S = 30.0


@pytest.fixture
def prefix() -> str:
    return fresh_prefix()


def log_at(bootstrap: str, prefix: str, **options: object) -> KafkaLog:
    return KafkaLog(Brokers(tuple(bootstrap.split(","))), prefix=prefix, **options)  # type: ignore[arg-type]


async def made(bootstrap: str, prefix: str) -> None:
    log = log_at(bootstrap, prefix)
    await log.start()
    await log.close()


def configs(client: KafkaAdminClient, topic: str) -> dict[str, str]:
    from kafka.admin import ConfigResource, ConfigResourceType

    resource = ConfigResource(ConfigResourceType.TOPIC, topic)
    found = client.describe_configs([resource], config_filter="all")["topic"][topic]
    return {name: str(entry["value"]) for name, entry in found.items()}


def test_topics_are_made_so_that_nothing_can_go(kafka: str, prefix: str) -> None:
    asyncio.run(made(kafka, prefix))
    with admin(kafka) as client:
        for topic, partitions in topics().items():
            (found,) = client.describe_topics([f"{prefix}.{topic}"])
            assert len(found["partitions"]) == partitions
            has = configs(client, f"{prefix}.{topic}")
            assert has["cleanup.policy"] == "delete"
            assert has["retention.ms"] == has["retention.bytes"] == "-1"
            assert has["unclean.leader.election.enable"] == "false"
            assert has["message.timestamp.type"] == "CreateTime"


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("retention.ms", "604800000"),
        ("retention.bytes", "1073741824"),
        ("cleanup.policy", "compact"),
        ("unclean.leader.election.enable", "true"),
        ("max.message.bytes", "1048588"),
        ("message.timestamp.type", "LogAppendTime"),
    ],
)
def test_a_topic_that_could_lose_events_is_refused_with_the_command_that_mends_it(
    kafka: str, prefix: str, setting: str, value: str
) -> None:
    asyncio.run(made(kafka, prefix))
    set_topic_config(kafka, f"{prefix}.runs", setting, value)
    with pytest.raises(LogCorrupt) as refused:
        asyncio.run(made(kafka, prefix))
    message = str(refused.value)
    assert f"{prefix}.runs" in message
    assert f"kafka-configs.sh --bootstrap-server {kafka} --alter" in message
    changed = message.rpartition("--add-config ")[2]
    for name, mended in (part.split("=") for part in changed.split(",")):
        set_topic_config(kafka, f"{prefix}.runs", name, mended)
    asyncio.run(made(kafka, prefix))


def test_other_partition_counts_are_refused(kafka: str, prefix: str) -> None:
    asyncio.run(made(kafka, prefix))

    async def with_more() -> None:
        await log_at(kafka, prefix, runs_partitions=12).start()

    with pytest.raises(LogCorrupt, match="6 partitions"):
        asyncio.run(with_more())


def test_one_topic_of_several_that_is_gone_is_not_made_anew(kafka: str, prefix: str) -> None:
    asyncio.run(made(kafka, prefix))
    delete_topic(kafka, f"{prefix}.runs")
    with pytest.raises(LogCorrupt, match=f"{prefix}.runs is not"):
        asyncio.run(made(kafka, prefix))


def test_reading_makes_no_topics(kafka: str, prefix: str) -> None:
    async def read() -> None:
        await log_at(kafka, prefix, read_only=True).start()

    with pytest.raises(LogUnavailable, match="there is no topic"):
        asyncio.run(read())
    with admin(kafka) as client:
        assert not [name for name in client.list_topics() if name.startswith(prefix)]


def test_a_log_made_anew_has_another_id(kafka: str, prefix: str) -> None:
    async def log_id() -> str:
        log = log_at(kafka, prefix)
        await log.start()
        await log.close()
        return log.log_id

    first = asyncio.run(log_id())
    assert asyncio.run(log_id()) == first
    for topic in topics():
        delete_topic(kafka, f"{prefix}.{topic}")
    assert asyncio.run(log_id()) != first


def test_a_broker_that_is_not_there_is_told_in_words() -> None:
    async def start() -> None:
        await log_at("127.0.0.1:9", "x").start()

    began = time.monotonic()
    with pytest.raises(LogUnavailable, match=r"127\.0\.0\.1:9: no broker answers"):
        asyncio.run(start())
    assert time.monotonic() - began < CLEAR_WITHIN_S


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Cluster]:
    """A broker that the test may break."""
    with cluster(tmp_path) as started:
        yield started


async def outcome(log: KafkaLog, record: NewRecord) -> Record | LogUnavailable:
    try:
        return await log.append(record)
    except LogUnavailable as error:
        return error


async def healed(log: KafkaLog) -> list[Record]:
    """Append until it works again; what was acknowledged, once it does."""
    deadline = time.monotonic() + HEALED_WITHIN_S
    while time.monotonic() < deadline:
        found = await outcome(log, new(RUN[0], "again"))
        if isinstance(found, Record):
            return [found]
        await asyncio.sleep(0.5)
    raise AssertionError(f"no event was taken for {HEALED_WITHIN_S:g} s after the broker came back")


def test_the_producer_does_not_wedge(own: Cluster, prefix: str) -> None:
    # An idempotent producer that gave up a batch which it had sent would wait for ever.
    async def run() -> None:
        log = log_at(own.bootstrap, prefix)
        await log.start()
        kept = await appended(log, [new(RUN[0], "before")])
        own.brokers[1].freeze()
        began = time.monotonic()
        lost = await asyncio.gather(*[outcome(log, new(RUN[0], f"lost {n}")) for n in range(5)])
        assert all(isinstance(one, LogUnavailable) for one in lost)
        assert time.monotonic() - began < APPEND_S_MAX + 5 * WATCH_S
        own.brokers[1].kill()
        refused = await outcome(log, new(RUN[0], "refused"))
        assert isinstance(refused, LogUnavailable)
        await asyncio.to_thread(own.restart, 1)
        kept += await healed(log)
        kept += await appended(log, [new(RUN[0], f"after {n}") for n in range(20)])
        assert log.producer.restarts >= 1
        assert log.producer.in_flight_records == log.producer.in_flight_bytes == 0
        found = read_all(log, RUN[0])
        assert [record for record in found if record in kept] == kept
        # What was refused may have arrived, each at most once; nothing else has.
        others = [record.value for record in found if record not in kept]
        assert len(others) == len(set(others))
        await log.close()

    asyncio.run(run())


def test_a_frozen_broker_that_goes_on_is_taken_up_again(own: Cluster, prefix: str) -> None:
    async def run() -> None:
        log = log_at(own.bootstrap, prefix)
        await log.start()
        own.brokers[1].freeze()
        assert isinstance(await outcome(log, new(CAT, "lost")), LogUnavailable)
        with pytest.raises(LogUnavailable):
            await log.end_offsets()
        own.brokers[1].thaw()
        (again,) = await healed(log)
        assert (await log.end_offsets())[RUN[0]] == again.offset + 1
        await log.close()

    asyncio.run(run())


def test_what_is_sent_again_is_written_once(own: Cluster, prefix: str) -> None:
    # The frozen broker has the request, and takes it once it goes on; by then we have sent it anew.
    async def run() -> None:
        log = log_at(own.bootstrap, prefix)
        await log.start()
        await appended(log, [new(RUN[0], "before")])
        own.brokers[1].freeze()
        waiting = [log.append(new(RUN[0], f"{n}")) for n in range(3)]
        await asyncio.sleep(REQUEST_S_MAX + 1.0)
        waiting += [log.append(new(RUN[0], f"{n}")) for n in range(3, 6)]
        own.brokers[1].thaw()
        acknowledged = await asyncio.gather(*waiting)
        assert log.producer.restarts == 0
        assert read_all(log, RUN[0])[1:] == acknowledged
        await log.close()

    asyncio.run(run())


def test_closing_with_a_dead_broker_ends(own: Cluster, prefix: str) -> None:
    async def run() -> float:
        log = log_at(own.bootstrap, prefix)
        await log.start()
        await appended(log, [new(CAT, "a")])
        own.brokers[1].kill()
        waiting = asyncio.create_task(outcome(log, new(CAT, "b")))
        await asyncio.sleep(0.1)
        began = time.monotonic()
        await log.close()
        assert isinstance(await waiting, LogUnavailable)
        return time.monotonic() - began

    assert asyncio.run(run()) < CLEAR_WITHIN_S


def test_three_brokers_lose_one_and_go_on(tmp_path: Path, prefix: str) -> None:
    async def run(brokers: Cluster) -> None:
        log = log_at(brokers.bootstrap, prefix)
        await log.start()
        with admin(brokers.bootstrap) as client:
            (found,) = client.describe_topics([f"{prefix}.catalog"])
            assert {len(p["replica_nodes"]) for p in found["partitions"]} == {3}
            assert configs(client, f"{prefix}.catalog")["min.insync.replicas"] == "2"
            leader = found["partitions"][0]["leader_id"]
        kept = await appended(log, [new(CAT, f"{n}") for n in range(50)])
        brokers.brokers[leader].kill()
        deadline = time.monotonic() + HEALED_WITHIN_S
        while len(kept) < 100 and time.monotonic() < deadline:
            found_now = await outcome(log, new(CAT, f"{len(kept)}"))
            if isinstance(found_now, Record):
                kept.append(found_now)
        assert len(kept) == 100
        stored = read_all(log, CAT)
        assert [record for record in stored if record in kept] == kept
        assert (await log.end_offsets())[CAT] == len(stored)
        brokers.restart(leader)
        await asyncio.to_thread(await_brokers, brokers.bootstrap, 3)
        await log.close()

    with cluster(tmp_path, 3) as brokers:
        asyncio.run(run(brokers))


def test_a_log_whose_beginning_was_removed_is_refused(kafka: str, prefix: str) -> None:
    async def run() -> None:
        log = log_at(kafka, prefix)
        await log.start()
        await appended(log, [new(CAT) for _ in range(3)])
        await log.close()
        with admin(kafka) as client:
            client.delete_records({KafkaPartition(f"{prefix}.catalog", 0): 2})
        await log_at(kafka, prefix).start()

    with pytest.raises(LogCorrupt, match=r"first 2 records of .*catalog.*removed"):
        asyncio.run(run())


def test_a_beginning_that_is_removed_later_is_noticed(
    kafka: str, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kafka_reader, "BEGINNINGS_S", 0.0)

    async def run() -> None:
        log = log_at(kafka, prefix)
        await log.start()
        await appended(log, [new(CAT) for _ in range(3)])
        assert (await log.end_offsets())[CAT] == 3
        with admin(kafka) as client:
            client.delete_records({KafkaPartition(f"{prefix}.catalog", 0): 2})
        try:
            for _ in range(2):
                with pytest.raises(LogCorrupt, match=r"first 2 records of .*catalog.*removed"):
                    await log.end_offsets()
        finally:
            await log.close()

    asyncio.run(run())


def test_nulls_of_a_foreign_producer_are_read_as_empty(kafka: str, prefix: str) -> None:
    async def run() -> None:
        log = log_at(kafka, prefix)
        await log.start()
        foreign(kafka, f"{prefix}.catalog", b"k", None, [("x", b"")])
        foreign(kafka, f"{prefix}.catalog", None, b"v", [])
        first, second = read_all(log, CAT)
        assert (first.key, first.value, first.headers) == (b"k", b"", (("x", b""),))
        assert (second.key, second.value, second.headers) == (b"", b"v", ())
        assert first.event_id == second.event_id == b""
        followed = [r async for taken in until(log, 2) for r in taken]
        assert followed == [first, second]
        await log.close()

    asyncio.run(run())


def test_the_marker_of_a_foreign_transaction_is_told_and_not_waited_for(
    kafka: str, prefix: str
) -> None:
    async def run() -> None:
        log = log_at(kafka, prefix)
        await log.start()
        transacted(kafka, f"{prefix}.catalog")
        began = time.monotonic()
        with pytest.raises(LogCorrupt, match=r"catalog/0@1.*marker of a transaction"):
            read_all(log, CAT)
        with pytest.raises(LogCorrupt, match=r"catalog/0@1.*marker of a transaction"):
            async for _ in log.follow(dict.fromkeys(await log.end_offsets(), Offset(0))):
                pass
        assert time.monotonic() - began < HEALED_WITHIN_S
        await log.close()

    asyncio.run(run())


def foreign(
    bootstrap: str,
    topic: str,
    key: bytes | None,
    value: bytes | None,
    headers: list[tuple[str, bytes]],
) -> None:
    producer = KafkaProducer(bootstrap_servers=bootstrap)
    producer.send(topic, key=key, value=value, headers=headers, partition=0).get(HEALED_WITHIN_S)
    producer.close()


def transacted(bootstrap: str, topic: str) -> None:
    producer = KafkaProducer(bootstrap_servers=bootstrap, transactional_id=topic)
    producer.init_transactions()
    producer.begin_transaction()
    producer.send(topic, key=b"k", value=b"v", partition=0)
    producer.commit_transaction()
    producer.close()


async def until(log: KafkaLog, count: int) -> AsyncIterator[Sequence[Record]]:
    start = dict.fromkeys(await log.end_offsets(), Offset(0))
    async for taken in log.follow(start):
        yield taken
        count -= len(taken)
        if count <= 0:
            return

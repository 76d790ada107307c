"""What stands in a Kafka log, read as an outsider would: whether it holds what was acknowledged.

Records come by a consumer of our own, from the first to the last; nothing of the server's reader
takes part. Which of them applied is told by folding them, as every replica does.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Final

from kafka import KafkaConsumer
from kafka import TopicPartition as KafkaPartition

from harness.histories import Call
from harness.race import Sent
from muniment_schemas.codec import Codec
from muniment_schemas.columns import points
from muniment_schemas.envelope import Event
from muniment_schemas.events import BatchLogged, RunCreated
from muniment_schemas.ids import Offset
from muniment_schemas.subjects import Schemas
from muniment_services.log.base import CATALOG, RUNS, Record, TopicPartition
from muniment_services.state import CurrentState

POLL_MS = 500
POLLS_MAX = 120

Point = tuple[str, str, int]
"""(run, key, step): what one write leaves behind, and no other write does."""

MAY_CHANGE_NOTHING: Final = frozenset(
    {"set_alias", "delete_alias", "delete_model_tag", "delete_version_tag"}
)
"""Calls that are answered 200 without an event when there is nothing to change."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One record of the log, decoded. void: why it did not apply, None when it did."""

    record: Record
    event: Event
    void: str | None


def records(bootstrap: str, prefix: str, topics: Sequence[str] = (CATALOG, RUNS)) -> list[Record]:
    """Every record of the topics, in the order of their offsets, partition by partition.

    Raises AssertionError when offsets have a hole, or the log's end is not reached.
    """
    consumer = KafkaConsumer(
        bootstrap_servers=bootstrap.split(","),
        enable_auto_commit=False,
        auto_offset_reset="none",
        max_partition_fetch_bytes=8 * 1024 * 1024,
    )
    try:
        partitions = [
            KafkaPartition(f"{prefix}.{topic}", number)
            for topic in topics
            for number in consumer.partitions_for_topic(f"{prefix}.{topic}")
        ]
        consumer.assign(partitions)
        consumer.seek_to_beginning(*partitions)
        ends = consumer.end_offsets(partitions)
        found: list[Record] = []
        for _ in range(POLLS_MAX):
            if all(consumer.position(partition) >= ends[partition] for partition in partitions):
                break
            for partition, batch in consumer.poll(POLL_MS).items():
                at = TopicPartition(partition.topic.removeprefix(f"{prefix}."), partition.partition)
                found += [
                    Record(at, Offset(r.offset), r.key, r.value, tuple(r.headers), r.timestamp)
                    for r in batch
                ]
    finally:
        consumer.close()
    found.sort(key=lambda record: (record.at, record.offset))
    for at, theirs in groupby(found, key=lambda record: record.at):
        offsets = [record.offset for record in theirs]
        assert offsets == list(range(len(offsets))), f"{at} has holes, or records twice"
    assert len(found) == sum(ends.values()), f"{len(found)} of {sum(ends.values())} records came"
    return found


def folded(found: Iterable[Record]) -> Iterator[Entry]:
    """The records with what became of them. Raises AssertionError for one in quarantine."""
    codec, state = Codec(Schemas.load()), CurrentState()
    for record in found:
        event = codec.decode(record.value)
        outcome = state.fold(record, event)
        assert outcome.quarantine is None, f"{record.at}@{record.offset} cannot be folded"
        yield Entry(record, event, outcome.void)


def decoded(found: Iterable[Record]) -> Iterator[Entry]:
    """The records of a log that cannot be folded, as if all had applied."""
    codec = Codec(Schemas.load())
    return (Entry(record, codec.decode(record.value), None) for record in found)


def check_writes(sent: Iterable[Sent], found: Iterable[Entry]) -> Counter[str]:
    """Every acknowledged write applied exactly once, every other at most once; counts by outcome.

    Writes are told apart by their traceparent. Raises AssertionError.
    """
    entries = list(found)
    applied = Counter(e.event.envelope.traceparent for e in entries if e.void is None)
    calls: dict[str, Call] = {}
    acknowledged: set[str] = set()
    for one in sent:
        calls[one.traceparent] = one.call
        if one.acknowledged:
            acknowledged.add(one.traceparent)
    lost = [
        f"{calls[trace]}"
        for trace in acknowledged
        if applied[trace] == 0 and calls[trace].name not in MAY_CHANGE_NOTHING
    ]
    assert not lost, f"{len(lost)} acknowledged writes are not in the log: {lost[:5]}"
    twice = [f"{calls[trace]}" for trace in calls if applied[trace] > 1]
    assert not twice, f"{len(twice)} writes applied twice: {twice[:5]}"
    return Counter(
        events=len(entries),
        void=sum(entry.void is not None for entry in entries),
        acknowledged=len(acknowledged),
        unacknowledged_and_applied=sum(applied[trace] for trace in calls.keys() - acknowledged),
    )


def logged_points(found: Iterable[Entry]) -> tuple[Counter[Point], Counter[str]]:
    """How often each point, and each run's creation, stands in the log."""
    seen: Counter[Point] = Counter()
    created: Counter[str] = Counter()
    for entry in found:
        event = entry.event
        if isinstance(event, RunCreated):
            created[event.envelope.aggregate_id] += 1
        elif isinstance(event, BatchLogged) and event.metrics is not None:
            read = points(event.metrics)
            for index, step in zip(read.key_index.tolist(), read.step.tolist(), strict=True):
                seen[event.envelope.aggregate_id, read.keys[index], step] += 1
    return seen, created

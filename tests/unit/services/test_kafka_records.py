"""Record batches of Kafka, decoded as kafka-python decodes them."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from kafka import TopicPartition as KafkaPartition
from kafka.consumer.fetcher import Fetcher
from kafka.errors import CorruptRecordError
from kafka.record.default_records import DefaultRecordBatch, DefaultRecordBatchBuilder
from kafka.record.memory_records import MemoryRecords

from muniment_services.log.base import RUNS, Record, TopicPartition
from muniment_services.log.kafka_records import our_records, records_of

AT = TopicPartition(RUNS, 3)
THEIRS = KafkaPartition("muniment.runs", 3)
CODECS = {"none": 0, "gzip": 1}

Plain = tuple[int, bytes | None, bytes | None, Sequence[tuple[str, bytes | None]]]

RECORDS: Sequence[Plain] = [
    (1_700_000_000_000, b"key", b"value", [("ce_id", b"7"), ("ce_type", b"x")]),
    (1_699_999_000_000, b"", b"", []),  # Earlier than the first.
    (1_700_000_900_000, None, None, [("null", None)]),
    (1_700_000_000_001, b"k" * 200, b"v" * 70_000, [("n" * 130, b"h" * 300)]),
]


def batch(records: Sequence[Plain], codec: int = 0) -> bytes:
    builder = DefaultRecordBatchBuilder(
        magic=2,
        compression_type=codec,
        is_transactional=False,
        producer_id=7,
        producer_epoch=0,
        base_sequence=0,
        batch_size=2**30,
    )
    for offset, (time_ms, key, value, headers) in enumerate(records):
        builder.append(offset, time_ms, key, value, headers)
    return bytes(builder.build())


def theirs(data: bytes) -> list[Record]:
    return [
        Record(
            AT,
            found.offset,
            found.key or b"",
            found.value or b"",
            tuple((name, value or b"") for name, value in found.headers),
            found.timestamp,
        )
        for found in Fetcher.PartitionRecords(0, THEIRS, MemoryRecords(data)).take(100)
    ]


@pytest.mark.parametrize("codec", CODECS)
def test_records_are_what_kafka_python_reads(codec: str) -> None:
    data = batch(RECORDS, CODECS[codec])
    assert list(records_of(AT, DefaultRecordBatch(data))) == theirs(data)


def test_a_fetch_goes_on_where_it_was_left() -> None:
    data = batch(RECORDS)
    fetched = our_records({THEIRS: AT})(1, THEIRS, MemoryRecords(data))
    taken = fetched.take(2)
    assert [record.offset for record in taken] == [1, 2]
    assert fetched.next_fetch_offset == 3
    assert [*taken, *fetched.take(100)] == theirs(data)[1:]
    assert fetched.next_fetch_offset == 4
    assert not fetched


def test_a_batch_that_fails_its_checksum_is_refused() -> None:
    data = bytearray(batch(RECORDS))
    data[-1] ^= 1
    with pytest.raises(CorruptRecordError, match="runs/3@0: a batch fails its checksum"):
        our_records({THEIRS: AT})(0, THEIRS, MemoryRecords(data)).take(100)


def test_a_batch_that_ends_too_early_is_refused() -> None:
    data = batch(RECORDS)
    first = len(batch(RECORDS[:1]))
    for length in [*range(DefaultRecordBatch.HEADER_STRUCT.size, first + 9), len(data) - 1]:
        with pytest.raises(CorruptRecordError):
            list(records_of(AT, DefaultRecordBatch(data[:length])))

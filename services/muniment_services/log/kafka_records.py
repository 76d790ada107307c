"""Decodes fetched record batches straight into our records.

kafka-python makes two objects of its own of each record, and copies its value twice: half of the
time in which a log of small events was read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache, partial
from typing import Any

from kafka import TopicPartition as KafkaPartition
from kafka.consumer.fetcher import Fetcher
from kafka.errors import CorruptRecordError
from kafka.record.default_records import DefaultRecordBatch
from kafka.record.util import decode_varint

from muniment_schemas.ids import Offset
from muniment_services.log.base import Record, TopicPartition


def our_records(ours: Mapping[KafkaPartition, TopicPartition]) -> Callable[..., Any]:
    """What a fetcher makes of an answer, so that its consumer's `poll` gives our records."""
    return partial(_Fetched, ours)


class _Fetched(Fetcher.PartitionRecords):  # type: ignore[misc]
    """The records of one partition in one answer, as its base has them but for their kind."""

    def __init__(
        self, ours: Mapping[KafkaPartition, TopicPartition], *args: Any, **options: Any
    ) -> None:
        self._ours = ours
        super().__init__(*args, **options)

    def _unpack_records(self, tp: KafkaPartition, records: Any, *_: Any) -> Iterator[Record]:
        at = self._ours[tp]
        while (batch := records.next_batch()) is not None:
            if not batch.validate_crc():
                raise CorruptRecordError(f"{at}@{batch.base_offset}: a batch fails its checksum")
            self.leader_epoch = batch.leader_epoch
            if not batch.is_control_batch:
                for record in records_of(at, batch):
                    self.next_fetch_offset = record.offset + 1
                    yield record
            self.next_fetch_offset = batch.next_offset
        self.drain()


def records_of(at: TopicPartition, batch: DefaultRecordBatch) -> Iterator[Record]:
    """The records of a batch; what is null in a stranger's record is empty.

    Raises CorruptRecordError. Source: Kafka, "Record Batch" and "Record" (message format 2).
    """
    batch._maybe_uncompress()
    data, place = bytes(batch._buffer), batch._pos
    first, first_ms = batch.base_offset, batch.first_timestamp
    appended_ms = batch.max_timestamp if batch.timestamp_type else None
    try:
        for _ in range(batch.records_count):
            size, place = decode_varint(data, place)
            end = place + size
            later_ms, place = decode_varint(data, place + 1)  # Behind the attributes, which are 0.
            later, place = decode_varint(data, place)
            key, place = _bytes(data, place)
            value, place = _bytes(data, place)
            count, place = decode_varint(data, place)
            headers = []
            for _ in range(count):
                name, place = _bytes(data, place)
                content, place = _bytes(data, place)
                headers.append((_name(name), content))
            if place != end or end > len(data):
                raise CorruptRecordError(f"{at}@{first + later}: a record of another size")
            time_ms = first_ms + later_ms if appended_ms is None else appended_ms
            yield Record(at, Offset(first + later), key, value, tuple(headers), time_ms)
    except (IndexError, ValueError) as error:
        raise CorruptRecordError(f"{at}@{first}: a batch of something else: {error}") from error


def _bytes(data: bytes, place: int) -> tuple[bytes, int]:
    size, place = decode_varint(data, place)
    if size < 0:
        return b"", place
    end = place + size
    return data[place:end], end


@lru_cache(64)
def _name(name: bytes) -> str:
    return name.decode()

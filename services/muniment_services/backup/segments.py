"""The log as a backup has it: segments of records, packed and compressed, read back as a log.

A segment is the msgpack array of its records, each [key, value, headers, timestamp_ms], compressed
with zstd; where they belong says its name.
"""

from __future__ import annotations

import bisect
import hashlib
import threading
from collections.abc import Mapping, Sequence

import msgspec
import pyarrow as pa

from muniment_schemas.ids import Offset
from muniment_services.backup.base import BackupDamaged, Backups, Manifest, Segment
from muniment_services.log.base import (
    READ_BYTES_MAX,
    READ_RECORDS_MAX,
    Record,
    TopicPartition,
)

SEGMENT_BYTES = 16 * 1024 * 1024
"""A segment is closed once its records have so many bytes: some in memory at once do no harm, and a
large log has no more files than a bucket lists in seconds. The last one of each topic-partition is
written anew by the next backup until it is full."""

_Packed = tuple[bytes, bytes, tuple[tuple[str, bytes], ...], int]
_PACKED = msgspec.msgpack.Decoder(list[_Packed])


def packed(records: Sequence[Record]) -> tuple[bytes, Segment]:
    """The file of a segment, and what the manifest says of it. records: at least one."""
    rows = [(r.key, r.value, r.headers, r.timestamp_ms) for r in records]
    plain = msgspec.msgpack.encode(rows)
    content = len(plain).to_bytes(8, "big") + _zstd().compress(plain, asbytes=True)
    return content, Segment(
        topic=records[0].at.topic,
        partition=records[0].at.partition,
        start=records[0].offset,
        end=records[-1].offset + 1,
        stored_bytes=len(content),
        sha256=hashlib.sha256(content).hexdigest(),
    )


def unpacked(content: bytes, segment: Segment, name: str) -> list[Record]:
    """The records of a segment. Raises BackupDamaged when they are not those it stands for."""
    try:
        plain = _zstd().decompress(content[8:], int.from_bytes(content[:8], "big"), asbytes=True)
        rows = _PACKED.decode(plain)
    except (pa.ArrowException, OSError, msgspec.DecodeError, OverflowError) as error:
        raise BackupDamaged(f"{name} cannot be unpacked: {error}.") from error
    if len(rows) != segment.end - segment.start:
        raise BackupDamaged(f"{name} has {len(rows)} records, its name says otherwise.")
    return [
        Record(segment.at, Offset(offset), key, value, headers, timestamp_ms)
        for offset, (key, value, headers, timestamp_ms) in enumerate(rows, segment.start)
    ]


class BackedUpLog:
    """The log of a backup, as a LogReader. Every file is verified when it is read."""

    def __init__(self, backups: Backups, manifest: Manifest) -> None:
        self._backups = backups
        self._manifest = manifest
        self._segments: dict[TopicPartition, list[Segment]] = {at: [] for at in manifest.ends()}
        for segment in sorted(manifest.segments):
            self._segments[segment.at].append(segment)
        self._open: dict[TopicPartition, tuple[Segment, list[Record]]] = {}
        self._lock = threading.Lock()

    @property
    def partitions(self) -> Mapping[str, int]:
        """Partition count by topic."""
        return self._manifest.partitions

    async def end_offsets(self) -> Mapping[TopicPartition, Offset]:
        """Where the log was cut."""
        return self._manifest.ends()

    def read(
        self,
        at: TopicPartition,
        start: Offset,
        records_max: int = READ_RECORDS_MAX,
        bytes_max: int = READ_BYTES_MAX,
    ) -> Sequence[Record]:
        """Records from `start` on, those of one segment at most. Raises BackupDamaged."""
        segments = self._segments[at]
        place = bisect.bisect_right(segments, int(start), key=lambda segment: segment.start) - 1
        if place < 0 or start >= segments[place].end:
            if segments and start < segments[-1].end:
                raise BackupDamaged(f"no segment has the record {at}@{start}.")
            return []
        records = self._records(segments[place])[start - segments[place].start :]
        taken, size = 0, 0
        while taken < min(records_max, len(records)) and size < bytes_max:
            size += len(records[taken].value)
            taken += 1
        return records[:taken]

    def _records(self, segment: Segment) -> list[Record]:
        # One segment of a topic-partition stays unpacked, since logs are read in order.
        with self._lock:
            found = self._open.get(segment.at)
            if found is not None and found[0] == segment:
                return found[1]
        path = segment.path(self._manifest.log_id)
        records = unpacked(self._backups.get(path, segment.sha256), segment, path)
        with self._lock:
            self._open[segment.at] = (segment, records)
        return records


def _zstd() -> pa.Codec:
    return pa.Codec("zstd", compression_level=3)

"""Is the log whole, and are the projections what it says? Changes nothing that it checks.

Two passes. The first looks at every record by itself: place, framing, headers, key, time. The
second folds the log into a database of its own, which is what the projections must be equal to.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from muniment_projections.base import Folded
from muniment_projections.digest import Digests, digests
from muniment_projections.store import Store
from muniment_schemas.codec import Codec, CodecError
from muniment_schemas.envelope import Event
from muniment_schemas.events import SchemaPublished
from muniment_schemas.ids import Offset
from muniment_services.log.base import (
    EventLog,
    LogCorrupt,
    LogReader,
    Record,
    TopicPartition,
    partition_of,
)
from muniment_services.rebuild import CatchUp, Ends, Progress
from muniment_services.write import SOURCE

FINDINGS_MAX = 1_000
"""Findings that are kept; more of them are counted."""

EARLIEST_MS = 1_577_836_800_000
"""2020-01-01: no event was recorded before there was a muniment."""

AHEAD_MS_MAX = 300_000
"""So far the clock of the server that wrote may have been ahead of ours."""

_QUOTED = re.compile(r"'[^']*'|\"[^\"]*\"")


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that is wrong. where: a place in the log, a table, a file."""

    where: str
    what: str


@dataclass(slots=True)
class Findings:
    """What was found so far."""

    kept: list[Finding] = field(default_factory=list)
    count: int = 0

    def add(self, where: object, what: str) -> None:
        """Note one finding."""
        self.count += 1
        if len(self.kept) < FINDINGS_MAX:
            self.kept.append(Finding(str(where), what))


class LogCheck:
    """The first pass: every record by itself."""

    def __init__(
        self,
        log: LogReader,
        codec: Codec,
        findings: Findings,
        now_ms: int,
        each: Callable[[Record], None] = lambda _: None,
    ) -> None:
        """each: gets every record too, in the order of its topic-partition."""
        self.records = 0
        self.readable = True
        self._log = log
        self._codec = codec
        self._findings = findings
        self._each = each
        self._latest_ms = now_ms + AHEAD_MS_MAX
        self._used: dict[bytes, str] = {}
        self._published: set[bytes] = set()

    @property
    def schemas(self) -> int:
        """How many schemas the log's records are written with."""
        return len(self._used)

    def run(self, ends: Ends, progress: Progress) -> None:
        """Check all topic-partitions up to `ends`."""
        for at, end in ends.items():
            for records in self._batches(at, end):
                for record in records:
                    self._check(record)
                progress(len(records))
        for fingerprint, where in self._used.items():
            if fingerprint not in self._published:
                schema = self._codec.schemas.by_fingerprint[fingerprint].file_name
                self._findings.add(where, f"the catalog nowhere publishes its schema {schema}")

    def _batches(self, at: TopicPartition, end: Offset) -> Iterator[Sequence[Record]]:
        start = Offset(0)
        while start < end:
            try:
                records = self._log.read(at, start)
            except LogCorrupt as error:
                self._unreadable(f"{at}@{start}", str(error))
                return
            offsets = [record.offset for record in records]
            if not offsets or offsets != list(range(start, start + len(offsets))):
                self._unreadable(f"{at}@{start}", f"the offsets that follow have a hole: {end=}")
                return
            yield records[: end - start]
            start = Offset(start + len(records))

    def _unreadable(self, where: str, what: str) -> None:
        self.readable = False
        self._findings.add(where, what)

    def _check(self, record: Record) -> None:
        self.records += 1
        self._each(record)
        where = f"{record.at}@{record.offset}"
        try:
            event = self._codec.decode(record.value)
        except CodecError as error:
            self._unreadable(where, str(error))
            return
        self._used.setdefault(self._codec.subject_of(record.value).fingerprint, where)
        if isinstance(event, SchemaPublished):
            self._check_schema(where, event)
        for what in self._wrong(record, event):
            self._findings.add(where, what)

    def _check_schema(self, where: str, event: SchemaPublished) -> None:
        fingerprint = bytes.fromhex(event.envelope.aggregate_id)
        self._published.add(fingerprint)
        known = self._codec.schemas.by_fingerprint.get(fingerprint)
        if known is not None and known.schema_json != event.schema_json:
            self._findings.add(
                where, f"it publishes another {known.file_name} than the released one"
            )

    def _wrong(self, record: Record, event: Event) -> Iterator[str]:
        envelope = event.envelope
        headers = _headers(event)
        for name, found in record.headers:
            expected = headers.pop(name, None)
            if expected is not None and found != expected:
                yield f"header {name} is {found!r}, the event says {expected!r}"
        if headers:
            yield f"it has no header {', '.join(headers)}"
        key = str(getattr(event, "owner", envelope.aggregate_id)).encode()
        if record.key != key:
            yield f"its key is {record.key!r}, the event says {key!r}"
        place = TopicPartition(event.TOPIC, partition_of(key, self._log.partitions[event.TOPIC]))
        if record.at != place:
            yield f"an event of this key belongs to {place}"
        if record.timestamp_ms != envelope.recorded_at_ms:
            yield f"its time is {record.timestamp_ms}, the event says {envelope.recorded_at_ms}"
        if not EARLIEST_MS <= envelope.recorded_at_ms <= self._latest_ms:
            yield f"it cannot have been recorded at {envelope.recorded_at_ms} ms since 1970"


def _headers(event: Event) -> dict[str, bytes]:
    envelope = event.envelope
    return {
        "ce_id": envelope.event_id.encode(),
        "ce_specversion": b"1.0",
        "ce_type": envelope.type.encode(),
        "ce_source": SOURCE,
        "ce_subject": f"{envelope.aggregate_kind}/{envelope.aggregate_id}".encode(),
        "content-type": b"application/avro",
    }


class FoldCheck:
    """The second pass: the log folded into a store of its own, compared with the projections."""

    def __init__(self, log: EventLog, codec: Codec, scratch: Store, findings: Findings) -> None:
        self.applied = 0
        self.void: Counter[str] = Counter()
        self._scratch = scratch
        self._findings = findings
        self._fold = CatchUp(log, codec, scratch, self._count)

    def run(self, ends: Ends, progress: Progress) -> None:
        """Fold up to `ends`."""
        self._fold.run(ends, progress)

    def compare(self, found: Digests, ends: Ends, progress: Progress) -> Mapping[str, int]:
        """Fold up to the projections' checkpoints and compare; returns the rows of each table."""
        at = {TopicPartition(t, p): Offset(offset) for t, p, offset in found.checkpoints}
        beyond = [
            f"{place}@{offset}" for place, offset in at.items() if offset > ends.get(place, 0)
        ]
        if beyond:
            self._findings.add("projections", f"they are ahead of the log: {', '.join(beyond)}")
            return {}
        self.run(at, progress)
        rebuilt = self._scratch.read(digests)
        for table in sorted(rebuilt.tables.keys() | found.tables.keys()):
            self._compare_table(table, found, rebuilt)
        return {table: digest.rows for table, digest in found.tables.items()}

    def _compare_table(self, table: str, found: Digests, rebuilt: Digests) -> None:
        has, should = found.tables.get(table), rebuilt.tables.get(table)
        if has is None or should is None:
            self._findings.add(
                table, "the table is missing" if has is None else "there is no such table"
            )
        elif has.rows != should.rows:
            self._findings.add(table, f"it has {has.rows} rows, a rebuild has {should.rows}")
        elif has != should:
            self._findings.add(table, f"its {has.rows} rows are not those of a rebuild")

    def _count(self, _: Sequence[Record], batch: Sequence[Folded]) -> None:
        for item in batch:
            if item.void is None:
                self.applied += 1
            else:
                self.void[_QUOTED.sub("…", item.void)] += 1

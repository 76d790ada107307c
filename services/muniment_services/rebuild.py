"""Projections from the log: catching up at start, and building them anew.

Both are the same loop over the same fold: read a batch of records, fold it, write rows and
checkpoints in one transaction. A crash anywhere leaves a checkpoint to go on from.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import duckdb
import structlog

from muniment_projections.base import BATCH_EVENTS_MAX, Folded, Projection
from muniment_projections.store import Store, StoreLayoutUnknown, is_damage
from muniment_schemas.codec import Codec
from muniment_schemas.envelope import Event
from muniment_schemas.ids import Offset
from muniment_services import documents
from muniment_services.domain.deciders import EVOLVERS
from muniment_services.fold import FOLDED_TOPICS
from muniment_services.log.base import EventLog, LogCorrupt, Record, TopicPartition
from muniment_services.projection_files import remove, replace, unfinished
from muniment_services.unreadable import event_of

Ends = Mapping[TopicPartition, Offset]
"""For topic-partitions the offset that is not folded any more; others are left alone."""

Progress = Callable[[int], None]
"""Told after every batch how many more records have been folded."""

Watch = Callable[[Sequence[Record], Sequence[Folded]], None]
"""Shown every batch after its fold, before it is written."""

OpenStore = Callable[[Path], Store]
"""Opens or creates the projections' database at a path."""

_log = structlog.get_logger("muniment.rebuild")


class CatchUp:
    """Folds a log into a store from the store's checkpoints on, as often as there is more of it.

    Blocking, and for one thread at a time. Memory is bounded by the largest batch and the fold's
    own limits, however long the log is.
    """

    def __init__(
        self, log: EventLog, codec: Codec, store: Store, watch: Watch | None = None
    ) -> None:
        self._log = log
        self._codec = codec
        self._store = store
        self._watch = watch
        self._state = documents.current_state(store)

    def left(self, ends: Ends) -> int:
        """How many records are missing to `ends`."""
        next_offsets = self._state.next_offsets
        return sum(
            max(0, end - next_offsets.get(at, 0))
            for at, end in ends.items()
            if at.topic in FOLDED_TOPICS
        )

    def run(self, ends: Ends, progress: Progress | None = None) -> None:
        """Fold everything up to `ends`, and nothing beyond, into the store."""
        with _uncollected():
            for records in self._batches(ends):
                self._fold(records)
                if progress is not None:
                    progress(len(records))

    def _batches(self, ends: Ends) -> Iterator[Sequence[Record]]:
        # The next batch is read while this one is folded.
        with ThreadPoolExecutor(1, "read-ahead") as ahead:
            for topic in FOLDED_TOPICS:
                for partition in range(self._log.partitions[topic]):
                    at = TopicPartition(topic, partition)
                    start = self._state.next_offsets.get(at, Offset(0))
                    end = ends.get(at, Offset(0))
                    reading = self._read(ahead, at, start, end)
                    while reading is not None:
                        records = reading.result()
                        start = Offset(records[-1].offset + 1)
                        reading = self._read(ahead, at, start, end)
                        yield records

    def _read(
        self, ahead: Executor, at: TopicPartition, start: Offset, end: Offset
    ) -> Future[Sequence[Record]] | None:
        if start >= end:
            return None
        return ahead.submit(self._log.read, at, start, min(BATCH_EVENTS_MAX, end - start))

    def _fold(self, records: Sequence[Record]) -> None:
        state = self._state
        events = [event_of(self._codec, record) for record in records]
        self._load(events)
        batch = [state.fold(record, event) for record, event in zip(records, events, strict=True)]
        if self._watch is not None:
            self._watch(records, batch)
        last = records[-1]
        self._store.write(batch, {(last.at.topic, last.at.partition): last.offset + 1})
        state.trim(written=state.folded)

    def _load(self, events: Sequence[Event]) -> None:
        keys = [(e.envelope.aggregate_kind, e.envelope.aggregate_id) for e in events]
        missing = self._state.missing(key for key in keys if key[0] in EVOLVERS)
        if missing:
            found = self._store.read(lambda connection: documents.find(connection, missing))
            self._state.admit(found)


def catch_up(
    log: EventLog, codec: Codec, store: Store, ends: Ends, progress: Progress | None = None
) -> None:
    """Fold everything from the store's checkpoints up to `ends` into the store. Blocking."""
    CatchUp(log, codec, store).run(ends, progress)


@contextmanager
def _uncollected() -> Iterator[None]:
    # Events and states refer to nothing in circles. Looking for circles among them took 30 % of the
    # time of a rebuild of a million events, and found none: memory peaked at 500 MB either way.
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def open_store(path: Path, projections: Sequence[Projection], memory: str) -> Store:
    """The projections' database; an unreadable one, or one of another layout, is built anew.

    Raises duckdb.Error when the file cannot be opened for another reason: in use, disk full.
    """
    if not path.exists():
        remove(path)  # A write-ahead log that has lost its database belongs to nothing.
    try:
        return Store(path, projections, memory)
    except StoreLayoutUnknown as error:
        reason = str(error)
    except duckdb.Error as error:
        if not is_damage(error):
            raise
        reason = str(error)
    _log.warning("projections are built anew", reason=reason)
    remove(path)
    return Store(path, projections, memory)


def open_within(path: Path, open_at: OpenStore, ends: Ends, log_id: str) -> Store:
    """The projections' database, built anew when it is ahead of this log.

    That happens when the log was put back from a copy: what the projections hold is then of another
    history. Raises LogCorrupt when they are of another log: they may be all that is left of it.
    """
    store = open_at(path)
    if store.log_id not in ("", log_id):
        store.close()
        raise LogCorrupt(
            f"{path} was made of another log than the one that is served now: topics were deleted "
            "or made anew, or other brokers or another prefix are named. Bring that log back; or, "
            f"to go on with this one, move {path.name} away, and it is built anew"
        )
    beyond = [
        f"{topic}/{partition}@{offset}"
        for (topic, partition), offset in store.checkpoints.items()
        if offset > ends.get(TopicPartition(topic, partition), 0)
    ]
    if not beyond:
        store.belong_to(log_id)
        return store
    _log.warning("projections are ahead of the log and are built anew", checkpoints=beyond)
    store.close()
    remove(path)
    store = open_at(path)
    store.belong_to(log_id)
    return store


def build(
    log: EventLog, codec: Codec, path: Path, open_at: OpenStore, ends: Ends, progress: Progress
) -> None:
    """Build projections from nothing up to `ends` beside `path`, then put them in its place.

    For who holds the log's lock. Dying on the way leaves the old file as it was.
    """
    new = unfinished(path)
    remove(new)
    store = open_at(new)
    store.belong_to(log.log_id)
    try:
        catch_up(log, codec, store, ends, progress)
    finally:
        store.close()
    replace(new, path)

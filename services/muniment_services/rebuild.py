"""Projections from the log: catching up at start, and building them anew.

Both are the same loop over the same fold: read a batch of records, fold it, write rows and
checkpoints in one transaction. A crash anywhere leaves a checkpoint to go on from.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import structlog

from muniment_projections.base import Projection
from muniment_projections.store import Store, StoreLayoutUnknown
from muniment_schemas.codec import Codec
from muniment_schemas.ids import Offset
from muniment_services import documents
from muniment_services.domain.deciders import EVOLVERS
from muniment_services.fold import FOLDED_TOPICS
from muniment_services.log.base import EventLog, Record, TopicPartition
from muniment_services.state import CurrentState

Progress = Callable[[int], None]
"""Told after every batch how many more records have been folded."""

_log = structlog.get_logger("muniment.rebuild")


def open_store(path: Path, projections: Sequence[Projection], memory: str) -> Store:
    """The projections' database; one of another layout is put aside and built anew."""
    try:
        return Store(path, projections, memory)
    except StoreLayoutUnknown as error:
        _log.warning("projections are built anew", reason=str(error))
        path.unlink()
        return Store(path, projections, memory)


def catch_up(
    log: EventLog,
    codec: Codec,
    store: Store,
    ends: Mapping[TopicPartition, Offset],
    progress: Progress | None = None,
) -> None:
    """Fold everything from the store's checkpoints up to `ends` into the store. Blocking."""
    state = documents.current_state(store)
    for records in _batches(log, state, ends):
        _fold(records, codec, state, store)
        if progress is not None:
            progress(len(records))


def _batches(
    log: EventLog, state: CurrentState, ends: Mapping[TopicPartition, Offset]
) -> Iterator[Sequence[Record]]:
    for topic in FOLDED_TOPICS:
        for partition in range(log.partitions[topic]):
            at = TopicPartition(topic, partition)
            while (start := state.next_offsets.get(at, Offset(0))) < ends.get(at, 0):
                yield log.read(at, start)


def _fold(records: Sequence[Record], codec: Codec, state: CurrentState, store: Store) -> None:
    events = [codec.decode(record.value) for record in records]
    keys = [(e.envelope.aggregate_kind, e.envelope.aggregate_id) for e in events]
    missing = state.missing(key for key in keys if key[0] in EVOLVERS)
    if missing:
        state.admit(store.read(lambda connection: documents.find(connection, missing)))
    batch = [state.fold(record, event) for record, event in zip(records, events, strict=True)]
    last = records[-1]
    store.write(batch, {(last.at.topic, last.at.partition): last.offset + 1})
    state.trim()

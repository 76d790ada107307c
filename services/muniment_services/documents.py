"""Aggregates' states read back from the documents that projections keep.

The database is a cache of the fold, so its documents are the fold's own states; reading them back is
what makes a start quick and memory bounded.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import msgspec

from muniment_projections.base import Connection
from muniment_projections.experiments import tables as experiments
from muniment_projections.requests.apply import NEWEST
from muniment_projections.runs.reader import find_documents as find_runs
from muniment_projections.store import Store
from muniment_schemas.ids import Offset
from muniment_services.domain.commands import AggregateKey, State
from muniment_services.domain.deciders import STATES
from muniment_services.log.base import TopicPartition
from muniment_services.state import REQUESTS_REMEMBERED_MAX, CurrentState, Keyed

CATALOG_DOCUMENTS: Mapping[str, str] = {"experiment": experiments.DOCUMENTS}
"""Catalog kind to the SQL that gives (id, document) of all its aggregates."""

FINDERS = {"run": find_runs}
"""Kind to the function that finds documents by id."""


def parse(kind: str, found: bytes) -> State:
    """A document as the state it was made of."""
    return msgspec.msgpack.decode(found, type=STATES[kind])


def find(connection: Connection, keys: Sequence[AggregateKey]) -> dict[AggregateKey, State]:
    """The states of those aggregates that exist, catalog kinds excepted."""
    found: dict[AggregateKey, State] = {}
    for kind, finder in FINDERS.items():
        ids = [aggregate_id for of_kind, aggregate_id in keys if of_kind == kind]
        if ids:
            documents = finder(connection, ids)
            found.update({(kind, i): parse(kind, doc) for i, doc in documents.items()})
    return found


def current_state(store: Store) -> CurrentState:
    """Current state as of the store's checkpoints, ready to fold what comes after them."""
    state = CurrentState()
    state.next_offsets.update(
        {TopicPartition(*at): Offset(offset) for at, offset in store.checkpoints.items()}
    )
    for kind, sql in CATALOG_DOCUMENTS.items():
        rows: Iterable[tuple[str, bytes]] = store.read(lambda c, sql=sql: c.execute(sql).fetchall())
        state.restore({(kind, i): parse(kind, doc) for i, doc in rows})
    for topic, partition, offset, key, request in store.read(
        lambda c: c.execute(NEWEST, [REQUESTS_REMEMBERED_MAX]).fetchall()
    ):
        state.remember(key, Keyed(TopicPartition(topic, partition), Offset(offset), request))
    return state

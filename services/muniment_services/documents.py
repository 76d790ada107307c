"""Aggregates' states read back from the documents that projections keep.

The database is a cache of the fold, so its documents are the fold's own states; reading them back
is what makes a start quick and memory bounded.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

from muniment_projections.base import Connection
from muniment_projections.catalog import apply as catalog
from muniment_projections.experiments import tables as experiments
from muniment_projections.logged_models.reader import find_documents as find_logged_models
from muniment_projections.quarantine.apply import ALL
from muniment_projections.registry import tables as registry
from muniment_projections.requests.apply import NEWEST
from muniment_projections.runs.reader import find_documents as find_runs
from muniment_projections.store import Store
from muniment_projections.traces.reader import find_documents as find_traces
from muniment_schemas.ids import Offset
from muniment_services.domain.commands import AggregateKey, State
from muniment_services.domain.deciders import STATES
from muniment_services.log.base import TopicPartition
from muniment_services.state import REQUESTS_REMEMBERED_MAX, CurrentState, Keyed, Stopped

CATALOG_DOCUMENTS: Mapping[str, str] = {
    "principal": catalog.PRINCIPALS,
    "hold": catalog.HOLDS,
    "promotion_policy": catalog.POLICIES,
    "schema": catalog.SCHEMAS,
    "schema_id": catalog.SCHEMA_IDS,
    "access": catalog.ACCESS,
    "credential": catalog.CREDENTIALS,
    "workspace": catalog.WORKSPACES,
    "experiment": experiments.DOCUMENTS,
    "registered_model": registry.DOCUMENTS,
}
"""Catalog kind to the SQL that gives (id, document) of all its aggregates."""

FINDERS: Final = {"run": find_runs, "logged_model": find_logged_models, "trace": find_traces}
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
        state.restore({(kind, i): parse(kind, doc) for i, doc in _rows(store, sql)})
    for topic, partition, offset, key, request in _rows(store, NEWEST, REQUESTS_REMEMBERED_MAX):
        state.remember(key, Keyed(TopicPartition(topic, partition), Offset(offset), request))
    _restore_quarantine(state, store)
    return state


def _restore_quarantine(state: CurrentState, store: Store) -> None:
    for topic, partition, offset, kind, aggregate_id, event_type, reason, held in _rows(store, ALL):
        key = (kind, aggregate_id)
        if held:
            state.quarantine[key].held += 1
        else:
            at = TopicPartition(topic, partition)
            state.quarantine[key] = Stopped(at, Offset(offset), event_type, reason)


def _rows(store: Store, sql: str, *values: int) -> list[tuple[Any, ...]]:
    return store.read(lambda connection: connection.execute(sql, list(values)).fetchall())

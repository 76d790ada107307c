"""Rows of what the projections keep as documents only: grants and promotion policies."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import pyarrow as pa

from muniment_projections.base import Connection
from muniment_projections.catalog.apply import ACCESS, POLICIES
from muniment_schemas.access_events import Grant

Rows = Callable[[Connection], pa.Table]
"""What there is now, read on a connection."""

_TEXTS = pa.list_(pa.string())

_GRANTS = pa.schema(
    [
        ("grant_id", pa.string()),
        ("subject_kind", pa.string()),
        ("subject", pa.string()),
        ("issuer", pa.string()),
        ("role", pa.string()),
        ("resource_kind", pa.string()),
        ("pattern", pa.string()),
        ("workspace", pa.string()),
        ("stages", _TEXTS),
        ("aliases", _TEXTS),
        ("tag_keys", _TEXTS),
        ("expires_at_ms", pa.int64()),
        ("comment", pa.string()),
        ("granted_by", pa.string()),
        ("granted_at_ms", pa.int64()),
    ]
)

_POLICIES = pa.schema(
    [
        ("policy", pa.string()),
        ("pattern", pa.string()),
        ("workspace", pa.string()),
        ("stages", _TEXTS),
        ("aliases", _TEXTS),
        ("approvals", pa.int32()),
        ("approver_groups", _TEXTS),
        ("exclude_requester", pa.bool_()),
        ("exclude_author", pa.bool_()),
        ("required_tags", _TEXTS),
        ("condition", pa.string()),
        ("required_comment", pa.bool_()),
        ("set_by", pa.string()),
        ("set_at_ms", pa.int64()),
    ]
)


class _Granted(msgspec.Struct):
    """What is read of a grant's record."""

    grant: Grant
    granted_by: str
    granted_at_ms: int


class _Access(msgspec.Struct):
    """What is read of the state of access."""

    grants: dict[str, _Granted]


def grants(connection: Connection) -> pa.Table:
    """A row per grant that stands, by id."""
    rows = []
    for _, document in connection.execute(ACCESS).fetchall():
        access = msgspec.msgpack.decode(document, type=_Access)
        for _, made in sorted(access.grants.items()):
            row = msgspec.to_builtins(made.grant)
            claims = [f"{claim.name}={claim.pattern}" for claim in made.grant.claims]
            row["subject"] = " ".join(claims) or made.grant.subject
            row |= {"granted_by": made.granted_by, "granted_at_ms": made.granted_at_ms}
            rows.append(row)
    return pa.Table.from_pylist(rows, _GRANTS)


def policies(connection: Connection) -> pa.Table:
    """A row per promotion policy in force, by name."""
    found = connection.execute(POLICIES).fetchall()
    rows = [msgspec.msgpack.decode(document) for _, document in sorted(found)]
    return pa.Table.from_pylist(rows, _POLICIES)

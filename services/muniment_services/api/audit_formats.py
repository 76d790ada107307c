"""Events of the trail as JSON, CSV, Parquet, and OCSF API Activity.

Source: OCSF schema 1.3.0, class API Activity (6003): https://schema.ocsf.io/1.3.0/classes/api_activity
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any, Final

import msgspec
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from muniment_services.csv_cells import harmless_table
from muniment_services.release import release

Row = Mapping[str, Any]
Names = Mapping[str, str]
"""Principal id to the name that people know."""

DOCUMENTS = ("before", "after", "request")
"""Columns that hold JSON."""

OCSF_VERSION = "1.3.0"
CLASS_UID = 6003
CATEGORY_UID = 6
CREATE, READ, UPDATE, DELETE, OTHER = 1, 2, 3, 4, 99

ACTIVITIES: Final = {
    "read": READ,
    "export": READ,
    "login": OTHER,
    **dict.fromkeys(("create", "register", "publish", "issue", "upload", "start"), CREATE),
    **dict.fromkeys(
        ("delete", "remove", "revoke", "untag", "unalias", "discard", "uncomment", "undefine"),
        DELETE,
    ),
}
"""The verb of an action to OCSF's activity; any other verb changes something."""

ACTIVITY_NAMES: Final = {
    CREATE: "Create", READ: "Read", UPDATE: "Update", DELETE: "Delete", OTHER: "Other",
}  # fmt: skip

INFORMATIONAL, MEDIUM = 1, 3
SUCCEEDED, FAILED = 1, 2


def shown(row: Row, names: Names) -> dict[str, Any]:
    """A row as the API shows it: without what it does not have, its time readable, JSON as JSON."""
    told = {name: value for name, value in row.items() if value is not None}
    for name in DOCUMENTS:
        if name in told:
            told[name] = msgspec.Raw(told[name].encode())
    told["at"] = _time(row["at_ms"])
    if row["actor"] in names:
        told["actor_name"] = names[row["actor"]]
    return told


def json_lines(rows: pa.Table, names: Names) -> bytes:
    """Events, one a line."""
    return b"".join(msgspec.json.encode(shown(row, names)) + b"\n" for row in rows.to_pylist())


def csv(rows: pa.Table) -> bytes:
    """Events as CSV with a heading; lists are joined by spaces, and no text is a formula."""
    flat = rows
    for place, field in enumerate(rows.schema):
        if pa.types.is_list(field.type):
            texts = [None if v is None else " ".join(v) for v in rows.column(place).to_pylist()]
            flat = flat.set_column(place, field.name, pa.array(texts, pa.string()))
    buffer = io.BytesIO()
    pyarrow.csv.write_csv(harmless_table(flat), buffer)
    return buffer.getvalue()


def parquet(rows: pa.Table) -> bytes:
    """Events as one Parquet file with the columns of the table."""
    buffer = io.BytesIO()
    pyarrow.parquet.write_table(rows, buffer, compression="zstd")
    return buffer.getvalue()


def ocsf_lines(rows: pa.Table, names: Names) -> bytes:
    """Events as OCSF API Activity, one a line."""
    return b"".join(msgspec.json.encode(ocsf(row, names)) + b"\n" for row in rows.to_pylist())


def ocsf(row: Row, names: Names) -> dict[str, Any]:
    """One event as OCSF API Activity. What OCSF has no place for is in `unmapped`."""
    kind, _, verb = row["action"].partition(".")
    activity = ACTIVITIES.get(verb, UPDATE)
    failed = row["outcome"] not in ("success", "allowed")
    return _present(
        {
            "activity_id": activity,
            "activity_name": ACTIVITY_NAMES[activity],
            "category_uid": CATEGORY_UID,
            "category_name": "Application Activity",
            "class_uid": CLASS_UID,
            "class_name": "API Activity",
            "type_uid": CLASS_UID * 100 + activity,
            "type_name": f"API Activity: {ACTIVITY_NAMES[activity]}",
            "time": row["at_ms"],
            "severity_id": MEDIUM if row["outcome"] == "denied" else INFORMATIONAL,
            "status_id": FAILED if failed else SUCCEEDED,
            "status": "Failure" if failed else "Success",
            "status_code": None if row["status"] is None else str(row["status"]),
            "status_detail": row["reason"],
            "duration": None if row["duration_us"] is None else row["duration_us"] // 1000,
            "metadata": {
                "version": OCSF_VERSION,
                "product": {"name": "muniment", "vendor_name": "muniment", "version": release()},
                "uid": row["event_id"],
                "log_name": f"{row['topic']}/{row['partition']}",
                "sequence": row["offset"],
                "event_code": row["type"],
                "correlation_uid": row["traceparent"],
            },
            "actor": _present(
                {
                    "user": _present({"uid": row["actor"], "name": names.get(row["actor"])}),
                    "app_uid": row["client_id"],
                    "session": None if row["token_id"] is None else {"uid": row["token_id"]},
                }
            ),
            "api": _present(
                {
                    "operation": row["action"],
                    "service": {"name": kind},
                    "request": {"uid": row["request_id"]},
                    "response": None
                    if row["status"] is None
                    else _present({"code": row["status"], "error": row["error_code"]}),
                }
            ),
            # OCSF wants to know where a call came from; a change does not say it again.
            "src_endpoint": {"ip": row["client_address"]}
            if row["client_address"]
            else {"name": "not recorded"},
            "http_request": None
            if row["method"] is None
            else _present(
                {
                    "http_method": row["method"],
                    "user_agent": row["user_agent"],
                    "url": None if row["route"] is None else {"path": row["route"]},
                }
            ),
            "resources": _resources(row),
            "unmapped": _present(
                {name: row[name] for name in ("workspace", "auth_method", "delegation", "comment")}
            ),
        }
    )


def _resources(row: Row) -> list[dict[str, Any]] | None:
    if row["resource_kind"] is None:
        return None
    version = row["resource_version"]
    one = {
        "type": row["resource_kind"],
        "uid": row["resource_id"],
        "name": row["resource_name"],
        "version": None if version is None else str(version),
    }
    return [_present(one)]


def _present(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


def _time(at_ms: int) -> str:
    when = datetime.fromtimestamp(at_ms / 1000, UTC)
    return when.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def actors(rows: pa.Table) -> Iterator[str]:
    """The distinct actors of some rows."""
    yield from rows.column("actor").unique().to_pylist()

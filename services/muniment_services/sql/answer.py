"""Rows as JSON, CSV and Parquet: whatever types a statement comes to."""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Mapping
from typing import Any, Final

import msgspec
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from muniment_services.csv_cells import harmless_table

BATCH_ROWS = 2048

_PLAIN: Final = msgspec.json.Encoder(enc_hook=str, decimal_format="number")


def json(rows: pa.Table) -> bytes:
    """An object: `columns`, each with name and type, and `rows`, each a list in their order.

    Times are ISO 8601; NaN and infinities are the texts "NaN", "Infinity" and "-Infinity"; bytes
    are hex; what JSON has no word for is text.
    """
    columns = [{"name": field.name, "type": str(field.type)} for field in rows.schema]
    values = [_column(column) for column in rows.columns]
    return _PLAIN.encode({"columns": columns, "rows": list(zip(*values, strict=True))})


def csv(rows: pa.Table) -> bytes:
    """With a heading; lists and the like are JSON, and no text is a formula."""
    flat = [_text(column) if _is_nested(column.type) else column for column in rows.columns]
    buffer = io.BytesIO()
    table = pa.Table.from_arrays(flat, rows.column_names)
    pyarrow.csv.write_csv(harmless_table(table), buffer)
    return buffer.getvalue()


def parquet(rows: pa.Table) -> bytes:
    """One file."""
    buffer = io.BytesIO()
    pyarrow.parquet.write_table(rows, buffer, compression="zstd")
    return buffer.getvalue()


FORMATS: Final[Mapping[str, Callable[[pa.Table], bytes]]] = {
    "json": json,
    "csv": csv,
    "parquet": parquet,
}


def _is_nested(kind: pa.DataType) -> bool:
    plain = (pa.types.is_primitive, pa.types.is_string, pa.types.is_boolean, pa.types.is_decimal)
    return pa.types.is_interval(kind) or not any(is_one(kind) for is_one in plain)


def _text(column: pa.ChunkedArray) -> pa.Array:
    values = _column(column)
    texts = [v if v is None or isinstance(v, str) else _PLAIN.encode(v).decode() for v in values]
    return pa.array(texts, pa.string())


def _column(column: pa.ChunkedArray) -> list[Any]:
    return [_value(value) for value in column.to_pylist()]


def _value(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, list):
        return [_value(item) for item in value]
    if isinstance(value, tuple):  # An entry of a map, or an interval.
        return [_value(item) for item in value]
    if isinstance(value, dict):
        return {name: _value(item) for name, item in value.items()}
    return value

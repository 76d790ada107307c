"""Texts in CSV that a spreadsheet must not take for formulas: callers chose them.

Source: OWASP, "CSV Injection".
"""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

BEGINNINGS = ("=", "+", "-", "@", "\t", "\r")
"""What a formula begins with, for one spreadsheet or another."""

_FORMULA = r"^[=+\-@\t\r]"


def harmless(text: str) -> str:
    """A text as it may stand in a cell: behind an apostrophe, if it would be a formula."""
    return f"'{text}" if text.startswith(BEGINNINGS) else text


def harmless_table(rows: pa.Table) -> pa.Table:
    """The same for all texts of a table; other columns stay as they are."""
    for place, field in enumerate(rows.schema):
        if pa.types.is_string(field.type):
            texts = rows.column(place)
            quoted = pc.binary_join_element_wise("'", texts, "")
            safe = pc.if_else(pc.match_substring_regex(texts, _FORMULA), quoted, texts)
            rows = rows.set_column(place, field.name, safe)
    return rows

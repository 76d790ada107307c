"""No text of a caller is a formula in anybody's spreadsheet."""

from __future__ import annotations

import pyarrow as pa
import pytest

from muniment_services.api import audit_formats
from muniment_services.csv_cells import harmless, harmless_table
from muniment_services.sql import answer

FORMULAS = ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1"]
PLAIN = ["", "a=b", "'=1", " =1", "1-1", "ü"]


@pytest.mark.parametrize("text", FORMULAS)
def test_a_formula_is_made_a_text(text: str) -> None:
    assert harmless(text) == f"'{text}"


@pytest.mark.parametrize("text", PLAIN)
def test_all_else_stays(text: str) -> None:
    assert harmless(text) == text


def test_a_table_s_texts_and_nothing_else() -> None:
    table = pa.table({"t": [*FORMULAS, *PLAIN, None], "n": [-1] * 13})
    found = harmless_table(table)
    assert found.column("t").to_pylist() == [*map(harmless, [*FORMULAS, *PLAIN]), None]
    assert found.column("n").equals(table.column("n"))


def test_events_and_answers_to_statements_have_none() -> None:
    planted = '=HYPERLINK("http://evil","x")'
    table = pa.table({"user_agent": [planted], "n": [-1]})
    for csv in (audit_formats.csv(table), answer.csv(table)):
        heading, row = csv.decode().splitlines()
        assert heading.replace('"', "") == "user_agent,n"
        assert row.startswith("\"'=HYPERLINK(")
        assert row.endswith(",-1")

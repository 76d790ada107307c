"""The auditor's questions as reports: which there are, and the answer to one."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import parse_qsl

from muniment_auth.permissions import Permission as P
from muniment_services.api import wire
from muniment_services.api.errors import ApiError
from muniment_services.api.routes import Answer, Call, Route
from muniment_services.csv_cells import harmless
from muniment_services.reports.question import Question
from muniment_services.reports.report import Cell, Column, Report
from muniment_services.reports.run import QUESTIONS, run_report

FORMATS = ("json", "csv")
CSV = "text/csv; charset=utf-8"
VERDICT_HEADER = b"muniment-verdict"
TRUNCATED_HEADER = b"muniment-truncated"
"""Where verdict and truncation are told in CSV, which has no place for them."""

HEADER_CHARACTERS_MAX = 1000


async def catalogue(call: Call) -> bytes:
    """GET /api/v1/audit/reports: every report, its question and its parameters."""
    return wire.encode({"reports": [_question(question) for question in QUESTIONS.values()]})


async def report(call: Call) -> Answer | bytes:
    """GET /api/v1/audit/reports/{name}: one answer, as JSON or CSV."""
    params = dict(parse_qsl(call.query.decode("utf-8", "replace")))
    form = params.pop("format", "json")
    if form not in FORMATS:
        raise ApiError(
            "INVALID_PARAMETER_VALUE", f"format is one of {', '.join(FORMATS)}, not '{form}'."
        )
    found = await run_report(call.services, call.path_params["name"], params)
    if form == "json":
        return wire.encode(shown(found))
    truncated = ((TRUNCATED_HEADER, b"true"),) if found.truncated else ()
    verdict = (VERDICT_HEADER, _of_header(found.verdict))
    return Answer(as_csv(found).encode(), content_type=CSV, headers=(verdict, *truncated))


def shown(found: Report) -> wire.Json:
    """A report as JSON: each row as an object, without what it does not have."""
    return {
        "name": found.name,
        "question": found.question,
        "parameters": dict(found.parameters),
        "as_of": {f"{topic}/{p}": end for (topic, p), end in sorted(found.as_of.items())},
        "verdict": found.verdict,
        "findings": list(found.findings),
        "notes": found.notes,
        "columns": [_column(column) for column in found.columns],
        "rows": [_row(found.columns, row) for row in found.rows],
        "truncated": found.truncated,
        "names": dict(found.names),
        "evidence": [str(place) for place in found.evidence],
    }


def as_csv(found: Report) -> str:
    """The rows with a heading; behind each column of principals, one of their names."""
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(_heading(found.columns))
    for row in found.rows:
        writer.writerow(_cells(found, row))
    return text.getvalue()


def _of_header(text: str) -> bytes:
    # There are names in it that callers chose.
    plain = (char if char.isascii() and char.isprintable() else "?" for char in text)
    return "".join(plain)[:HEADER_CHARACTERS_MAX].encode()


def _heading(columns: tuple[Column, ...]) -> Iterator[str]:
    for column in columns:
        yield column.name
        if column.kind == "principal":
            yield f"{column.name}_name"


def _cells(found: Report, row: tuple[Cell, ...]) -> Iterator[Cell]:
    for column, cell in zip(found.columns, row, strict=True):
        yield _harmless(cell)
        if column.kind == "principal":
            ids = [] if cell is None else str(cell).split(", ")
            yield _harmless(", ".join(found.names.get(one, one) for one in ids))


def _harmless(cell: Cell) -> Cell:
    return harmless(cell) if isinstance(cell, str) else cell


def _row(columns: tuple[Column, ...], row: tuple[Cell, ...]) -> dict[str, Cell]:
    named = zip(columns, row, strict=True)
    return {column.name: cell for column, cell in named if cell is not None}


def _column(column: Column) -> Mapping[str, str]:
    return {"name": column.name, "kind": column.kind, "meaning": column.meaning}


def _question(question: Question) -> dict[str, Any]:
    return {
        "name": question.name,
        "question": question.text,
        "parameters": [
            {
                "name": parameter.name,
                "meaning": parameter.meaning,
                "kind": parameter.kind,
                "required": parameter.required,
                "default": parameter.default,
            }
            for parameter in question.parameters
        ],
        "one_of": list(question.one_of),
        "columns": [_column(column) for column in question.columns],
        "notes": question.notes,
    }


ROUTES = (
    Route("GET", "/api/v1/audit/reports", P.AUDIT_READ, catalogue),
    Route("GET", "/api/v1/audit/reports/{name}", P.AUDIT_READ, report),
)

"""What a pack says in words: `report.json` for programs, and `report.html`, the same for people.

The page stands alone: no scripts, nothing that is loaded from anywhere, and every value escaped,
since clients chose many of them. Rows are written as they come; the page shows the first of them.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from html import escape
from typing import Any

import msgspec

from muniment_services.log.base import TopicPartition
from muniment_services.proof.line import Head
from muniment_services.proof.pack import EVENTS_MAX, Pack, PackTooLarge
from muniment_services.release import release

FORM = "muniment/pack/1"
"""Form of `report.json`; another form begins with another name."""

PAGE_ROWS_MAX = 1_000
"""Rows that the page shows; all of them are in `report.json`."""

CELL_CHARACTERS_MAX = 500

PROVED = (
    "The events in this pack stand in the log at the offsets that are named, unaltered, under "
    "heads that the log's keys signed. The server stands by this report as it is: the same keys "
    "signed the manifest that names it."
)
CLAIMED = (
    "That these are all the events that answer the question, and that the report says rightly what "
    "they mean, is the server's word."
)
WHOLE = (
    "All records of each tree from the first to the last event of the answer are in the pack, "
    "proved to be all there are: whoever decodes them can ask the question again within these "
    "ranges."
)

TRUNCATED = "The answer was cut at the server's limits: there are more rows or events than these."

_STYLE = (
    "body{font:15px/1.5 system-ui,sans-serif;margin:2rem auto;padding:0 1rem;max-width:100rem;"
    "color:#111;background:#fff}div{overflow-x:auto}table{border-collapse:collapse;font-size:.85rem}"
    "th,td{border:1px solid #bbb;padding:.3rem .5rem;text-align:left;vertical-align:top}"
    "th{background:#eee}td{max-width:26rem;overflow-wrap:break-word}"
    ".facts td{max-width:60rem}.facts td:first-child{font-weight:600;white-space:nowrap}"
    ".verdict{font-size:1.15rem;font-weight:600}"
)

Row = Mapping[str, Any]
Place = tuple[str, int, int]
"""Topic, partition and offset of an event."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A question, of whom, when, and how far it reaches.

    name: of a ready-made question, or `query`. question: as a sentence. columns: of its rows.
    ends: of each tree, the offset below which it was asked. verdict: what to read first; None: how
    many events there are. complete: whether the pack has whole ranges. by: who asked. findings,
    notes, truncated, names: as a `Report` has them.
    """

    name: str
    question: str
    parameters: Mapping[str, Any]
    columns: Sequence[str]
    ends: Mapping[TopicPartition, int]
    verdict: str | None
    complete: bool
    log: str
    by: Mapping[str, str]
    at_ms: int
    findings: Sequence[str] = ()
    notes: str = ""
    truncated: bool = False
    names: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Page:
    """A part of an answer: rows, and the events that they rest on."""

    rows: Sequence[Row]
    evidence: Sequence[Place]


async def write_report(
    pack: Pack, asked: Asked, heads: Mapping[TopicPartition, Head], pages: AsyncIterator[Page]
) -> Mapping[TopicPartition, Sequence[int]]:
    """Add both reports to a pack. Returns the offsets of all that they rest on, rising.

    heads: that the pack will have. Raises PackTooLarge, OSError, and what the pages raise.
    """
    shown: list[Row] = []
    evidence: set[Place] = set()
    total = 0
    head = msgspec.json.encode(_head(asked, heads))
    with pack.file("report.json") as write:
        write(head[:-1] + b',"rows":[')
        async for page in pages:
            chunk = b",".join(map(msgspec.json.encode, page.rows))
            await asyncio.to_thread(write, b",\n" + chunk if total and chunk else chunk)
            total += len(page.rows)
            shown += page.rows[: PAGE_ROWS_MAX - len(shown)]
            evidence.update(page.evidence)
            if len(evidence) > EVENTS_MAX:
                raise PackTooLarge(
                    f"More than {EVENTS_MAX:,} events answer this, which is what one pack holds. "
                    "Ask for fewer: narrow the time."
                )
        verdict = asked.verdict or f"{total:,} event{'' if total == 1 else 's'} match."
        tail = {"verdict": verdict, "total": total, "evidence": sorted(evidence)}
        write(b"]," + msgspec.json.encode(tail)[1:])
    with pack.file("report.html") as write:
        for part in _page(asked, heads, verdict, total, shown):
            write(part.encode())
    offsets: dict[TopicPartition, list[int]] = defaultdict(list)
    for topic, partition, offset in sorted(evidence):
        offsets[TopicPartition(topic, partition)].append(offset)
    return offsets


def _head(asked: Asked, heads: Mapping[TopicPartition, Head]) -> dict[str, Any]:
    return {
        "form": FORM,
        "log": asked.log,
        "name": asked.name,
        "question": asked.question,
        "parameters": asked.parameters,
        "made_at_ms": asked.at_ms,
        "made_by": asked.by,
        "server": f"muniment {release()}",
        "asked_of": [
            {"topic": at.topic, "partition": at.partition, "end": end, "head": heads[at].size}
            for at, end in sorted(asked.ends.items())
        ],
        "complete": asked.complete,
        "truncated": asked.truncated,
        "findings": asked.findings,
        "notes": asked.notes,
        "names": asked.names,
        "proved": PROVED + (f" {WHOLE}" if asked.complete else ""),
        "claimed": CLAIMED,
        "columns": asked.columns,
    }


def _page(
    asked: Asked,
    heads: Mapping[TopicPartition, Head],
    verdict: str,
    total: int,
    rows: Sequence[Row],
) -> Iterator[str]:
    when = datetime.fromtimestamp(asked.at_ms / 1000, UTC).isoformat(timespec="seconds")
    yield (
        '<!doctype html><html lang="en"><meta charset="utf-8">'
        '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; '
        "style-src 'unsafe-inline'\">"
        f"<title>{escape(asked.question)}</title><style>{_STYLE}</style>"
        f'<h1>{escape(asked.question)}</h1><p class="verdict">{escape(verdict)}</p>'
    )
    facts = {
        "Question": asked.name,
        **{name: _cell(value) for name, value in asked.parameters.items()},
        "Asked at": when,
        "Asked by": ", ".join(asked.by.values()),
        "Log": asked.log,
        "Answered by": f"muniment {release()}",
        "Proved": PROVED + (f" {WHOLE}" if asked.complete else ""),
        "Not proved": CLAIMED,
        "To verify": "Unpack, and run: python verifier.py --head FILE, with a signed head of this "
        "log that you have kept, or --vkey KEY, with its key from elsewhere.",
    }
    for said in (*asked.findings, TRUNCATED if asked.truncated else "", asked.notes):
        if said:
            yield f"<p>{escape(said)}"
    yield from _table((), facts.items(), "facts")
    yield "<h2>Answer</h2>"
    if total > len(rows):
        yield f"<p>The first {len(rows):,} of {total:,} rows; report.json has all of them.</p>"
    columns = [name for name in asked.columns if any(row.get(name) is not None for row in rows)]
    yield from _table(columns, ([_cell(row.get(name)) for name in columns] for row in rows))
    if asked.names:
        yield "<h2>Who is who</h2>"
        yield from _table(("Principal", "Name"), sorted(asked.names.items()))
    yield "<h2>Asked of</h2>"
    yield from _table(
        ("Topic and partition", "Records, from the first", "Signed head at"),
        ((str(at), f"{end:,}", f"{heads[at].size:,}") for at, end in sorted(asked.ends.items())),
    )


def _table(
    columns: Sequence[str], rows: Iterable[Sequence[str]], kind: str = "answer"
) -> Iterator[str]:
    yield f'<div><table class="{kind}">'
    if columns:
        yield f"<tr>{''.join(f'<th>{escape(name)}' for name in columns)}"
    for row in rows:
        yield f"<tr>{''.join(f'<td>{escape(cell)}' for cell in row)}\n"
    yield "</table></div>"


def _cell(value: object) -> str:
    if value is None:
        return ""
    text = value if isinstance(value, str) else msgspec.json.encode(value).decode()
    return text if len(text) <= CELL_CHARACTERS_MAX else f"{text[:CELL_CHARACTERS_MAX]}…"

"""Evidence packs over HTTP: a question, its answer, and the events it rests on with their proofs.

    GET, POST /api/v1/audit/export    q, or question and parameter=NAME=VALUE; complete; earlier

A pack is made in a file that has no name, beside the trees; then its call is recorded, with the
SHA-256 of the pack's manifest as what it was about; then it is sent.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import IO, Any

from muniment_auth.identity import KeysUnavailable
from muniment_auth.permissions import Permission as P
from muniment_projections.audit import reader
from muniment_projections.audit.reader import Wanted as Rows
from muniment_projections.search.predicate import Predicate, all_of, any_of
from muniment_services.api import audit_formats as formats
from muniment_services.api.audit import names_in, where_of
from muniment_services.api.errors import ApiError
from muniment_services.api.requests import Field, Fields
from muniment_services.api.routes import Answer, Call, Route
from muniment_services.api.services import EXPORTS_MAX, Services
from muniment_services.domain.errors import Invalid
from muniment_services.fold import FOLDED_TOPICS
from muniment_services.log.base import TopicPartition
from muniment_services.proof import pack as packs
from muniment_services.proof.cosigner import Cosigner
from muniment_services.proof.pack import HeadsLate, Pack, PackTooLarge, Wanted
from muniment_services.proof.pack_report import Asked, Page, write_report
from muniment_services.proof.prover import Prover
from muniment_services.proof.signing import NotSigned
from muniment_services.reports.report import Report
from muniment_services.reports.run import run_report

PAGE_ROWS = 1_000
PACK_S_MAX = 300.0
"""What making a pack may take."""

EARLIER_MAX = 100
"""Kept heads that one pack leads on from."""

CHUNK_BYTES = 256 * 1024
ZIP = "application/zip"
PACK_HEADER = b"muniment-pack"
"""Where an answer names its pack, as the trail does: SHA-256 of the manifest, in hex."""

COLUMNS = (
    "at", "actor_name", "actor", "action", "outcome", "reason", "resource_kind", "resource_name",
    "resource_version", "comment", "before", "after", "route", "status", "client_address", "topic",
    "partition", "offset",
)  # fmt: skip
"""Of an answer to the query bar, as the page shows them; rows have all that there is."""

_EXPORT: Fields = (
    Field("q"),
    Field("question"),
    Field("parameter", repeated=True),
    Field("complete", "bool"),
    Field("earlier", repeated=True),
)

Ends = Mapping[TopicPartition, int]


@dataclass(frozen=True, slots=True)
class _Answer:
    """An answer that goes into a pack. pages: as they are read."""

    asked: Asked
    pages: AsyncIterator[Page]


async def export(call: Call) -> Answer:
    """GET, POST /api/v1/audit/export: the evidence pack of a question, as a zip."""
    params = call.params(_EXPORT)
    prover = call.services.prover
    if prover is None:
        raise ApiError("FEATURE_DISABLED", "Proofs are turned off (setting proof).")
    earlier = _earlier(params.get("earlier", []), prover)
    if call.services.exports.locked():
        raise ApiError(
            "REQUEST_LIMIT_EXCEEDED",
            f"{EXPORTS_MAX} packs are being made on this server; try again, or another replica.",
            ((b"retry-after", b"15"),),
        )
    async with call.services.exports:
        file = await asyncio.to_thread(_scratch, prover.forest.folder)
        try:
            with _refusing():
                async with asyncio.timeout(PACK_S_MAX):
                    answer = await _answer(call, params)
                    digest = await _write(file, prover, call.services.cosigner, answer, earlier)
            size = await asyncio.to_thread(file.seek, 0, 2)
        except BaseException:
            file.close()
            raise
    call.authority.touch("pack", digest)
    day = datetime.fromtimestamp(answer.asked.at_ms / 1000, UTC).strftime("%Y-%m-%d")
    name = f"muniment-{answer.asked.name}-{day}.zip"
    headers = (
        (b"content-length", str(size).encode()),
        (b"content-disposition", f'attachment; filename="{name}"'.encode()),
        (b"cache-control", b"no-store"),
        (PACK_HEADER, digest.encode()),
    )
    return Answer(_chunks(file), content_type=ZIP, headers=headers)


def _scratch(folder: Path) -> IO[bytes]:
    try:
        return tempfile.TemporaryFile(dir=folder)
    except OSError as error:
        raise _later(error) from None


async def _chunks(file: IO[bytes]) -> AsyncGenerator[bytes, None]:
    with file:
        await asyncio.to_thread(file.seek, 0)
        while chunk := await asyncio.to_thread(file.read, CHUNK_BYTES):
            yield chunk


async def _write(
    file: IO[bytes],
    prover: Prover,
    cosigner: Cosigner | None,
    answer: _Answer,
    earlier: Mapping[TopicPartition, Sequence[int]],
) -> str:
    asked = answer.asked
    ends = dict(asked.ends)
    for at, sizes in earlier.items():
        ends[at] = max(ends.get(at, 0), *sizes)
    heads = await packs.covering(prover, ends, cosigner)
    with closing(Pack(file)) as pack:
        offsets = await write_report(pack, asked, heads, answer.pages)
        if asked.complete:
            offsets = {at: range(found[0], found[-1] + 1) for at, found in offsets.items()}
        return await packs.fill(pack, prover, heads, Wanted(offsets, earlier))


@contextmanager
def _refusing() -> Iterator[None]:
    """Turn what can come between into answers."""
    try:
        yield
    except PackTooLarge as error:
        raise ApiError("REQUEST_TOO_LARGE", str(error)) from None
    except TimeoutError:
        raise ApiError(
            "REQUEST_TOO_LARGE",
            f"This pack takes more than {PACK_S_MAX:g} s. Ask for fewer events: narrow the time.",
        ) from None
    except (HeadsLate, NotSigned, KeysUnavailable, OSError) as error:
        raise _later(error) from None


def _later(error: Exception) -> ApiError:
    return ApiError(
        "TEMPORARILY_UNAVAILABLE",
        f"The pack cannot be made now: {error}",
        ((b"retry-after", b"5"),),
    )


async def _answer(call: Call, params: Mapping[str, Any]) -> _Answer:
    text, question = params.get("q"), params.get("question")
    if (text is None) == (question is None):
        raise Invalid("Say what to export: 'q' for a query, or 'question' for a ready-made one.")
    if question is not None:
        return await _of_report(call, question, params)
    assert text is not None
    return await _of_query(call, text, params)


async def _of_report(call: Call, name: str, params: Mapping[str, Any]) -> _Answer:
    given = dict(_pair(text) for text in params.get("parameter", []))
    report = await run_report(call.services, name, given)
    columns = [column.name for column in report.columns]
    asked = Asked(
        name=report.name,
        question=report.question,
        parameters=report.parameters,
        columns=columns,
        ends={TopicPartition(*at): end for at, end in report.as_of.items() if end},
        verdict=report.verdict,
        findings=report.findings,
        notes=report.notes,
        truncated=report.truncated,
        names=report.names,
        **await _common(call, params),
    )
    return _Answer(asked, _page_of(report, columns))


async def _page_of(report: Report, columns: Sequence[str]) -> AsyncIterator[Page]:
    rows = [dict(zip(columns, row, strict=True)) for row in report.rows]
    yield Page(rows, [(one.topic, one.partition, one.offset) for one in report.evidence])


async def _of_query(call: Call, text: str, params: Mapping[str, Any]) -> _Answer:
    services = call.services
    where = await where_of(services, text)
    await services.caught_up(FOLDED_TOPICS)
    await services.runner.fresh(trail=True)
    checkpoints = dict(services.runner.store.checkpoints)
    ends = {TopicPartition(*at): end for at, end in checkpoints.items() if end}
    asked = Asked(
        name="query",
        question=f"Which events match: {text}" if text else "Which events are there?",
        parameters={"q": text},
        columns=COLUMNS,
        ends=ends,
        verdict=None,
        **await _common(call, params),
    )
    return _Answer(asked, _pages(services, text, all_of([where, _before(ends)])))


def _before(ends: Ends) -> Predicate:
    return any_of(
        Predicate(
            '(t.topic = ? AND t."partition" = ? AND t."offset" < ?)', (at.topic, at.partition, end)
        )
        for at, end in ends.items()
    )


async def _pages(services: Services, text: str, where: Predicate) -> AsyncIterator[Page]:
    token = None
    while True:
        wanted = Rows(where, text, newest_first=False, max_results=PAGE_ROWS, page_token=token)
        found = await services.runner.read(partial(reader.events, wanted=wanted))
        names = await names_in(services, found.rows)
        rows = [formats.shown(row, names) for row in found.rows.to_pylist()]
        yield Page(rows, [(row["topic"], row["partition"], row["offset"]) for row in rows])
        token = found.next_page_token
        if token is None:
            return


async def _common(call: Call, params: Mapping[str, Any]) -> dict[str, Any]:
    services, principal_id = call.services, call.principal.id
    assert services.prover is not None
    names = await services.identities.names([principal_id])
    return {
        "complete": params.get("complete", False),
        "log": services.prover.origin,
        "by": {"id": principal_id, "name": names.get(principal_id, principal_id)},
        "at_ms": services.now_ms(),
    }


def _pair(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals:
        raise Invalid(f"'parameter' is NAME=VALUE, not '{text}'.")
    return name, value


def _earlier(texts: Sequence[str], prover: Prover) -> Mapping[TopicPartition, Sequence[int]]:
    """Sizes by tree, of `topic/partition/size`: what kept heads are of. Raises Invalid."""
    if len(texts) > EARLIER_MAX:
        raise Invalid(f"One pack leads on from {EARLIER_MAX} kept heads at most.")
    sizes: dict[TopicPartition, list[int]] = {}
    for text in texts:
        at, _, size = text.rpartition("/")
        found = next((one for one in prover.forest.trees if str(one) == at), None)
        tree = None if found is None else prover.forest.trees[found]
        if found is None or tree is None or not _within(size, tree.size):
            raise Invalid(
                f"'earlier' is TOPIC/PARTITION/SIZE of a head of this log, not '{text}'. If you "
                "hold such a head, it is of another log, or this one has lost events."
            )
        sizes.setdefault(found, []).append(int(size))
    return sizes


def _within(text: str, most: int) -> bool:
    return text.isdecimal() and len(text) <= len(str(most)) and 0 < int(text) <= most


ROUTES = (
    Route("GET", "/api/v1/audit/export", P.AUDIT_READ, export),
    Route("POST", "/api/v1/audit/export", P.AUDIT_READ, export),
)

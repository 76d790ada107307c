"""The trail as auditors ask it: events, counts, a live tail, and what a sensitive value became."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping
from functools import partial
from typing import Any

import msgspec
import pyarrow as pa

from muniment_auth.permissions import Permission as P
from muniment_projections.audit import reader
from muniment_projections.audit.query import Actors, actor_patterns, compile_query
from muniment_projections.audit.reader import FACETS, Wanted
from muniment_projections.search.predicate import Predicate
from muniment_services.api import audit_formats as formats
from muniment_services.api import wire
from muniment_services.api.errors import ApiError
from muniment_services.api.requests import Field, Fields
from muniment_services.api.routes import Answer, Call, Route
from muniment_services.api.services import TAILS_MAX, Services

MAX_RESULTS_DEFAULT = 100
MAX_RESULTS_MAX = 1000
"""Of a page of JSON."""

EXPORTED_MAX = 100_000
"""Of a page in any other format."""

NEXT_PAGE_HEADER = b"muniment-next-page-token"
"""Where the token of the next page is, in formats that have no place for it."""

TAIL_POLL_S = 1.0
TAIL_EVENTS_MAX = 1000
"""Events that one look brings at most; the next look brings the rest."""

TAIL_S_MAX = 900.0
"""A tail ends after this; its reader comes back with what it saw last."""

TAIL_QUIET_S = 15.0
"""After so long without an event a comment is sent, so that proxies keep the connection."""

PLACE_CHARACTERS_MAX = 20_000

_EVENTS: Fields = (
    Field("q"),
    Field("page_token"),
    Field("max_results", "int", nullable=False),
    Field("order"),
    Field("format"),
)
_FACETS: Fields = (Field("q"),)
_HASH: Fields = (Field("value", required=True),)

Format = Callable[[pa.Table, formats.Names], bytes]

EXPORTS: Mapping[str, tuple[str, Format]] = {
    "jsonl": ("application/x-ndjson", formats.json_lines),
    "csv": ("text/csv; charset=utf-8", lambda rows, _: formats.csv(rows)),
    "parquet": ("application/vnd.apache.parquet", lambda rows, _: formats.parquet(rows)),
    "ocsf": ("application/x-ndjson", formats.ocsf_lines),
}
"""Formats besides JSON: media type, and what makes it."""


async def events(call: Call) -> Answer | bytes:
    """GET /api/v1/audit/events: one page of what matches a query, the newest first."""
    params = call.params(_EVENTS)
    format_name = params.get("format") or "json"
    if format_name != "json" and format_name not in EXPORTS:
        raise _wrong("format", format_name, ("json", *EXPORTS))
    order = params.get("order") or "desc"
    if order not in ("asc", "desc"):
        raise _wrong("order", order, ("asc", "desc"))
    text = params.get("q", "")
    wanted = Wanted(
        where=await where_of(call.services, text),
        asked=text,
        newest_first=order == "desc",
        max_results=_max_results(params, format_name),
        page_token=params.get("page_token") or None,
    )
    page = await call.services.read_trail(partial(reader.events, wanted=wanted))
    names = await names_in(call.services, page.rows)
    if format_name == "json":
        rows = [formats.shown(row, names) for row in page.rows.to_pylist()]
        return wire.page("events", rows, page.next_page_token)
    media_type, made = EXPORTS[format_name]
    token = page.next_page_token
    headers = () if token is None else ((NEXT_PAGE_HEADER, token.encode()),)
    body = await asyncio.to_thread(made, page.rows, names)
    return Answer(body, content_type=media_type, headers=headers)


async def facets(call: Call) -> bytes:
    """GET /api/v1/audit/facets: how many of what matches a query each actor, action, … has."""
    where = await where_of(call.services, call.params(_FACETS).get("q", ""))
    found = await call.services.read_trail(partial(reader.facets, where=where))
    names = await call.services.identities.names(actor for actor, _ in found["actor"])
    told: wire.Json = {
        name: [{"value": value, "events": count} for value, count in found[name]] for name in FACETS
    }
    for one in told["actor"]:
        if one["value"] in names:
            one["name"] = names[one["value"]]
    return wire.encode({"facets": told})


async def hashed(call: Call) -> bytes:
    """POST /api/v1/audit/hash: what stands in the trail for a sensitive value."""
    value = call.params(_HASH)["value"]
    return wire.encode({"hash": call.services.trail.redaction.hashed(value)})


async def stream(call: Call) -> Answer:
    """GET /api/v1/audit/stream: what matches a query from now on, as server-sent events.

    With Last-Event-ID it goes on behind that event, whatever server sent it. Source: HTML Living
    Standard, "Server-sent events".
    """
    services = call.services
    where = await where_of(services, call.params(_FACETS).get("q", ""))
    last = call.headers.get(b"last-event-id")
    places = dict(services.runner.store.checkpoints) if last is None else _places(last)
    if services.tails.locked():
        raise ApiError(
            "REQUEST_LIMIT_EXCEEDED",
            f"{TAILS_MAX} tails are open on this server; close one, or try another replica.",
            ((b"retry-after", b"15"),),
        )
    return Answer(
        _tail(call, services, where, places),
        content_type="text/event-stream",
        endless=True,
        headers=((b"cache-control", b"no-store"), (b"x-accel-buffering", b"no")),
    )


async def _tail(
    call: Call, services: Services, where: Predicate, places: dict[tuple[str, int], int]
) -> AsyncGenerator[bytes, None]:
    loop = asyncio.get_running_loop()
    ends = loop.time() + TAIL_S_MAX
    store, beyond = services.runner.store, 0
    async with services.tails:
        yield b"retry: 1000\n\n"
        told = loop.time()
        while loop.time() < ends and not call.startup.is_stopping:
            if services.runner.store is not store:
                store, beyond = services.runner.store, 0  # A rebuild has put its rows elsewhere.
            look = await services.read_trail(
                partial(
                    reader.since,
                    where=where,
                    places=dict(places),
                    beyond=beyond,
                    rows_max=TAIL_EVENTS_MAX,
                )
            )
            beyond = look.beyond
            if len(look.rows):
                names = await names_in(services, look.rows)
                yield b"".join(_messages(look.rows, names, places))
                told = loop.time()
            elif loop.time() - told > TAIL_QUIET_S:
                yield b": nothing new\n\n"
                told = loop.time()
            if len(look.rows) < TAIL_EVENTS_MAX:
                await asyncio.sleep(TAIL_POLL_S)


def _messages(
    rows: pa.Table, names: formats.Names, places: dict[tuple[str, int], int]
) -> list[bytes]:
    messages = []
    for row in rows.to_pylist():
        places[(row["topic"], row["partition"])] = row["offset"] + 1
        place = ",".join(f"{t}/{p}:{at}" for (t, p), at in places.items())
        data = msgspec.json.encode(formats.shown(row, names))
        messages.append(b"id: %s\ndata: %s\n\n" % (place.encode(), data))
    return messages


def _places(text: bytes) -> dict[tuple[str, int], int]:
    """The places that an event's id names. Raises ApiError."""
    places = {}
    try:
        if len(text) > PLACE_CHARACTERS_MAX:
            raise ValueError("it is too long")
        for part in text.decode("ascii").split(","):
            at, _, offset = part.rpartition(":")
            topic, _, partition = at.partition("/")
            places[(topic, int(partition))] = int(offset)
    except ValueError as error:
        raise ApiError(
            "INVALID_PARAMETER_VALUE",
            f"Last-Event-ID is none that this stream has sent ({error}). Begin without it.",
        ) from None
    return places


async def where_of(services: Services, text: str) -> Predicate:
    """A query as SQL, its actors known by name where somebody has it."""
    patterns = actor_patterns(text)
    found = {pattern: await services.identities.ids_of(pattern) for pattern in patterns}
    actors: Actors = lambda pattern: found.get(pattern, ())  # noqa: E731
    return compile_query(text, actors)


async def names_in(services: Services, rows: pa.Table) -> formats.Names:
    """The names of the actors of some rows, as far as they can be known now."""
    return await services.identities.names(formats.actors(rows))


def _max_results(params: Mapping[str, Any], format_name: str) -> int:
    most = MAX_RESULTS_MAX if format_name == "json" else EXPORTED_MAX
    wanted = params.get("max_results", MAX_RESULTS_DEFAULT if format_name == "json" else most)
    if not 1 <= wanted <= most:
        raise ApiError(
            "INVALID_PARAMETER_VALUE",
            f"max_results is 1 to {most} in {format_name}, not {wanted}.",
        )
    return int(wanted)


def _wrong(name: str, given: str, known: tuple[str, ...]) -> ApiError:
    return ApiError(
        "INVALID_PARAMETER_VALUE", f"{name} is one of {', '.join(known)}, not '{given}'."
    )


ROUTES = (
    Route("GET", "/api/v1/audit/events", P.AUDIT_READ, events),
    Route("GET", "/api/v1/audit/facets", P.AUDIT_READ, facets),
    Route("GET", "/api/v1/audit/stream", P.AUDIT_READ, stream),
    Route("POST", "/api/v1/audit/hash", P.AUDIT_READ, hashed),
)

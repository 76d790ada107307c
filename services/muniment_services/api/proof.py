"""The log's trees for verifiers: tiles and signed heads as C2SP has them, and proofs as JSON.

    GET /log/                                    the trees, and how far their signed heads reach
    GET /log/{topic}/{partition}/checkpoint      the newest signed head
    GET /log/{topic}/{partition}/tile/…          tiles and entry bundles
    GET /log/{topic}/{partition}/vkey, /vkeys    the verifier key in use; all there ever were
    GET /api/v1/proof/inclusion, /consistency, /range
    POST /api/v1/proof/rotate                    new signing keys

No proof leaves here that was not verified first: damage of the cache is a fault of ours, not a lie.
Source: C2SP tlog-tiles (2026-07): addresses, content types, caching.
"""

from __future__ import annotations

import asyncio
from base64 import b64encode
from collections.abc import Mapping, Sequence
from typing import Any

from muniment_auth.permissions import Permission as P
from muniment_schemas.ids import Offset
from muniment_services.api import wire
from muniment_services.api.errors import ApiError
from muniment_services.api.requests import Field, Fields, from_query, missing
from muniment_services.api.routes import Answer, Call, Route
from muniment_services.domain.errors import Invalid, NotFound
from muniment_services.log.base import LogUnavailable, Record, TopicPartition
from muniment_services.proof import merkle, tiles
from muniment_services.proof.forest import leaves_of
from muniment_services.proof.line import Head
from muniment_services.proof.note import Kind, VerifierKey
from muniment_services.proof.prover import DIFFERS, Prover
from muniment_services.proof.signing import NotRotated
from muniment_services.proof.statement import statement

TEXT = "text/plain; charset=utf-8"
OCTETS = "application/octet-stream"
MUTABLE = ((b"cache-control", b"no-cache"),)
IMMUTABLE = ((b"cache-control", b"private, max-age=31536000, immutable"),)
"""Private: who may read the log is decided for each caller."""

QUORUM = b"muniment-quorum"
"""Header of a checkpoint: whether enough witnesses cosigned it, `met` or `unmet`."""

RANGE_MAX = 10_000

_PLACE: Fields = (Field("topic", required=True), Field("partition", "int", required=True))
_INCLUSION: Fields = (*_PLACE, Field("offset", "int", required=True), Field("size", "int"))
_CONSISTENCY: Fields = (*_PLACE, Field("old", "int", required=True), Field("new", "int"))
_RANGE: Fields = (
    *_PLACE,
    Field("begin", "int", required=True),
    Field("end", "int", required=True),
    Field("size", "int"),
)


async def logs(call: Call) -> Answer:
    """GET /log/: every tree, with the size of its newest signed head."""
    forest = _prover(call).forest
    heads = {at: forest.served(at) for at in sorted(forest.trees)}
    told = [
        {"topic": at.topic, "partition": at.partition, "size": head.size if head else 0}
        for at, head in heads.items()
    ]
    return Answer(wire.encode({"logs": told}), headers=MUTABLE)


async def checkpoint(call: Call) -> Answer:
    """GET /log/{topic}/{partition}/checkpoint: the newest signed head that tiles are served of.

    With witnesses it is the newest that enough of them cosigned; QUORUM says whether it is.
    """
    prover, cosigner = _prover(call), call.services.cosigner
    at = _place(prover, call.path_params)
    head = _head(prover, at)
    if cosigner is None:
        return Answer(head.raw, 200, TEXT, MUTABLE)
    shown = cosigner.shown(at) or head
    told = b"met" if shown == cosigner.cosigned(at) else b"unmet"
    return Answer(shown.raw, 200, TEXT, (*MUTABLE, (QUORUM, told)))


async def vkey(call: Call) -> Answer:
    """GET /log/{topic}/{partition}/vkey: the Ed25519 key in use, as a C2SP verifier key."""
    keys = [key for key in _vkeys(call) if key.kind is Kind.ED25519]
    return Answer(keys[-1].vkey.encode(), 200, TEXT, MUTABLE)


async def vkeys(call: Call) -> Answer:
    """GET /log/{topic}/{partition}/vkeys: all keys that ever signed, the oldest first."""
    lines = "".join(f"{key.vkey}\n" for key in _vkeys(call))
    return Answer(lines.encode(), 200, TEXT, MUTABLE)


def _vkeys(call: Call) -> Sequence[VerifierKey]:
    prover = _prover(call)
    keys = prover.verifier_keys(_place(prover, call.path_params))
    if not keys:
        raise NotFound("No head has been signed yet; the first ones are within a second.")
    return keys


async def tile(call: Call) -> Answer:
    """GET /log/{topic}/{partition}/tile/{path}: hashes, or the statements of 256 records."""
    prover = _prover(call)
    at = _place(prover, call.path_params)
    asked = tiles.parse_path(call.path_params["path"])
    head = prover.forest.served(at)
    if asked is None or head is None or not _is_of(asked, head.size):
        raise NotFound(f"There is no such tile under the signed head of {at}.")
    if asked.level is None:
        return Answer(await _bundle(prover, at, asked), 200, OCTETS, IMMUTABLE)
    return Answer(prover.forest.trees[at].tile(asked), 200, OCTETS, IMMUTABLE)


def _is_of(asked: tiles.Tile, size: int) -> bool:
    level = asked.level or 0
    return asked.begin + asked.width <= size >> (tiles.TILE_BITS * level)


async def _bundle(prover: Prover, at: TopicPartition, asked: tiles.Tile) -> bytes:
    found = await _records(prover, at, asked.begin, asked.begin + asked.width)
    packed = tiles.bundle(statement(record) for record in found)
    tree = prover.forest.trees[at]
    if b"".join(leaves_of(found)) != tree.tile(tiles.Tile(0, asked.index, asked.width)):
        raise _damaged(prover, at)
    return packed


async def inclusion(call: Call) -> bytes:
    """GET /api/v1/proof/inclusion: that a record is in the tree of a size or of the head."""
    params = from_query(call.query, _INCLUSION)
    prover, at, head, size = _asked(call, params)
    offset = _within(params, "offset", 0, size - 1)
    tree = prover.forest.trees[at]
    proof = merkle.inclusion_proof(offset, size, tree.node)
    (record,) = await _records(prover, at, offset, offset + 1)
    leaf = statement(record)
    root = tree.root(size)
    try:
        merkle.verify_inclusion(merkle.leaf_hash(leaf), offset, size, proof, root)
    except merkle.ProofInvalid:
        raise _damaged(prover, at) from None
    return wire.encode(
        _told(at, head, size, root) | {"offset": offset, "leaf": leaf.decode()} | _proof(proof)
    )


async def consistency(call: Call) -> bytes:
    """GET /api/v1/proof/consistency: that the tree of one size extends the one of another."""
    params = from_query(call.query, _CONSISTENCY)
    prover, at, head, new = _asked(call, params, "new")
    old = _within(params, "old", 1, new)
    tree = prover.forest.trees[at]
    proof = merkle.consistency_proof(old, new, tree.node)
    roots = tree.root(old), tree.root(new)
    try:
        merkle.verify_consistency(old, new, proof, *roots)
    except merkle.ProofInvalid:
        raise _damaged(prover, at) from None
    told = {"old": old, "old_root": b64encode(roots[0]).decode()}
    return wire.encode(_told(at, head, new, roots[1]) | told | _proof(proof))


async def whole_range(call: Call) -> bytes:
    """GET /api/v1/proof/range: the leaves of [begin, end), and that there are no others there."""
    params = from_query(call.query, _RANGE)
    prover, at, head, size = _asked(call, params)
    begin = _within(params, "begin", 0, size - 1)
    end = _within(params, "end", begin + 1, min(size, begin + RANGE_MAX))
    tree = prover.forest.trees[at]
    records = await _records(prover, at, begin, end)
    proof = merkle.range_proof(begin, end, size, tree.node)
    root = tree.root(size)
    try:
        merkle.verify_range(leaves_of(records), begin, size, proof, root)
    except merkle.ProofInvalid:
        raise _damaged(prover, at) from None
    leaves = [statement(record).decode() for record in records]
    told = {"begin": begin, "end": end, "leaves": leaves}
    return wire.encode(_told(at, head, size, root) | told | _proof(proof))


async def rotate(call: Call) -> bytes:
    """POST /api/v1/proof/rotate: have heads signed by new keys from now on."""
    try:
        number = await _prover(call).rotate()
    except NotRotated as error:
        raise ApiError("RESOURCE_CONFLICT", str(error)) from None
    return wire.encode({"number": number})


def _prover(call: Call) -> Prover:
    prover = call.services.prover
    if prover is None:
        raise ApiError("FEATURE_DISABLED", "Proofs are turned off (setting proof).")
    return prover


def _place(prover: Prover, params: Mapping[str, Any]) -> TopicPartition:
    topic, partition = params["topic"], str(params["partition"])
    if partition.isascii() and partition.isdigit() and str(int(partition[:9])) == partition:
        at = TopicPartition(topic, int(partition))
        if at in prover.forest.trees:
            return at
    raise NotFound(f"There is no topic-partition {topic}/{partition}.")


def _head(prover: Prover, at: TopicPartition) -> Head:
    head = prover.forest.served(at)
    if head is None:
        raise NotFound(f"No head of {at} has been signed yet; there is one within a second.")
    return head


def _asked(
    call: Call, params: Mapping[str, Any], name: str = "size"
) -> tuple[Prover, TopicPartition, Head, int]:
    prover = _prover(call)
    for field in ("topic", "partition"):
        if field not in params:
            raise missing(field)
    at = _place(prover, params)
    head = _head(prover, at)
    size = head.size if name not in params else _within(params, name, 1, head.size)
    return prover, at, head, size


def _within(params: Mapping[str, Any], name: str, least: int, most: int) -> int:
    value = params.get(name)
    if not isinstance(value, int) or not least <= value <= most:
        raise Invalid(
            f"'{name}' must be between {least} and {most}: what a signed head covers already."
        )
    return value


async def _records(prover: Prover, at: TopicPartition, begin: int, end: int) -> list[Record]:
    found: list[Record] = []
    while begin + len(found) < end:
        start = Offset(begin + len(found))
        records = await asyncio.to_thread(prover.log.read, at, start, end - start)
        if not records:
            raise LogUnavailable(f"{at} has nothing at {start}")
        found += records
    return found


def _told(at: TopicPartition, head: Head, size: int, root: bytes) -> dict[str, object]:
    told: dict[str, object] = {
        "topic": at.topic,
        "partition": at.partition,
        "size": size,
        "root": b64encode(root).decode(),
    }
    return told | ({"checkpoint": head.raw.decode()} if size == head.size else {})


def _proof(steps: Sequence[bytes]) -> dict[str, object]:
    return {"proof": [b64encode(step).decode() for step in steps]}


def _damaged(prover: Prover, at: TopicPartition) -> ApiError:
    prover.doubt(at)
    return ApiError("TEMPORARILY_UNAVAILABLE", f"No proof: {DIFFERS.format(at=at)}.")


_LOG = "/log/{topic}/{partition}"

ROUTES = (
    Route("GET", "/log/", P.AUDIT_READ, logs),
    Route("GET", f"{_LOG}/checkpoint", P.AUDIT_READ, checkpoint),
    Route("GET", f"{_LOG}/vkey", P.AUDIT_READ, vkey),
    Route("GET", f"{_LOG}/vkeys", P.AUDIT_READ, vkeys),
    Route("GET", f"{_LOG}/tile/{{path:path}}", P.AUDIT_READ, tile),
    Route("GET", "/api/v1/proof/inclusion", P.AUDIT_READ, inclusion),
    Route("GET", "/api/v1/proof/consistency", P.AUDIT_READ, consistency),
    Route("GET", "/api/v1/proof/range", P.AUDIT_READ, whole_range),
    Route("POST", "/api/v1/proof/rotate", P.SERVER_ADMIN, rotate),
)

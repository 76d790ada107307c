"""Writes events with their proofs as a folder that `verifier.py` verifies; it tells the layout."""

from __future__ import annotations

import shutil
from base64 import b64encode
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import msgspec

from muniment_schemas.ids import Offset
from muniment_services.log.base import EventLog, LogUnavailable, Record, TopicPartition
from muniment_services.proof import merkle, verifier
from muniment_services.proof.forest import Forest

Range = tuple[int, int]
"""[begin, end) of offsets."""

VERIFIER_FILE = "verifier.py"


def write_pack(
    folder: Path,
    log: EventLog,
    forest: Forest,
    ranges: Mapping[TopicPartition, Sequence[Range]],
    earlier: Mapping[TopicPartition, Sequence[int]] | None = None,
) -> None:
    """Write a pack into an empty folder. Blocking.

    ranges: of each tree, disjoint and rising, within its signed head. earlier: sizes that
    consistency is proved from. Raises LookupError for a tree without a head, OSError, LogError.
    """
    for name in ("keys", "heads", "proofs", "events"):
        (folder / name).mkdir(parents=True)
    shutil.copyfile(verifier.__file__, folder / VERIFIER_FILE)
    sets = [
        {"number": added.number, "keys": added.keys, "endorsement": added.endorsement}
        for added in forest.line.key_sets
    ]
    (folder / "keys" / "sets.json").write_bytes(msgspec.json.encode(sets))
    for at, wanted in ranges.items():
        _write_tree(folder, log, forest, at, wanted, (earlier or {}).get(at, ()))


def _write_tree(
    folder: Path,
    log: EventLog,
    forest: Forest,
    at: TopicPartition,
    ranges: Sequence[Range],
    earlier: Sequence[int],
) -> None:
    head, tree = forest.served(at), forest.trees[at]
    if head is None:
        raise LookupError(f"no head of {at} has been signed yet")
    name = f"{at.topic}-{at.partition}"
    (folder / "heads" / name).write_bytes(head.raw)
    proofs = {
        "ranges": [
            {
                "begin": begin,
                "end": end,
                "proof": _texts(merkle.range_proof(begin, end, head.size, tree.node)),
            }
            for begin, end in ranges
        ],
        "consistency": [
            {"old": old, "proof": _texts(merkle.consistency_proof(old, head.size, tree.node))}
            for old in earlier
        ],
    }
    (folder / "proofs" / f"{name}.json").write_bytes(msgspec.json.encode(proofs))
    with (folder / "events" / f"{name}.jsonl").open("wb") as file:
        for begin, end in ranges:
            for record in _records(log, at, begin, end):
                file.write(_line(record))


def _records(log: EventLog, at: TopicPartition, begin: int, end: int) -> Iterable[Record]:
    while begin < end:
        records = log.read(at, Offset(begin), end - begin)
        if not records:
            raise LogUnavailable(f"{at} has nothing at {begin}")
        yield from records
        begin += len(records)


def _line(record: Record) -> bytes:
    told = {
        "offset": record.offset,
        "timestamp_ms": record.timestamp_ms,
        "headers": record.headers,
        "key": record.key,
        "value": record.value,
    }
    return msgspec.json.encode(told) + b"\n"


def _texts(proof: Iterable[bytes]) -> list[str]:
    return [b64encode(step).decode() for step in proof]

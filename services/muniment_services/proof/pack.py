"""Evidence packs: events of the log with their proofs, as a zip that `verifier.py` verifies.

`verifier.py` tells the layout and goes along. The manifest, which names every other file with its
SHA-256, is a note that the keys of the log's heads sign. No pack is sealed whose proofs do not lead
to its heads. Written file by file; nothing but the proof of one tree is held in memory.
"""

from __future__ import annotations

import asyncio
from base64 import b64encode
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import IO
from zipfile import ZIP_DEFLATED, ZipFile, ZipInfo

import msgspec

from muniment_schemas.codec import Codec, CodecError
from muniment_schemas.framing import CONFLUENT_HEADER_BYTES, HEADER_BYTES, schema_id
from muniment_schemas.ids import Offset
from muniment_services.log.base import EventLog, LogUnavailable, Record, TopicPartition
from muniment_services.proof import merkle, verifier
from muniment_services.proof.cosigner import Cosigner
from muniment_services.proof.forest import Forest, leaves_of
from muniment_services.proof.line import Head
from muniment_services.proof.prover import DIFFERS, Prover

EVENTS_MAX = 100_000
"""Events of one pack."""

BYTES_MAX = 512 * 1024 * 1024
"""Of all files of a pack, before they are compressed."""

HEADS_S_MAX = 15.0
"""A pack waits at most so long for heads that cover its events; there is one within a second."""

COSIGNED_S_MAX = 5.0
"""Where there are witnesses, it waits so long for cosigned ones before others have to do."""

HEADS_LOOK_S = 0.1
STEPS_AT_ONCE = 32
"""Hashes of a proof that are made before other tasks get a turn: a few milliseconds."""

GAP_MAX = 200
"""So many records that nobody wants are read over rather than asked around."""

WITHHELD = frozenset({"CredentialIssued", "SessionRenewed"})
"""Types of events whose values stay here: they hold what tokens and sessions are checked by."""

NAME = "pack"
"""What follows a log's origin in the name that manifests are signed under."""

_MODE = 0o644 << 16


class PackTooLarge(Exception):
    """More is asked for than one pack holds; the message says what to do."""


class TreeDiffers(LogUnavailable):
    """A tree is not that of the log."""

    def __init__(self, at: TopicPartition) -> None:
        super().__init__(DIFFERS.format(at=at))
        self.at = at


class HeadsLate(Exception):
    """No signed heads cover the events yet, which should not take so long."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a pack has of the log.

    offsets: of each tree, rising, below its head. earlier: sizes of heads of it that somebody kept,
    from which the pack has to lead on; 0 < size <= that of its head.
    """

    offsets: Mapping[TopicPartition, Sequence[int]]
    earlier: Mapping[TopicPartition, Sequence[int]] = field(default_factory=dict)


class Pack:
    """A pack that is being written, into a file that can be sought in. Blocks."""

    def __init__(self, file: IO[bytes]) -> None:
        self._zip = ZipFile(file, "w")
        self._digests: dict[str, str] = {}
        self._bytes = 0

    @contextmanager
    def file(self, name: str) -> Iterator[Callable[[bytes], None]]:
        """Add a file, by calls of what this yields. Raises PackTooLarge, OSError."""
        digest = sha256()
        told = ZipInfo(name)
        told.compress_type, told.external_attr = ZIP_DEFLATED, _MODE
        with self._zip.open(told, "w", force_zip64=True) as out:

            def write(chunk: bytes) -> None:
                self._bytes += len(chunk)
                if self._bytes > BYTES_MAX:
                    raise PackTooLarge(
                        f"The events have more than {BYTES_MAX // 1024**2} MiB, which is what one "
                        "pack holds. Ask for fewer: narrow the time."
                    )
                digest.update(chunk)
                out.write(chunk)

            yield write
        self._digests[name] = digest.hexdigest()

    def add(self, name: str, content: bytes) -> None:
        """Add a file. Raises PackTooLarge, OSError."""
        with self.file(name) as write:
            write(content)

    @property
    def manifest(self) -> str:
        """A line for each file so far: SHA-256 in hex, two spaces, name."""
        return "".join(f"{digest}  {name}\n" for name, digest in sorted(self._digests.items()))

    def seal(self, note: bytes) -> None:
        """Add the signed manifest, and end the file."""
        self.add("manifest", note)
        self.close()

    def close(self) -> None:
        """Write nothing more. Idempotent."""
        self._zip.close()


async def covering(
    prover: Prover, ends: Mapping[TopicPartition, int], cosigner: Cosigner | None = None
) -> Mapping[TopicPartition, Head]:
    """Signed heads that cover so many records of some trees; with witnesses, cosigned ones if there
    are any within COSIGNED_S_MAX. Raises HeadsLate.
    """
    heads: dict[TopicPartition, Head] = {}
    if cosigner is not None:
        with suppress(TimeoutError):
            async with asyncio.timeout(COSIGNED_S_MAX):
                await _await_heads(cosigner.cosigned, ends, heads)
    missing = {at: end for at, end in ends.items() if at not in heads}
    try:
        async with asyncio.timeout(HEADS_S_MAX):
            await _await_heads(prover.forest.served, missing, heads)
        return heads
    except TimeoutError:
        raise HeadsLate(
            f"No signed head covers {sorted(ends.keys() - heads.keys())[0]} up to here after "
            f"{HEADS_S_MAX:g} s: {prover.problem or 'try again'}"
        ) from None


async def _await_heads(
    source: Callable[[TopicPartition], Head | None],
    ends: Mapping[TopicPartition, int],
    heads: dict[TopicPartition, Head],
) -> None:
    """Put into `heads` what a source has of all trees, as soon as it covers so many records."""
    while True:
        for at, end in ends.items():
            head = source(at)
            if at not in heads and head is not None and head.size >= end:
                heads[at] = head
        if ends.keys() <= heads.keys():
            return
        await asyncio.sleep(HEADS_LOOK_S)


async def fill(
    pack: Pack, prover: Prover, heads: Mapping[TopicPartition, Head], wanted: Wanted
) -> str:
    """Add events and proofs under heads, and seal the pack. Returns its manifest's SHA-256 in hex.

    Raises PackTooLarge, NotSigned, LogError, OSError; TreeDiffers when a tree is not that of the
    log, and then nothing is signed any more.
    """
    if sum(map(len, wanted.offsets.values())) > EVENTS_MAX:
        raise PackTooLarge(
            f"These are more than {EVENTS_MAX:,} events, which is what one pack holds. Ask for "
            "fewer: narrow the time."
        )
    assert wanted.offsets.keys() <= heads.keys(), "events of trees that have no head here"
    schemas = _Schemas(prover.codec)
    for at, head in heads.items():
        offsets = wanted.offsets.get(at, ())
        proof = await _proof(prover.forest, at, head, offsets)
        proofs = {
            "ranges": list(runs(offsets)),
            "proof": _texts(proof),
            "consistency": _consistency(prover.forest, at, head, wanted.earlier.get(at, ())),
        }
        told = msgspec.json.encode(proofs)
        whole = (pack, prover.log, schemas, head, offsets, proof, told)
        try:
            await asyncio.to_thread(_write_tree, *whole)
        except TreeDiffers:
            prover.doubt(at)
            raise
    await asyncio.to_thread(_write_rest, pack, prover.forest, schemas)
    note = await prover.seal(NAME, pack.manifest)
    await asyncio.to_thread(pack.seal, note)
    return sha256(note).hexdigest()


def runs(offsets: Iterable[int], gap_max: int = 0) -> Iterator[tuple[int, int]]:
    """The ranges [begin, end) that rising offsets fill, or leave no more than gap_max open in."""
    begin = end = -1
    for offset in offsets:
        if begin < 0 or offset - end > gap_max:
            if begin >= 0:
                yield begin, end
            begin = offset
        end = offset + 1
    if begin >= 0:
        yield begin, end


async def _proof(
    forest: Forest, at: TopicPartition, head: Head, offsets: Sequence[int]
) -> list[bytes]:
    # On the loop, since a tree is for one thread; in slices, since it may take seconds.
    steps: list[bytes] = []
    for step in merkle.beside(offsets, head.size, forest.trees[at].node):
        steps.append(step)
        if len(steps) % STEPS_AT_ONCE == 0:
            await asyncio.sleep(0)
    return steps


def _consistency(
    forest: Forest, at: TopicPartition, head: Head, earlier: Iterable[int]
) -> list[dict[str, object]]:
    node = forest.trees[at].node
    return [
        {
            "old": old,
            "peaks": _texts(merkle.peaks(old, node)),
            "proof": _texts(merkle.beside(range(old), head.size, node)),
        }
        for old in sorted(set(earlier))
    ]


class _Schemas:
    """The schemas that some values are written with, by the bytes that values begin with."""

    def __init__(self, codec: Codec) -> None:
        self._codec = codec
        self.files: dict[str, bytes] = {}
        self.by_head: dict[str, str] = {}

    def note(self, value: bytes) -> None:
        """Have the schema of a value, if this release knows it."""
        size = HEADER_BYTES if schema_id(value) is None else CONFLUENT_HEADER_BYTES
        head = value[:size].hex()
        if head in self.by_head:
            return
        try:
            subject = self._codec.subject_of(value)
        except CodecError:
            return  # The record stands in the quarantine; the pack shows it as it is.
        self.by_head[head] = subject.file_name
        self.files[subject.file_name] = msgspec.json.format(
            msgspec.json.encode(subject.raw), indent=2
        )


def _write_tree(
    pack: Pack,
    log: EventLog,
    schemas: _Schemas,
    head: Head,
    offsets: Sequence[int],
    proof: Sequence[bytes],
    proofs: bytes,
) -> None:
    name = f"{head.at.topic}-{head.at.partition}"
    pack.add(f"heads/{name}", head.raw)
    pack.add(f"proofs/{name}.json", proofs)
    leaves: dict[tuple[int, int], bytes] = {}
    with pack.file(f"events/{name}.jsonl") as write:
        for record in _records(log, head.at, offsets):
            write(_line(record, schemas))
            (leaves[record.offset, record.offset + 1],) = leaves_of((record,))
    if not _leads(leaves, head, proof):
        raise TreeDiffers(head.at)


def _leads(leaves: verifier.Nodes, head: Head, proof: Sequence[bytes]) -> bool:
    try:
        return verifier.root_beside(leaves, head.size, proof) == head.root
    except verifier.FAULTS:  # The proof is too short or too long.
        return False


def _write_rest(pack: Pack, forest: Forest, schemas: _Schemas) -> None:
    sets = [
        {"number": added.number, "keys": added.keys, "endorsement": added.endorsement}
        for added in forest.line.key_sets
    ]
    pack.add("keys/sets.json", msgspec.json.encode(sets))
    for name, content in schemas.files.items():
        pack.add(f"schemas/{name}", content)
    pack.add("schemas/index.json", msgspec.json.encode(schemas.by_head))
    pack.add("verifier.py", Path(verifier.__file__).read_bytes())


def _records(log: EventLog, at: TopicPartition, offsets: Sequence[int]) -> Iterator[Record]:
    wanted = set(offsets)
    for begin, end in runs(offsets, GAP_MAX):
        while begin < end:
            records = log.read(at, Offset(begin), end - begin)
            if not records:
                raise LogUnavailable(f"{at} has nothing at {begin}")
            yield from (record for record in records if record.offset in wanted)
            begin = records[-1].offset + 1


def _line(record: Record, schemas: _Schemas) -> bytes:
    told = {
        "offset": record.offset,
        "timestamp_ms": record.timestamp_ms,
        "headers": record.headers,
        "key": record.key,
        "value": record.value,
    }
    if dict(record.headers).get("ce_type", b"").decode("latin-1") in WITHHELD:
        told |= {"value": None, "value_sha256": sha256(record.value).hexdigest()}
    else:
        schemas.note(record.value)
    return msgspec.json.encode(told) + b"\n"


def _texts(proof: Iterable[bytes]) -> list[str]:
    return [b64encode(step).decode() for step in proof]

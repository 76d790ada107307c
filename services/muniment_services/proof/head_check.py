"""Is the log what its signed heads say? The part of `muniment verify` that trusts no cache.

Every head that was ever signed is compared with the root of the log's own records at its size, and
so is every earlier head that somebody kept and brings along.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from contextlib import suppress

from muniment_schemas.codec import Codec, CodecError
from muniment_schemas.ids import Offset
from muniment_services.log.base import EventLog, LogError, Record, TopicPartition
from muniment_services.proof import checkpoint, note
from muniment_services.proof.checkpoint import CheckpointInvalid
from muniment_services.proof.forest import HEADS_AT, leaves_of
from muniment_services.proof.line import Head, HeadRefused, Line
from muniment_services.proof.merkle import Peaks
from muniment_services.proof.note import NoteInvalid, VerifierKey
from muniment_services.rebuild import Ends


class KeptHeadInvalid(Exception):
    """What was brought along is no signed head."""


def kept_head(raw: bytes) -> Head:
    """An earlier head, from its note. Its signature is checked later. Raises KeptHeadInvalid."""
    try:
        found = checkpoint.parse(note.parse(raw).text)
    except (NoteInvalid, CheckpointInvalid) as error:
        raise KeptHeadInvalid(f"it is not a signed head: {error}") from None
    _, topic, partition = f"//{found.origin}".rsplit("/", 2)
    if not partition.isdecimal():
        raise KeptHeadInvalid(f"its origin {found.origin} ends with no topic and partition")
    at = TopicPartition(topic, int(partition))
    return Head(at, found.origin, found.size, found.root, raw)


def signature_problem(head: Head, keys: Iterable[VerifierKey]) -> str | None:
    """What is wrong with a head's signature; None: one of the keys signed it."""
    try:
        note.opened(head.raw, keys)
    except NoteInvalid as error:
        return f"the head at {head.size}: {error}"
    return None


class Heads:
    """Heads of one tree, compared with its root while it is made of its leaves."""

    def __init__(self, heads: Iterable[Head]) -> None:
        self._waiting: dict[int, list[Head]] = defaultdict(list)
        for head in heads:
            self._waiting[head.size].append(head)
        self._peaks = Peaks()
        self._holds_at = 0
        self.wrong: list[str] = []
        self.compared = 0
        self._compare()

    @property
    def size(self) -> int:
        """Leaves so far."""
        return self._peaks.size

    def root(self) -> bytes:
        """The root over them."""
        return self._peaks.root()

    def append(self, leaf: bytes) -> None:
        """Add a leaf by its hash."""
        self._peaks.append(leaf)
        if self._peaks.size in self._waiting:
            self._compare()

    def _compare(self) -> None:
        size, root = self._peaks.size, self._peaks.root()
        for head in self._waiting.pop(size, []):
            self.compared += 1
            if head.root == root:
                self._holds_at = size
            elif not self.wrong:  # All later heads will not be of these records either.
                self.wrong.append(
                    f"the head that was signed at {size} is not of these records; the one at "
                    f"{self._holds_at} is. What was changed, removed or inserted is between"
                )

    def missing(self) -> list[str]:
        """What is wrong once all leaves are there: heads that cover more than there is."""
        if not self._waiting:
            return []
        return [f"a head was signed at {max(self._waiting)}, but there are {self.size} records"]


class HeadCheck:
    """All heads of a log, beside a pass over its records."""

    def __init__(self, log: EventLog, codec: Codec, kept: Sequence[Head] = ()) -> None:
        """kept: earlier heads that the log must extend."""
        self._log = log
        self._codec = codec
        self._kept = kept
        self.line = Line()
        self.heads: dict[TopicPartition, Heads] = {}

    def read_line(self, ends: Ends) -> Iterable[tuple[object, str]]:
        """Read the checkpoints topic up to `ends`; yields what is wrong there, with its place."""
        found: dict[TopicPartition, list[Head]] = defaultdict(list)
        start, end = Offset(0), ends[HEADS_AT]
        with suppress(LogError):  # What cannot be read is told by the pass over all records.
            while start < end and (records := self._log.read(HEADS_AT, start, end - start)):
                for record in records:
                    try:
                        for head in self.line.take(self._codec.decode(record.value)):
                            found[head.at].append(head)
                    except HeadRefused as error:
                        yield f"{HEADS_AT}@{record.offset}", str(error)
                    except CodecError:
                        continue  # This too.
                start = Offset(records[-1].offset + 1)
        for head in self._kept:
            if problem := signature_problem(head, self.line.keys_of(head.origin)):
                yield head.at, problem
            found[head.at].append(head)
        self.heads = {at: Heads(found[at]) for at in ends}
        for at in found.keys() - ends.keys():
            yield at, "there is a head of it, but no such topic-partition"

    def take(self, record: Record) -> None:
        """The next record of its topic-partition."""
        (leaf,) = leaves_of((record,))
        self.heads[record.at].append(leaf)

    def findings(self) -> Iterable[tuple[TopicPartition, str]]:
        """What is wrong, after the last record."""
        for at, heads in self.heads.items():
            for what in (*heads.wrong, *heads.missing()):
                yield at, what

    @property
    def compared(self) -> int:
        """Heads that were compared with the log's records."""
        return sum(heads.compared for heads in self.heads.values())

"""The line of heads: what the checkpoints topic says of keys and heads, read in order.

What always holds: a set of keys counts when it is the next one and is endorsed by the one before
it; a head counts when a key that counts signed it and no other was signed at its size before. Only
who has the trees can tell whether a head is of the log: `Prover` and `muniment verify` compare.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from muniment_schemas.envelope import Event
from muniment_schemas.events import HeadsSigned, PublicKey, SignedHead, SigningKeyAdded
from muniment_services.log.base import TopicPartition
from muniment_services.proof import checkpoint, note, signing
from muniment_services.proof.checkpoint import CheckpointInvalid
from muniment_services.proof.note import Kind, NoteInvalid, VerifierKey


class HeadRefused(Exception):
    """A head or a set of keys is not what it has to be. at: whose head; None: it is about keys."""

    def __init__(self, at: TopicPartition | None, what: str) -> None:
        super().__init__(what if at is None else f"the head of {at}: {what}")
        self.at = at


@dataclass(frozen=True, slots=True)
class Head:
    """A signed head. raw: the note, byte for byte."""

    at: TopicPartition
    origin: str
    size: int
    root: bytes
    raw: bytes


@dataclass(slots=True)
class Line:
    """Keys and newest heads so far. key_sets: by number, from 1."""

    key_sets: list[SigningKeyAdded] = field(default_factory=list)
    newest: dict[TopicPartition, Head] = field(default_factory=dict)

    def keys_of(self, origin: str) -> Sequence[VerifierKey]:
        """All keys that may have signed heads of an origin, the oldest first."""
        return [
            VerifierKey(origin, Kind(key.kind), key.public_key)
            for added in self.key_sets
            for key in added.keys
        ]

    def signs(self, keys: Sequence[PublicKey]) -> bool:
        """Whether a set is the newest one, which new heads are signed by."""
        return bool(self.key_sets) and self.key_sets[-1].keys[0] == keys[0]

    def is_by_newest(self, head: Head) -> bool:
        """Whether the newest set of keys signed a head."""
        newest = self.key_sets[-1].keys if self.key_sets else ()
        keys = [VerifierKey(head.origin, Kind(key.kind), key.public_key) for key in newest]
        return bool(note.signers_of(note.parse(head.raw), keys))

    def take(self, event: Event) -> Iterator[Head]:
        """Take the next event of the topic; yields its heads. Raises HeadRefused."""
        if isinstance(event, SigningKeyAdded):
            self._add_keys(event)
        elif isinstance(event, HeadsSigned):
            for signed in event.heads:
                yield self._head(signed)

    def _add_keys(self, event: SigningKeyAdded) -> None:
        if event.number <= len(self.key_sets):
            return  # Two replicas made the same step; the first of them counts.
        try:
            self._verify_keys(event)
        except (NoteInvalid, IndexError, ValueError) as error:
            raise HeadRefused(None, f"set {event.number} of signing keys: {error}") from None
        self.key_sets.append(event)

    def _verify_keys(self, event: SigningKeyAdded) -> None:
        if event.number != len(self.key_sets) + 1:
            raise NoteInvalid(f"it follows set {len(self.key_sets)}")
        own, before = event.keys[0], self.key_sets[-1].keys[0] if self.key_sets else None
        previous = None if before is None else before.public_key
        found = note.parse(event.endorsement.encode())
        origin = found.text.partition("\n")[0]
        if found.text != signing.endorsement_text(origin, event.number, own.public_key, previous):
            raise NoteInvalid("its endorsement is of another")
        needed = [own.public_key, *([] if previous is None else [previous])]
        keys = [VerifierKey(origin, Kind.ED25519, public_key) for public_key in needed]
        if len(note.signers_of(found, keys)) != len(keys):
            raise NoteInvalid("the keys before it did not endorse it")

    def _head(self, signed: SignedHead) -> Head:
        at = TopicPartition(signed.topic, signed.partition)
        raw = signed.checkpoint.encode()
        try:
            head = checkpoint.parse(note.parse(raw).text)
            note.opened(raw, self.keys_of(head.origin))
        except (NoteInvalid, CheckpointInvalid) as error:
            raise HeadRefused(at, str(error)) from None
        if not head.origin.endswith(f"/{at}") or head.size != signed.size:
            raise HeadRefused(at, f"it is signed for {head.origin} at {head.size}")
        found = Head(at, head.origin, head.size, head.root, raw)
        before = self.newest.get(at)
        if before is not None and before.size == found.size and before.root != found.root:
            raise HeadRefused(at, f"two different ones are signed at {found.size}")
        if before is None or found.size >= before.size:
            self.newest[at] = found
        return found

"""A witness: it cosigns a head of a log if that extends the last one which it cosigned.

So nobody shows one log to some and another to others without this witness noticing, whoever has
the log's keys. All that it keeps is the last head of each tree, in one file.

    POST /add-checkpoint               200 cosignature, 400, 403, 404, 409 with the size, 422
    GET  /SHA-256-OF-ORIGIN/checkpoint the last head that was cosigned

What always holds: the file has a head, fsynced, before its cosignature is answered; comparing with
the last head and replacing it are one step.
Source: C2SP tlog-witness, tlog-cosignature (2026-07).
"""

from __future__ import annotations

import os
import re
import threading
from base64 import b64decode, b64encode
from binascii import Error as Base64Error
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import msgspec

from muniment_services.proof import checkpoint, merkle, note
from muniment_services.proof.checkpoint import Checkpoint, CheckpointInvalid
from muniment_services.proof.merkle import EMPTY_ROOT, HASH_BYTES, ProofInvalid
from muniment_services.proof.note import Kind, Note, NoteInvalid, SigningKey, VerifierKey

SUBMISSION_BYTES_MAX = 64 * 1024
PROOF_LINES_MAX = 63
SIZE_TYPE = "text/x.tlog.size"
TEXT = "text/plain; charset=utf-8"

_OLD = re.compile(r"old (0|[1-9]\d{0,18})", re.ASCII)
_TREE = re.compile(r"(.+)/[^/]+/\d+", re.ASCII)


class SubmissionInvalid(Exception):
    """A request to a witness is none."""


@dataclass(frozen=True, slots=True)
class Submission:
    """A head that a witness is asked to cosign. old: the size that `proof` begins at."""

    old: int
    proof: Sequence[bytes]
    raw: bytes

    def encode(self) -> bytes:
        """The body of the request."""
        lines = "".join(f"{b64encode(step).decode()}\n" for step in self.proof)
        return f"old {self.old}\n{lines}\n".encode() + self.raw


def parse_submission(body: bytes) -> Submission:
    """The body of a request. Raises SubmissionInvalid."""
    head, found, raw = body.partition(b"\n\n")
    try:
        first, *lines = head.decode("ascii").split("\n")
        proof = [b64decode(line, validate=True) for line in lines]
    except (UnicodeDecodeError, Base64Error):
        raise SubmissionInvalid("its proof is not base64") from None
    old = _OLD.fullmatch(first)
    canonical = all(
        b64encode(step).decode() == line for step, line in zip(proof, lines, strict=True)
    )
    if not found or old is None or not canonical or len(proof) > PROOF_LINES_MAX:
        raise SubmissionInvalid("it is not an old size, a proof, an empty line and a checkpoint")
    if any(len(step) != HASH_BYTES for step in proof):
        raise SubmissionInvalid("its proof is not of hashes")
    return Submission(int(old[1]), proof, raw)


class _Seen(msgspec.Struct, frozen=True):
    """The last head of one tree that was cosigned. note: with the log's signatures and ours."""

    size: int
    root: bytes
    note: bytes


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer of HTTP."""

    status: int
    body: bytes
    content_type: str = TEXT


class Witness:
    """One witness. Any thread may call it."""

    def __init__(
        self,
        name: str,
        key: SigningKey,
        logs: Iterable[VerifierKey],
        state: Path,
        now_s: Callable[[], int],
    ) -> None:
        """key: Ed25519. logs: keys of trees' heads; a key of one tree of a log stands for all of
        its trees, whose origins are LOG/TOPIC/PARTITION. state: the file; nobody else writes it.

        Raises OSError, msgspec.DecodeError when there is a file that is none of ours.
        """
        self.key = VerifierKey(name, Kind.COSIGNATURE, key.public_key)
        self._signing = key
        self._logs = tuple(logs)
        self._state = state
        self._now_s = now_s
        self._lock = threading.Lock()
        self._seen: dict[str, _Seen] = {}
        if state.exists():
            self._seen = msgspec.json.decode(state.read_bytes(), type=dict[str, _Seen])

    def add(self, body: bytes) -> Reply:
        """POST add-checkpoint. Raises OSError: nothing is cosigned then."""
        try:
            asked = parse_submission(body)
            found = note.parse(asked.raw)
            head = checkpoint.parse(found.text)
        except (SubmissionInvalid, NoteInvalid, CheckpointInvalid) as error:
            return _refused(400, str(error))
        keys = self._keys_of(head.origin)
        if not keys:
            return _refused(404, "this log is not known here")
        try:
            signers = note.signers_of(found, keys)
        except NoteInvalid as error:
            return _refused(403, str(error))
        if not signers:
            return _refused(403, "no key of this log that is known here signed it")
        if asked.old > head.size:
            return _refused(400, "the old size is more than that of the checkpoint")
        ids = {key.key_id for key in signers}
        kept = tuple(s for s in found.signatures if s.name == head.origin and s.key_id in ids)
        with self._lock:
            return self._cosign(asked, head, Note(found.text, kept))

    def checkpoint(self, origin_sha256: str) -> Reply:
        """GET SHA-256-OF-ORIGIN/checkpoint."""
        for origin, seen in self._seen.copy().items():
            if sha256(origin.encode()).hexdigest() == origin_sha256:
                return Reply(200, seen.note)
        return _refused(404, "nothing of this log was cosigned here")

    def _keys_of(self, origin: str) -> Sequence[VerifierKey]:
        log = _log_of(origin)
        return [
            VerifierKey(origin, key.kind, key.public_key)
            for key in self._logs
            if key.name == origin or (log is not None and _log_of(key.name) == log)
        ]

    def _cosign(self, asked: Submission, head: Checkpoint, found: Note) -> Reply:
        seen = self._seen.get(head.origin)
        size = 0 if seen is None else seen.size
        if asked.old != size:
            return Reply(409, f"{size}\n".encode(), SIZE_TYPE)
        before = EMPTY_ROOT if seen is None else seen.root
        try:
            _verify(asked, head, before)
        except ProofInvalid as error:
            return _refused(422, str(error))
        signature = self.key.sign(self._signing, found.text, self._now_s())
        whole = Note(found.text, (*found.signatures, signature)).encode()
        self._keep(head.origin, _Seen(head.size, head.root, whole))
        return Reply(200, signature.line.encode())

    def _keep(self, origin: str, seen: _Seen) -> None:
        now = self._seen | {origin: seen}
        unfinished = self._state.with_suffix(".new")
        with unfinished.open("wb") as file:
            file.write(msgspec.json.encode(now))
            file.flush()
            os.fsync(file.fileno())
        os.replace(unfinished, self._state)
        folder = os.open(self._state.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
        self._seen = now


def _log_of(origin: str) -> str | None:
    """The log that a tree is of, by its origin; None for an origin of another form."""
    found = _TREE.fullmatch(origin)
    return None if found is None else found[1]


def _verify(asked: Submission, head: Checkpoint, before: bytes) -> None:
    if head.size == 0 and head.root != EMPTY_ROOT:
        raise ProofInvalid("an empty tree has another root")
    if asked.old == 0:
        if asked.proof:
            raise ProofInvalid("nothing is to be proved from the empty tree on")
        return
    merkle.verify_consistency(asked.old, head.size, asked.proof, before, head.root)


def _refused(status: int, what: str) -> Reply:
    return Reply(status, f"{what}\n".encode())

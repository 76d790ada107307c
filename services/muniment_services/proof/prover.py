"""The server's part in proof: it follows the log, lets the trees grow, and signs their heads.

Two tasks. One follows all topics and compares each head in the checkpoints topic with the tree. The
other signs: when a tree has grown, and nobody has signed for HEAD_S, the heads of all that have
grown go into the checkpoints topic as one event. Replicas share that topic, so they share one line
of heads, and whoever comes first signs.

What always holds: a head is signed of records that are durable, and only by who has read the whole
line before it and found every head of it in its trees. Who finds one that is not stops signing and
says so (`failure`); only a person can tell what is true then.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from itertools import groupby
from operator import attrgetter
from pathlib import Path

import structlog

from muniment_auth.identity import KeysUnavailable
from muniment_schemas.codec import Codec, CodecError
from muniment_schemas.envelope import WORKSPACE_DEFAULT, Actor, Event
from muniment_schemas.events import HeadsSigned, SignedHead, SigningKeyAdded
from muniment_services.domain.commands import Context
from muniment_services.log.base import EventLog, LogError, Record, TopicPartition
from muniment_services.proof import signing
from muniment_services.proof.checkpoint import Checkpoint
from muniment_services.proof.forest import HEADS_AT, Forest, HeadContradicted, leaves_of
from muniment_services.proof.line import HeadRefused
from muniment_services.proof.note import Note, Signature, VerifierKey
from muniment_services.proof.signing import Keyring, Keys
from muniment_services.write import record_of

HEAD_S = 0.6
"""Heads are signed at most so often, by all replicas together: at least one each second under load,
with room for what following and appending take."""

LOOK_S = 0.1
"""How often we look whether there is something to sign."""

SAVE_S = 10.0
"""How often the line is kept in its file, so that a start need not read the whole topic."""

FOLLOW_PAUSE_S = 0.1
"""Between batches, unless they are large: a batch for each record costs more than the record."""

BATCH_LARGE = 2_000
SLICE_RECORDS = 128
"""Records that are hashed before other tasks get a turn: about a millisecond."""

THREAD_BYTES = 1024 * 1024
"""Slices above this are hashed in a thread."""

DIFFERS = (
    "the tree of {at} is not that of the log: the log was changed, or its tree, which is a cache, "
    "is damaged. Before anything else run `muniment verify` with a head that you kept; if the log "
    "is whole, stop the server, remove the folder proof in its data folder, and start it again"
)

_log = structlog.get_logger("muniment.proof")


class Prover:
    """Trees and heads of one log. Lives on one event loop."""

    def __init__(
        self,
        log: EventLog,
        codec: Codec,
        keyring: Keyring,
        folder: Path,
        origin: str,
        actor: Actor,
        now_ms: Callable[[], int],
        random: Callable[[int], bytes],
    ) -> None:
        """folder: of the cache. origin: what the origins of the trees begin with."""
        places = [TopicPartition(t, p) for t, count in log.partitions.items() for p in range(count)]
        self.forest = Forest(folder / log.log_id, places)
        self.log = log
        self.failure: str | None = None
        """Why no head is signed any more."""
        self.trouble: str | None = None
        """Why the last try to sign did not succeed; it is tried again."""
        self.codec = codec
        self._keyring = keyring
        self._keys: Keys | None = None
        self.origin = origin
        self._actor = actor
        self._now_ms = now_ms
        self._random = random
        self._line_moved_s = 0.0
        self._is_replanted = False
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Follow and sign in the background."""
        self._tasks = [asyncio.create_task(self._follow()), asyncio.create_task(self._sign())]

    async def close(self) -> None:
        """Sign nothing more and keep what is known. Idempotent."""
        for task in self._tasks:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
        if self._tasks:
            self._tasks = []
            with suppress(OSError):  # It is a cache; the next start reads more of the log.
                self.forest.save()
            self.forest.close()

    @property
    def problem(self) -> str | None:
        """What is wrong, for people."""
        return self.failure or self.trouble

    def origin_of(self, at: TopicPartition) -> str:
        """The origin line of a tree's checkpoints."""
        return f"{self.origin}/{at}"

    def verifier_keys(self, at: TopicPartition) -> Sequence[VerifierKey]:
        """What verifies a tree's heads, the oldest key first; empty before the first head."""
        return self.forest.line.keys_of(self.origin_of(at))

    async def rotate(self) -> int:
        """Bring a new set of keys into use; returns its number.

        Raises NotRotated, KeysUnavailable, LogError.
        """
        number = len(self.forest.line.key_sets) + 1
        if self.failure is not None or number == 1:
            raise signing.NotRotated(self.failure or "There is no key yet that could be followed.")
        keys = await asyncio.to_thread(self._keyring.add, number)
        await self._announce(number, keys)
        return number

    async def seal(self, name: str, lines: str) -> bytes:
        """A note of the log's, under its origin and a name, signed by the Ed25519 key in use.

        Raises NotSigned, KeysUnavailable.
        """
        if self.failure is not None or self._keys is None:
            raise signing.NotSigned(self.problem or "No key is in use yet; try again in a second.")
        origin = f"{self.origin}/{name}"
        return await asyncio.to_thread(signing.seal, origin, lines, self._keys[0])

    def doubt(self, at: TopicPartition) -> None:
        """Sign nothing more, since a tree has turned out not to be that of the log."""
        self._stop(DIFFERS.format(at=at))

    def _stop(self, reason: str) -> None:
        if self.failure is None:
            self.failure = reason
            _log.critical("no head is signed any more", reason=reason)

    async def _follow(self) -> None:
        try:
            while True:
                try:
                    await self._read_line()
                    await self._grow()
                    return
                except HeadContradicted as error:
                    # The cache is to blame more often than the log: it is made anew, once.
                    if self._is_replanted:
                        raise
                    self._is_replanted = True
                    _log.error("the trees are made anew from the log", reason=str(error))
                    self.forest.replant()
        except (HeadRefused, HeadContradicted) as error:
            self._stop(
                f"{error}. Somebody has changed the log, or signed heads of another: run "
                "`muniment verify` with an earlier head before anything else"
            )
        except (LogError, OSError) as error:
            self._stop(f"the trees cannot follow the log: {error}")

    async def _read_line(self) -> None:
        """What the checkpoints topic says before the place from which its tree goes on."""
        end = self.forest.starts[HEADS_AT]
        while self.forest.next_offset < end:
            start = self.forest.next_offset
            records = await asyncio.to_thread(self.log.read, HEADS_AT, start, end - start)
            for record in records:
                self._take(record)

    def _take(self, record: Record) -> None:
        try:
            event = self.codec.decode(record.value)
        except CodecError as error:
            _log.warning("a record of the checkpoints topic is passed over", reason=str(error))
            self.forest.take(record, ())
            return
        self.forest.take(record, self.forest.line.take(event))
        self._line_moved_s = time.monotonic()

    async def _grow(self) -> None:
        async for records in self.log.follow(self.forest.starts):
            for at, slice_ in _slices(records):
                heavy = sum(len(record.value) for record in slice_) > THREAD_BYTES
                leaves = await asyncio.to_thread(leaves_of, slice_) if heavy else leaves_of(slice_)
                self.forest.append(at, leaves)
                if at == HEADS_AT:
                    for record in slice_:
                        self._take(record)
                await asyncio.sleep(0)
            if len(records) < BATCH_LARGE:
                await asyncio.sleep(FOLLOW_PAUSE_S)

    async def _sign(self) -> None:
        saved_s = time.monotonic()
        while self.failure is None:
            await asyncio.sleep(LOOK_S)
            try:
                await self._look()
            except HeadContradicted as error:
                self._stop(f"{error}: the log has lost events. Restore what is missing")
            except (LogError, KeysUnavailable, OSError) as error:
                trouble = f"heads cannot be signed now: {error}"
                if trouble != self.trouble:  # Said once, though it is tried again each second.
                    _log.error("heads cannot be signed now", reason=str(error))
                self.trouble = trouble
            if time.monotonic() - saved_s > SAVE_S:
                saved_s = time.monotonic()
                with suppress(OSError):
                    self.forest.save()

    async def _look(self) -> None:
        """Sign what has grown, if it is time, the line is read to its end, and the keys are here.

        Trouble is over when a look has found nothing in the way of a head, not when none was due.
        """
        if time.monotonic() - self._line_moved_s < HEAD_S:
            return
        if self._keys is None or self.forest.due():
            ends = await self.log.end_offsets()
            self.forest.refuse_loss(ends.items())
            if self.forest.trees[HEADS_AT].size < ends[HEADS_AT] or self.failure is not None:
                return
            if not await self._has_key():
                return
            await self._sign_due()
        self.trouble = None

    async def _has_key(self) -> bool:
        """Whether the line's newest keys are ours; announces a set that is not in it yet."""
        line = self.forest.line
        if self._keys is not None and line.signs(signing.public_keys(self._keys)):
            return True
        self._keys = None
        number = len(line.key_sets)
        if number == 0:
            await self._announce(1, await asyncio.to_thread(self._keyring.add, 1))
            return False
        found = await asyncio.to_thread(self._keyring.find, number)
        if found is None or not line.signs(signing.public_keys(found)):
            raise KeysUnavailable(
                f"set {number} of the log's signing keys is not here. All replicas need the same "
                "keys: name one place for all by the setting keys, or give all of signing_keys"
            )
        following = await asyncio.to_thread(self._keyring.find, number + 1)
        if following is not None:
            await self._announce(number + 1, following)
            return False
        self._keys = found
        return True

    async def _announce(self, number: int, keys: Keys) -> None:
        before = await asyncio.to_thread(self._keyring.find, number - 1) if number > 1 else None
        origin = f"{self.origin}/keys"
        endorsement = await asyncio.to_thread(signing.endorse, origin, number, keys, before)
        await self._append(
            SigningKeyAdded(
                envelope=self._context().envelope(SigningKeyAdded, self.log.log_id),
                number=number,
                keys=signing.public_keys(keys),
                endorsement=endorsement,
            )
        )

    async def _sign_due(self) -> None:
        due = self.forest.due()
        if not due:
            return
        heads = [(at, self.forest.trees[at].size) for at in due]
        texts = [
            Checkpoint(self.origin_of(at), size, self.forest.trees[at].root(size)).text
            for at, size in heads
        ]
        assert self._keys is not None
        notes: Sequence[Note] = await asyncio.to_thread(
            _signed, self._keys, texts, self._now_ms() // 1000
        )
        await self._append(
            HeadsSigned(
                envelope=self._context().envelope(HeadsSigned, self.log.log_id),
                heads=tuple(
                    SignedHead(
                        topic=at.topic,
                        partition=at.partition,
                        size=size,
                        checkpoint=note.encode().decode(),
                    )
                    for (at, size), note in zip(heads, notes, strict=True)
                ),
            )
        )

    async def _append(self, event: Event) -> None:
        await self.log.append(record_of(event, self.codec, self.log))

    def _context(self) -> Context:
        return Context(
            now_ms=self._now_ms(),
            random=self._random,
            actor=self._actor,
            request_id="proof",
            workspace=WORKSPACE_DEFAULT,
        )


def _signed(keys: Keys, texts: Sequence[str], now_s: int) -> list[Note]:
    return [Note(text, tuple(_signatures(keys, text, now_s))) for text in texts]


def _signatures(keys: Keys, text: str, now_s: int) -> Iterator[Signature]:
    origin = text.partition("\n")[0]
    for key in keys:
        yield VerifierKey(origin, key.kind, key.public_key).sign(key, text, now_s)


def _slices(records: Sequence[Record]) -> Iterator[tuple[TopicPartition, Sequence[Record]]]:
    for at, found in groupby(sorted(records, key=attrgetter("at")), key=attrgetter("at")):
        of_one = list(found)
        for begin in range(0, len(of_one), SLICE_RECORDS):
            yield at, of_one[begin : begin + SLICE_RECORDS]

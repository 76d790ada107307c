"""Asks witnesses to cosign heads, and keeps what they answer. Beside signing, never before it.

Witnesses are asked for the same head of a tree, its candidate, until all have cosigned it, or
enough have and the others had their time; then the newest head is the next candidate. A witness
that does not answer, or lies, costs the others nothing. Nothing is kept over a restart: a witness
cosigns the last head once more.
Source: C2SP tlog-witness, "add-checkpoint" (2026-07).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field

import httpx
import structlog

from muniment_services.log.base import TopicPartition
from muniment_services.proof import merkle, note
from muniment_services.proof.forest import Forest
from muniment_services.proof.line import Head
from muniment_services.proof.note import NoteInvalid, Signature
from muniment_services.proof.policy import Policy, WitnessAt
from muniment_services.proof.witness import SIZE_TYPE, Submission

ROUND_S = 1.0
"""How often each witness is asked for what is new."""

ANSWER_S_MAX = 3.0
ANSWER_BYTES_MAX = 64 * 1024

CANDIDATE_S = 5.0
"""A candidate that has not enough cosignatures after this gives way to a newer head."""

BEHIND_S_MAX = 60.0
"""Cosigned heads may be so far behind the newest ones before that is told, and those are served."""

_log = structlog.get_logger("muniment.proof")


class WitnessRefused(Exception):
    """A witness answered, but with no cosignature of the head; the message says what."""


@dataclass(slots=True)
class _Candidate:
    """A head that witnesses are asked for. signatures: by the witness's name in the policy."""

    head: Head
    since_s: float
    signatures: dict[str, Signature] = field(default_factory=dict)

    def cosigned(self) -> Head:
        """The head with all cosignatures so far."""
        lines = "".join(self.signatures[name].line for name in sorted(self.signatures))
        head = self.head
        return Head(head.at, head.origin, head.size, head.root, head.raw + lines.encode())


class Cosigner:
    """Cosignatures of one log's heads. Lives on the event loop of its prover."""

    def __init__(self, forest: Forest, policy: Policy) -> None:
        self.policy = policy
        self.problems: dict[str, str | None] = dict.fromkeys(policy.witnesses)
        """Of each witness, why its last answer was no cosignature; None: it was one."""
        self._forest = forest
        self._candidates: dict[TopicPartition, _Candidate] = {}
        self._cosigned: dict[TopicPartition, tuple[Head, float]] = {}
        self._known: dict[tuple[str, TopicPartition], int] = {}
        self._started_s = time.monotonic()
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Ask in the background."""
        self._started_s = time.monotonic()
        witnesses = self.policy.witnesses.values()
        self._tasks = [asyncio.create_task(self._ask_always(one)) for one in witnesses]

    async def close(self) -> None:
        """Ask no more. Idempotent."""
        for task in self._tasks:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
        self._tasks = []

    def cosigned(self, at: TopicPartition) -> Head | None:
        """The newest head that enough witnesses cosigned, their cosignatures in it, if any."""
        found = self._cosigned.get(at)
        return None if found is None else found[0]

    def shown(self, at: TopicPartition) -> Head | None:
        """The head to serve: that one, or the newest if that is not cosigned for too long."""
        return self._forest.served(at) if self._is_behind(at) else self.cosigned(at)

    @property
    def problem(self) -> str | None:
        """What is wrong, for people: heads that have not enough cosignatures for too long."""
        behind = [at for at in self._forest.trees if self._is_behind(at)]
        told = [at for at in behind if time.monotonic() - self._started_s > BEHIND_S_MAX]
        if not told:
            return None
        why = "; ".join(f"{name}: {why}" for name, why in self.problems.items() if why)
        return f"too few witnesses cosign the heads of {told[0]} ({why or 'no answer yet'})"

    def _is_behind(self, at: TopicPartition) -> bool:
        newest, found = self._forest.served(at), self._cosigned.get(at)
        if newest is None or (found is not None and found[0].size == newest.size):
            return False
        return found is None or time.monotonic() - found[1] > BEHIND_S_MAX

    async def _ask_always(self, witness: WitnessAt) -> None:
        async with httpx.AsyncClient(timeout=ANSWER_S_MAX, trust_env=False) as client:
            while True:
                try:
                    await self._ask(client, witness)
                    self._tell(witness, None)
                except (httpx.HTTPError, httpx.InvalidURL, TimeoutError) as error:
                    self._tell(witness, f"{witness.url} cannot be reached ({type(error).__name__})")
                except (OSError, LookupError) as error:
                    self._tell(witness, f"the log's trees cannot be read now: {error}")
                except WitnessRefused as error:
                    self._tell(witness, str(error))
                await asyncio.sleep(ROUND_S)

    def _tell(self, witness: WitnessAt, problem: str | None) -> None:
        if problem is not None and problem != self.problems[witness.name]:
            _log.warning("a witness does not cosign", witness=witness.name, reason=problem)
        self.problems[witness.name] = problem

    async def _ask(self, client: httpx.AsyncClient, witness: WitnessAt) -> None:
        """Have a witness cosign what it has not yet. Raises WitnessRefused of the last tree that it
        refuses, httpx.HTTPError, TimeoutError."""
        refused: WitnessRefused | None = None
        for at in list(self._forest.trees):
            candidate = self._candidate(at)
            if candidate is None or witness.name in candidate.signatures:
                continue
            try:
                signature = await self._cosignature(client, witness, candidate.head)
            except WitnessRefused as error:
                refused = error
                continue
            candidate.signatures[witness.name] = signature
            before = self.cosigned(at)
            newer = before is None or candidate.head.size >= before.size
            if newer and self.policy.met(candidate.signatures):
                self._cosigned[at] = (candidate.cosigned(), time.monotonic())
        if refused is not None:
            raise refused

    def _candidate(self, at: TopicPartition) -> _Candidate | None:
        newest, current, now_s = self._forest.served(at), self._candidates.get(at), time.monotonic()
        if newest is None:
            return None
        if current is not None and current.head.size >= newest.size:
            return current
        if current is not None:
            age_s, signatures = now_s - current.since_s, current.signatures
            waits_s = 2 * ROUND_S if self.policy.met(signatures) else CANDIDATE_S
            if len(signatures) < len(self.policy.witnesses) and age_s < waits_s:
                return current
        found = self._candidates[at] = _Candidate(newest, now_s)
        return found

    async def _cosignature(
        self, client: httpx.AsyncClient, witness: WitnessAt, head: Head
    ) -> Signature:
        key = (witness.name, head.at)
        old = self._known.get(key, 0)
        for _ in range(2):  # What the witness saw last is not known at first.
            node = self._forest.trees[head.at].node
            proof = merkle.consistency_proof(old, head.size, node) if old else ()
            status, kind, text = await _post(client, witness, Submission(old, proof, head.raw))
            if status == httpx.codes.OK:
                self._known[key] = head.size
                return _verified(witness, head, text)
            if status != httpx.codes.CONFLICT or kind != SIZE_TYPE:
                raise WitnessRefused(f"it answers {status} for {head.at}: {text[:200].strip()!r}")
            old = _size(text)
            if old > head.size:
                raise WitnessRefused(f"it has seen a head of {head.at} at {old}, and we none yet")
            self._known[key] = old
        raise WitnessRefused(f"its last head of {head.at} is another each time it is asked")


async def _post(
    client: httpx.AsyncClient, witness: WitnessAt, asked: Submission
) -> tuple[int, str, str]:
    """Status, content type and text of the answer, which is short. Raises WitnessRefused."""
    url = f"{witness.url}/add-checkpoint"
    async with asyncio.timeout(ANSWER_S_MAX):
        async with client.stream("POST", url, content=asked.encode()) as answer:
            found = b""
            async for chunk in answer.aiter_bytes():
                found += chunk
                if len(found) > ANSWER_BYTES_MAX:
                    raise WitnessRefused(f"it answers with more than {ANSWER_BYTES_MAX} bytes")
    kind = answer.headers.get("content-type", "").partition(";")[0]
    return answer.status_code, kind, found.decode("utf-8", "replace")


def _size(text: str) -> int:
    size = text.removesuffix("\n")
    if not (size.isascii() and size.isdecimal() and len(size) < 20):
        raise WitnessRefused(f"it answers 409 without a size: {text[:80]!r}")
    return int(size)


def _verified(witness: WitnessAt, head: Head, text: str) -> Signature:
    """The witness's own signature among the lines of an answer, which is of the head."""
    try:
        lines = note.signature_lines(text)
    except NoteInvalid as error:
        raise WitnessRefused(f"its answer cannot be read: {error}") from None
    known = (witness.key.name, witness.key.key_id)
    for line in lines:
        if (line.name, line.key_id) == known:
            if witness.key.verifies(note.parse(head.raw).text, line):
                return line
            raise WitnessRefused(f"its cosignature is not of our head of {head.at}")
    raise WitnessRefused("its answer has no cosignature by the key in the policy")


def states(cosigner: Cosigner) -> Mapping[str, bool]:
    """Of each witness, whether its last answer was a cosignature."""
    return {name: problem is None for name, problem in cosigner.problems.items()}

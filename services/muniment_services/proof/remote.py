"""A server's trees, verified from outside: by nothing but what it serves under `/log/`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from muniment_services.log.base import TopicPartition
from muniment_services.proof import merkle, note, tiles
from muniment_services.proof.head_check import Heads, KeptHeadInvalid, kept_head, signature_problem
from muniment_services.proof.line import Head
from muniment_services.proof.note import NoteInvalid, VerifierKey
from muniment_services.proof.statement import FORM

Fetch = Callable[[str], bytes]
"""A path to what is served there."""


@dataclass(frozen=True, slots=True)
class Verified:
    """One tree: the size of its head, and what is wrong with it."""

    at: TopicPartition
    size: int
    wrong: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Witnesses:
    """Who must have cosigned heads, and how many of them; by default nobody."""

    keys: tuple[VerifierKey, ...] = ()
    quorum: int = 0

    def problem(self, head: Head) -> str | None:
        """What a head lacks of cosignatures; None: nothing."""
        try:
            found = note.signers_of(note.parse(head.raw), self.keys)
        except NoteInvalid as error:
            return f"the head at {head.size}: {error}"
        seen = len({key.public_key for key in found})
        if seen >= self.quorum:
            return None
        return f"the head at {head.size} is cosigned by {seen} of the witnesses, not {self.quorum}"


NO_WITNESSES = Witnesses()


def verify(
    logs: Iterable[Mapping[str, object]],
    fetch: Fetch,
    kept: Sequence[Head],
    witnesses: Witnesses = NO_WITNESSES,
) -> Iterator[Verified]:
    """Verify all trees. logs: what `/log/` lists. kept: earlier heads that they must extend."""
    beyond = {head.at for head in kept}
    for listed in logs:
        at = TopicPartition(str(listed["topic"]), int(str(listed["partition"])))
        earlier = [head for head in kept if head.at == at]
        beyond.discard(at)
        if listed["size"] or earlier:
            size, wrong = _verify(at, fetch, earlier, witnesses)
            yield Verified(at, size, tuple(wrong))
    for at in sorted(beyond):
        yield Verified(at, 0, ("there is a head of it, but the server has no such tree",))


def _verify(
    at: TopicPartition, fetch: Fetch, earlier: Sequence[Head], witnesses: Witnesses
) -> tuple[int, list[str]]:
    base = f"/log/{at}"
    try:
        keys = [note.verifier_key(line) for line in fetch(f"{base}/vkeys").decode().splitlines()]
        head = kept_head(fetch(f"{base}/checkpoint"))
    except (KeptHeadInvalid, NoteInvalid) as error:
        return 0, [str(error)]
    problems = [signature_problem(found, keys) for found in (head, *earlier)]
    problems.append(witnesses.problem(head))
    wrong = [problem for problem in problems if problem is not None]
    if head.at != at:
        wrong.append(f"its head is of {head.origin}")
    heads = Heads((head, *earlier))
    for entry in _entries(base, head.size, fetch):
        if not entry.startswith(f"{FORM}\n{at}\n{heads.size}\n".encode()):
            wrong.append(f"leaf {heads.size} is of another record")
        heads.append(merkle.leaf_hash(entry))
    return head.size, wrong + heads.wrong + heads.missing()


def _entries(base: str, size: int, fetch: Fetch) -> Iterator[bytes]:
    for begin in range(0, size, tiles.TILE_WIDTH):
        width = min(tiles.TILE_WIDTH, size - begin)
        bundle = tiles.Tile(None, begin // tiles.TILE_WIDTH, width)
        try:
            yield from tiles.entries_of(fetch(f"{base}/tile/{bundle.path}"))[:width]
        except ValueError:
            return  # What is missing shows in the root.

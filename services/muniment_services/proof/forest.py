"""The trees of all topic-partitions of one log, in one folder, and what is known of their heads.

The folder is a cache: `<folder>/<topic>-<partition>/` is a tree's (`tree.py`), `line.json` says how
far the checkpoints topic has been read and what was in it. Deleting it costs reading the log again.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

import msgspec

from muniment_schemas.events import SigningKeyAdded
from muniment_schemas.ids import Offset
from muniment_services.log.base import CHECKPOINTS, Record, TopicPartition
from muniment_services.proof import merkle, tree
from muniment_services.proof.line import Head, Line
from muniment_services.proof.statement import statement
from muniment_services.proof.tree import Tree

LINE_FILE = "line.json"
HEADS_AT = TopicPartition(CHECKPOINTS, 0)

PENDING_HEADS_MAX = 10_000
"""Heads of one tree that wait until it has grown to them; `muniment verify` looks at all."""


class HeadContradicted(Exception):
    """A signed head is not of the log: the log has changed, or somebody signed another one."""

    def __init__(self, head: Head, what: str) -> None:
        super().__init__(f"the signed head of {head.at} at {head.size} {what}")
        self.head = head


class _Saved(msgspec.Struct, kw_only=True):
    next_offset: int
    key_sets: list[SigningKeyAdded]
    heads: list[Head]


class Forest:
    """Trees, the line of heads, and the comparison of the two. For one thread."""

    def __init__(self, folder: Path, places: Iterable[TopicPartition]) -> None:
        """places: of the log. Raises OSError."""
        self.folder = folder
        self.trees = {at: Tree(self._folder_of(at)) for at in places}
        self.line = Line()
        self.next_offset = Offset(0)
        """Of the checkpoints topic: what comes before is in the line."""
        self._keys_at = Offset(0)
        self._older: set[TopicPartition] = set()
        """Trees whose newest head is by keys that others have followed."""
        self._pending: dict[TopicPartition, list[Head]] = defaultdict(list)
        self._load()

    def _folder_of(self, at: TopicPartition) -> Path:
        return self.folder / f"{at.topic}-{at.partition}"

    @property
    def starts(self) -> dict[TopicPartition, Offset]:
        """From where the log has to be read."""
        return {at: Offset(grown.size) for at, grown in self.trees.items()}

    def _load(self) -> None:
        try:
            saved = msgspec.json.decode((self.folder / LINE_FILE).read_bytes(), type=_Saved)
        except (FileNotFoundError, msgspec.DecodeError):
            return
        self.line.key_sets = saved.key_sets
        self.line.newest = {head.at: head for head in saved.heads}
        self._older = {head.at for head in saved.heads if not self.line.is_by_newest(head)}
        self.next_offset = Offset(saved.next_offset)
        for head in saved.heads:
            self._note(head)

    def save(self) -> None:
        """Keep the line, whole or not at all. Raises OSError."""
        saved = _Saved(
            next_offset=self.next_offset,
            key_sets=self.line.key_sets,
            heads=list(self.line.newest.values()),
        )
        path = self.folder / LINE_FILE
        unfinished = path.with_suffix(".new")
        unfinished.write_bytes(msgspec.json.encode(saved))
        os.replace(unfinished, path)

    def close(self) -> None:
        """Release the files."""
        for grown in self.trees.values():
            grown.close()

    def append(self, at: TopicPartition, leaves: Sequence[bytes]) -> None:
        """Let a tree grow. Raises HeadContradicted at a head that it has grown to, OSError."""
        self.trees[at].append(leaves)
        size = self.trees[at].size
        if not (waiting := self._pending.get(at)):
            return
        self._pending[at] = [head for head in waiting if head.size > size]
        for head in waiting:
            if head.size <= size:
                self._compare(head)

    def take(self, record: Record, heads: Iterable[Head]) -> None:
        """Note what a record of the checkpoints topic says.

        Raises HeadRefused, HeadContradicted.
        """
        self.next_offset = Offset(max(self.next_offset, record.offset + 1))
        sets = len(self.line.key_sets)
        for head in heads:
            self._note(head)
            self._older.discard(head.at)
        if len(self.line.key_sets) > sets:
            self._keys_at = record.offset
            self._older = set(self.line.newest)

    def _note(self, head: Head) -> None:
        grown = self.trees.get(head.at)
        if grown is None:
            raise HeadContradicted(head, "is of a topic-partition that is not there")
        if head.size <= grown.size:
            self._compare(head)
        elif len(self._pending[head.at]) < PENDING_HEADS_MAX:
            self._pending[head.at].append(head)

    def _compare(self, head: Head) -> None:
        if self.trees[head.at].root(head.size) != head.root:
            raise HeadContradicted(head, "has another root than the log there")

    def refuse_loss(self, ends: Iterable[tuple[TopicPartition, Offset]]) -> None:
        """Raise HeadContradicted when the log is shorter than a head says."""
        for at, end in ends:
            head = self.line.newest.get(at)
            if head is not None and head.size > end:
                raise HeadContradicted(head, f"covers more than the log has, which ends at {end}")

    def replant(self) -> None:
        """Forget all trees, but not the line: they are made of the log once more."""
        self.close()
        for at in self.trees:
            tree.remove(self._folder_of(at))
            self.trees[at] = Tree(self._folder_of(at))
        self._pending.clear()
        for head in self.line.newest.values():
            self._note(head)

    def due(self) -> list[TopicPartition]:
        """Trees that have grown since their newest head, or whose head is by keys that others have
        followed: what is served is verified by the newest key. None if only heads were added.

        Else each head would lead to another. New keys are worth a head.
        """
        grown = [
            at
            for at, found in self.trees.items()
            if at in self._older
            or found.size > (self.line.newest[at].size if at in self.line.newest else 0)
        ]
        head = self.line.newest.get(HEADS_AT)
        only_heads = grown == [HEADS_AT] and head is not None and head.size > self._keys_at
        return [] if only_heads else grown

    @property
    def unsigned(self) -> int:
        """Records in the trees that no head covers yet."""
        heads = self.line.newest
        return sum(
            max(0, grown.size - (heads[at].size if at in heads else 0))
            for at, grown in self.trees.items()
        )

    def served(self, at: TopicPartition) -> Head | None:
        """The newest head whose tiles are here, if any."""
        head = self.line.newest.get(at)
        return head if head is not None and head.size <= self.trees[at].size else None


def leaves_of(records: Iterable[Record]) -> list[bytes]:
    """The hashes of records' leaves."""
    return [merkle.leaf_hash(statement(record)) for record in records]

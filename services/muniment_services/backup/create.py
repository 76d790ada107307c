"""Making a backup, beside running servers.

The life of one:
1. What files there are is read from the log, up to where it ends. Those whose content the place has
   not are copied, and hashed on the way.
2. A file that is not as the log says may have been replaced or removed since. What is there now is
   copied, the log is read on, and it is cut where all is there that it speaks of (`contents.py`).
   What still differs after ROUNDS_MAX is damaged on the server; the backup says so.
3. Every topic-partition is written as segments up to its cut; full ones that an earlier backup (or
   one that was broken off) left are taken over. Topics without files are cut last, so that what
   runs belong to is there.
4. Keys are sealed under the passphrase. Those of erased principals are removed from the place.
5. The manifest is written.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
import tempfile
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import count
from typing import IO

from muniment_auth.identity import KeyPlace
from muniment_schemas.codec import Codec
from muniment_schemas.ids import Offset
from muniment_services.artifacts.base import BLOCK_BYTES, ArtifactMissing, ArtifactStore
from muniment_services.backup.base import (
    LOG,
    BackupRefused,
    Backups,
    Manifest,
    SavedArtifact,
    SavedKey,
    Segment,
)
from muniment_services.backup.contents import Contents
from muniment_services.backup.sealing import Sealer
from muniment_services.backup.segments import SEGMENT_BYTES, packed, unpacked
from muniment_services.log.base import CATALOG, CHECKPOINTS, EventLog, Record, TopicPartition

ROUNDS_MAX = 10
ROUND_S = 0.2
"""Time for the event of a file that was just stored to come into the log."""

FILES_AT_ONCE = 8

_SEGMENT = re.compile(
    r".*/(?P<topic>\w+)-(?P<partition>\d+)/(?P<start>\d+)-(?P<end>\d+)-(?P<sha256>\w{64})\.zst"
)

Ends = Mapping[TopicPartition, Offset]
Told = Callable[[int, int], None]
"""Told how many of how many records or files are done."""


class NotThatFile(Exception):
    """The file's content is not the one that was asked for."""


@dataclass(frozen=True, slots=True)
class Made:
    """What a backup came to. new_records: since the last backup of the log. new_files: contents
    that the place had not."""

    name: str
    manifest: Manifest
    new_records: int
    new_files: int


class Maker:
    """Makes one backup. Lives on one event loop; the log is started, and may be open to read only.

    keys: where the keys are, and what seals them; None: they are left out.
    """

    def __init__(
        self,
        backups: Backups,
        log: EventLog,
        codec: Codec,
        artifacts: ArtifactStore,
        keys: tuple[KeyPlace, Sealer] | None,
        version: str,
        now_ms: Callable[[], int],
    ) -> None:
        self._backups = backups
        self._log = log
        self._codec = codec
        self._artifacts = artifacts
        self._keys = keys
        self._version = version
        self._now_ms = now_ms
        self._closed: dict[TopicPartition, list[Segment]] = {}
        self._there: frozenset[Segment] = frozenset()
        self._segments: list[Segment] = []

    async def run(self, records: Told, files: Told) -> Made:
        """Make it. Raises BackupRefused, and what log, places and stores raise.

        records, files: told how far it is.
        """
        begin = await asyncio.to_thread(self._backups.newest_of, self._log.log_id)
        await asyncio.to_thread(self._take_over)
        # Signed heads are of what is in the log by now: each cut is there, or later.
        started = await self._log.end_offsets()
        heads = {at: end for at, end in started.items() if at.topic == CHECKPOINTS}
        self._refuse_other(begin, started)
        contents = Contents(self._log, self._codec, begin)
        new_files, missing = await self._copy_files(contents, files)
        ends = {**await self._log.end_offsets(), **contents.cut(), **heads}
        await self._copy_log(ends, records)
        await asyncio.to_thread(contents.read_erasures, ends[TopicPartition(CATALOG, 0)])
        keys, erased = await asyncio.to_thread(self._copy_keys, contents.erased())
        manifest = Manifest(
            log_id=self._log.log_id,
            muniment_version=self._version,
            created_at_ms=self._now_ms(),
            partitions=dict(self._log.partitions),
            segments=tuple(sorted(self._segments)),
            artifacts=contents.files(),
            missing=missing,
            keys=keys,
            erased=erased,
        )
        name = await asyncio.to_thread(self._backups.store, manifest)
        known = sum(begin.ends().values()) if begin is not None else 0
        return Made(name, manifest, sum(ends.values()) - known, new_files)

    def _take_over(self) -> None:
        # Full segments are those at whose end another one begins.
        listed = self._backups.sizes(f"{LOG}/{self._log.log_id}")
        found = sorted(s for path, size in listed.items() if (s := _segment(path, size)))
        self._there = frozenset(found)
        starts = {(s.at, s.start) for s in found}
        for segment in found:
            closed = self._closed.setdefault(segment.at, [])
            due = closed[-1].end if closed else 0
            if segment.start == due and (segment.at, segment.end) in starts:
                closed.append(segment)

    def _refuse_other(self, begin: Manifest | None, ends: Ends) -> None:
        known = dict(begin.ends()) if begin is not None else {}
        for at, end in ends.items():
            closed = self._closed.get(at, [])
            if max(known.get(at, 0), closed[-1].end if closed else 0) > end:
                raise BackupRefused(
                    f"{at} ends at {end}, before what backups in {self._backups.place} have of it: "
                    "events of this log are lost, or it is an old copy. Restore from the newest "
                    "backup, or back up to another place."
                )

    async def _copy_log(self, ends: Ends, told: Told) -> None:
        done, total = 0, sum(ends.values())
        for at, end in ends.items():
            closed = self._closed.get(at, [])
            if closed:
                await asyncio.to_thread(self._refuse_fork, closed[-1])
            self._segments += closed
            due = Offset(closed[-1].end if closed else 0)
            done += due
            while due < end:
                segment = await asyncio.to_thread(self._segment, at, due, end)
                self._segments.append(segment)
                done += segment.end - due
                due = Offset(segment.end)
                told(done, total)

    def _segment(self, at: TopicPartition, start: Offset, end: Offset) -> Segment:
        content, segment = packed(self._read(at, start, end))
        if segment not in self._there:
            self._backups.put(segment.path(self._log.log_id), content)
        return segment

    def _read(self, at: TopicPartition, start: Offset, end: Offset) -> list[Record]:
        records: list[Record] = []
        due, size = start, 0
        while due < end and size < SEGMENT_BYTES:
            read = self._log.read(at, due, end - due, SEGMENT_BYTES - size)[: end - due]
            size += sum(len(record.value) + len(record.key) for record in read)
            records += read
            due = Offset(read[-1].offset + 1)
        return records

    def _refuse_fork(self, segment: Segment) -> None:
        # A copy of a data folder that went on by itself has the same id, and other records.
        path = segment.path(self._log.log_id)
        last = unpacked(self._backups.get(path, segment.sha256), segment, path)[-1]
        if list(self._log.read(segment.at, last.offset, 1)) != [last]:
            raise BackupRefused(
                f"the record {segment.at}@{last.offset} is another one in {self._backups.place}: "
                "that is a log that went on from a copy of this one. Back up to another place."
            )

    async def _copy_files(self, contents: Contents, told: Told) -> tuple[int, tuple[str, ...]]:
        # How many contents are new to the place, and the paths of files that could not be had.
        target = self._backups.artifacts()
        await target.start()
        have = {entry.path async for entry in target.walk("")}
        had = len(have)
        await asyncio.to_thread(contents.begin, await self._log.end_offsets())
        for _ in range(ROUNDS_MAX):
            known = {*contents.files(), *contents.latest()}
            lacking = sorted(file for file in known if file.sha256 not in have)
            await self._copy(lacking, target, have, told)
            await asyncio.to_thread(contents.read_on, await self._log.end_offsets())
            await asyncio.to_thread(contents.settle, have)
            if all(file.sha256 in have for file in contents.files()):
                break
            await asyncio.sleep(ROUND_S)
        missing = tuple(f.path for f in contents.files() if f.sha256 not in have)
        return len(have) - had, missing

    async def _copy(
        self,
        files: Sequence[SavedArtifact],
        target: ArtifactStore,
        have: set[str],
        told: Told,
    ) -> None:
        turns, done = iter(files), count(1)

        async def work() -> None:
            for file in turns:
                try:
                    if file.sha256 not in have:
                        opened = await self._artifacts.get(file.path)
                        await target.put(file.sha256, exactly(opened.chunks, file))
                        have.add(file.sha256)
                except NotThatFile:
                    with suppress(ArtifactMissing):
                        have.add(await self._copy_as_it_is(file.path, target))
                except ArtifactMissing:
                    pass  # The log may say so by now.
                told(next(done), len(files))

        await asyncio.gather(*[work() for _ in range(FILES_AT_ONCE)])

    async def _copy_as_it_is(self, path: str, target: ArtifactStore) -> str:
        # By way of a temporary file, since its name will be the digest.
        digest, size = hashlib.sha256(), 0
        with tempfile.TemporaryFile() as spool:
            async for chunk in (await self._artifacts.get(path)).chunks:
                await asyncio.to_thread(spool.write, chunk)
                digest.update(chunk)
                size += len(chunk)
            spool.seek(0)
            file = SavedArtifact(path=path, size_bytes=size, sha256=digest.hexdigest())
            await target.put(file.sha256, exactly(_blocks(spool), file))
        return file.sha256

    def _copy_keys(
        self, ordered: frozenset[str]
    ) -> tuple[tuple[SavedKey, ...] | None, tuple[str, ...]]:
        # An order that was void left its key where it is; one that counts has destroyed it, or the
        # next start of a server will.
        if self._keys is None:
            return None, tuple(sorted(ordered))
        place, sealer = self._keys
        saved = []
        for name in place.names():
            content = place.get(name)
            if content is None:
                continue  # Destroyed a moment ago.
            key = SavedKey(name=name, sha256="")
            known = self._backups.read(key.path)
            if known is None or sealer.open(name, known) != content:
                known = sealer.seal(name, content)
                self._backups.put(key.path, known)
            saved.append(SavedKey(name=name, sha256=hashlib.sha256(known).hexdigest()))
        erased = ordered.difference(key.name for key in saved)
        for name in sorted(erased):
            self._backups.remove(SavedKey(name=name, sha256="").path)
        return tuple(saved), tuple(sorted(erased))


async def exactly(chunks: AsyncIterator[bytes], file: SavedArtifact) -> AsyncIterator[bytes]:
    """The chunks as they come; raises NotThatFile before the end when they are not the file's.

    A store to which they go then keeps nothing.
    """
    digest, held = hashlib.sha256(), b""
    async for chunk in chunks:
        await asyncio.to_thread(digest.update, chunk)
        if held:
            yield held
        held = chunk
    if digest.hexdigest() != file.sha256:
        raise NotThatFile(file.path)
    if held:
        yield held


async def _blocks(file: IO[bytes]) -> AsyncIterator[bytes]:
    while block := await asyncio.to_thread(file.read, BLOCK_BYTES):
        yield block


def _segment(path: str, size: int) -> Segment | None:
    found = _SEGMENT.fullmatch(path)
    if found is None:
        return None
    return Segment(
        topic=found["topic"],
        partition=int(found["partition"]),
        start=int(found["start"]),
        end=int(found["end"]),
        stored_bytes=size,
        sha256=found["sha256"],
    )

"""A backup put back: artifacts first, then keys, then the log, into places that are empty.

So a server that is started on what a broken-off restore left finds no log that speaks of files
which are not there. A restore that was broken off goes on when it is run again: what is there must
be the beginning of what the backup has.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

from muniment_auth.identity import KeyPlace
from muniment_services.artifacts.base import ArtifactIsFolder, ArtifactMissing, ArtifactStore
from muniment_services.backup.base import (
    BackupDamaged,
    BackupRefused,
    Backups,
    Manifest,
    SavedArtifact,
)
from muniment_services.backup.create import NotThatFile, exactly
from muniment_services.backup.sealing import Sealer
from muniment_services.backup.segments import BackedUpLog
from muniment_services.log.base import EventLog
from muniment_services.log_copy import Copied, LogCopy

FILES_AT_ONCE = 8

Told = Callable[[int], None]
"""Told how many more records or files have been dealt with."""


class Restorer:
    """Restores one backup. Lives on one event loop."""

    def __init__(self, backups: Backups, manifest: Manifest) -> None:
        self._backups = backups
        self._manifest = manifest

    async def refuse_unless_empty(self, target: EventLog, store: ArtifactStore) -> None:
        """Raise BackupRefused when the log has other records, or files are there without a log."""
        ends = self._manifest.ends()
        if dict(target.partitions) != self._manifest.partitions:
            raise BackupRefused("the log there has other partitions: restore into an empty one.")
        have = await target.end_offsets()
        for at, end in have.items():
            if end > ends[at]:
                raise BackupRefused(
                    f"the log there has {end} records in {at}, the backup {ends[at]}: restore into "
                    "an empty data folder, or under a Kafka prefix of its own."
                )
        known = {file.path for file in self._manifest.artifacts}
        async for entry in store.walk(""):
            if entry.path not in known:
                raise BackupRefused(
                    f"there is a file {entry.path} that the backup does not know: restore into an "
                    "empty place of artifacts."
                )

    async def restore_files(self, store: ArtifactStore, told: Told) -> None:
        """Write every file, each verified as it is read. Raises BackupDamaged, BackupRefused."""
        source, missing = self._backups.artifacts(), set(self._manifest.missing)
        files = iter([f for f in self._manifest.artifacts if f.path not in missing])

        async def work() -> None:
            for file in files:
                if not await self._is_there(store, file):
                    await self._write(source, store, file)
                told(1)

        await asyncio.gather(*[work() for _ in range(FILES_AT_ONCE)])

    @staticmethod
    async def _is_there(store: ArtifactStore, file: SavedArtifact) -> bool:
        if await store.size(file.path) is None:
            return False
        if (await store.describe(file.path)).sha256.hex() == file.sha256:
            return True
        raise BackupRefused(
            f"there is another file at {file.path}: restore into an empty place of artifacts."
        )

    @staticmethod
    async def _write(source: ArtifactStore, store: ArtifactStore, file: SavedArtifact) -> None:
        place = f"artifacts/files/{file.sha256}"
        try:
            chunks: AsyncIterator[bytes] = (await source.get(file.sha256)).chunks
            await store.put(file.path, exactly(chunks, file))
        except (ArtifactMissing, ArtifactIsFolder):
            raise BackupDamaged(f"{place} is missing.") from None
        except NotThatFile:
            raise BackupDamaged(f"{place} is not what was stored.") from None

    def restore_keys(self, place: KeyPlace, sealer: Sealer, erased: frozenset[str]) -> int:
        """Open every key and put it into its place; returns how many. Blocking.

        erased: those of principals that were erased since, which do not come back. Raises
        PassphraseWrong, BackupDamaged, KeysUnavailable.
        """
        count = 0
        for key in self._manifest.keys or ():
            if key.name in erased:
                continue
            sealed = self._backups.get(key.path, key.sha256)
            content = sealer.open(key.name, sealed)
            if not place.put_new(key.name, content) and place.get(key.name) != content:
                raise BackupRefused(
                    f"there is another key {key.name}: restore into an empty place of keys."
                )
            count += 1
        return count

    async def restore_log(self, target: EventLog, copied: Told, compared: Told) -> Copied:
        """Append every record, then read both and compare. Raises what LogCopy raises."""
        copy = LogCopy(BackedUpLog(self._backups, self._manifest), target)
        await copy.run(copied)
        return await copy.verify(compared)

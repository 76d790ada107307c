"""Is a backup whole? Every file that it names is read, decoded and compared; nothing is changed."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

from muniment_schemas.codec import Codec
from muniment_services.artifacts.base import ArtifactMissing
from muniment_services.backup.base import Backups, Manifest, PassphraseWrong
from muniment_services.backup.contents import Contents
from muniment_services.backup.sealing import Sealer
from muniment_services.backup.segments import BackedUpLog
from muniment_services.verify import Findings, LogCheck

Told = Callable[[int], None]
"""Told how many more records or files have been dealt with."""


class BackupCheck:
    """The check of one backup; what is wrong stands in `findings`."""

    def __init__(self, backups: Backups, manifest: Manifest, findings: Findings) -> None:
        self._backups = backups
        self._manifest = manifest
        self._findings = findings

    def check_log(self, log: BackedUpLog, codec: Codec, now_ms: int, told: Told) -> None:
        """Segments without holes, whole; every record as `muniment verify` looks at it. Blocking.

        What files there must be is read from the records once more.
        """
        due: dict[object, int] = {}
        for segment in sorted(self._manifest.segments):
            if segment.start != due.get(segment.at, 0):
                self._findings.add(segment.at, f"no segment has the record {due.get(segment.at)}")
            due[segment.at] = segment.end
        check = LogCheck(log, codec, self._findings, now_ms)
        ends = self._manifest.ends()
        check.run(ends, told)
        if not check.readable:
            return
        contents = Contents(log, codec, None)
        contents.begin(ends)
        if contents.files() != self._manifest.artifacts:
            self._findings.add("manifest", "its list of files is not what the log says")

    async def check_files(self, told: Told) -> None:
        """Every file by its digest."""
        store = self._backups.artifacts()
        missing = set(self._manifest.missing)
        for path in sorted(missing):
            self._findings.add(f"artifacts/{path}", "the server had it not when this was made")
        wanted = {file.sha256 for file in self._manifest.artifacts if file.path not in missing}
        for sha256 in sorted(wanted):
            try:
                found = (await store.describe(sha256)).sha256.hex()
            except ArtifactMissing:
                self._findings.add(f"artifacts/files/{sha256}", "the file is missing")
            else:
                if found != sha256:
                    self._findings.add(f"artifacts/files/{sha256}", "the file is changed")
            told(1)

    def check_keys(self, sealer: Sealer | None, erased: frozenset[str]) -> None:
        """Every sealed key; opened too, if there is a sealer. Blocking.

        erased: names of those that may be gone.
        """
        for key in self._manifest.keys or ():
            sealed = self._backups.read(key.path)
            if sealed is None:
                if key.name not in erased:
                    self._findings.add(key.path, "the key is missing")
                continue
            if hashlib.sha256(sealed).hexdigest() != key.sha256:
                self._findings.add(key.path, "the sealed key is changed")
            elif sealer is not None:
                try:
                    sealer.open(key.name, sealed)
                except PassphraseWrong as error:
                    self._findings.add(key.path, str(error))

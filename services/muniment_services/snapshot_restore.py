"""Projections from a snapshot: into a data folder that has none, or in the place of what is there.

Only for who holds the data folder. The file is written beside its place, every part verified, and
renamed when it is whole; a crash on the way leaves what the next start removes.
"""

from __future__ import annotations

from pathlib import Path

import structlog

from muniment_services.artifacts.base import ArtifactError
from muniment_services.config import Settings
from muniment_services.projection_files import newest, remove, replace, settle, unfinished
from muniment_services.snapshot import (
    FOLDER,
    Manifest,
    Shelf,
    SnapshotDamaged,
    SnapshotError,
    SnapshotMissing,
    SnapshotUnfit,
    Told,
    in_events,
    open_shelf,
)
from muniment_services.startup import RESTORING, Startup

_log = structlog.get_logger("muniment.snapshots")


def restore(data_dir: Path, shelf: Shelf, manifest: Manifest, told: Told) -> None:
    """Put a snapshot's file in the place of the projections. Blocking.

    Raises SnapshotDamaged, NoRoom, ArtifactError, and what `told` raises; the old projections are
    then still there.
    """
    data_dir.mkdir(parents=True, exist_ok=True)
    path = settle(data_dir)
    new = unfinished(path)
    try:
        shelf.fetch(manifest, new, told)
    except BaseException:
        remove(new)
        raise
    replace(new, path)


def chosen(shelf: Shelf, name: str | None, log_id: str, layout_version: int) -> Manifest:
    """A snapshot by its name; None: the newest one that fits. Raises SnapshotMissing or …Unfit."""
    if name is not None:
        found = shelf.manifest(name)
        found.refuse_if_unfit(log_id, layout_version)
        return found
    manifests = shelf.manifests()
    if not manifests:
        raise SnapshotMissing(
            f"there is no snapshot in {shelf.place}. `muniment snapshot create` makes one."
        )
    for manifest in manifests:
        if manifest.log_id == log_id and manifest.layout_version == layout_version:
            return manifest
    manifests[0].refuse_if_unfit(log_id, layout_version)
    raise SnapshotUnfit(f"no snapshot in {shelf.place} fits.")


def restore_newest_if_empty(
    settings: Settings, log_id: str, layout_version: int, startup: Startup
) -> Manifest | None:
    """Begin with the newest snapshot that fits, where there are no projections. Blocking.

    None when there are projections, or no snapshot that can be used: they are then built from the
    log, and the log says why. Raises ConfigError, and Stopped when `startup` was told to stop.
    """
    if newest(settings.data_dir) is not None:
        return None
    if settings.snapshots is None and not (settings.data_dir / FOLDER).is_dir():
        return None
    shelf = open_shelf(settings)
    try:
        fitting = [
            manifest
            for manifest in shelf.manifests()
            if manifest.log_id == log_id and manifest.layout_version == layout_version
        ]
        for manifest in fitting:
            if _restored(settings.data_dir, shelf, manifest, startup):
                return manifest
    except (ArtifactError, SnapshotError, OSError) as error:
        _log.error("snapshots cannot be used; projections are built anew", reason=str(error))
        return None
    _log.warning("no snapshot fits; projections are built from the log", place=shelf.place)
    return None


def _restored(data_dir: Path, shelf: Shelf, manifest: Manifest, startup: Startup) -> bool:
    startup.enter(RESTORING, manifest.events)
    try:
        restore(data_dir, shelf, manifest, in_events(manifest, startup.advance))
    except SnapshotDamaged as error:
        _log.error("a snapshot is damaged; an older one is tried", reason=str(error))
        return False
    _log.info("projections begin with a snapshot", name=manifest.name, events=manifest.events)
    return True

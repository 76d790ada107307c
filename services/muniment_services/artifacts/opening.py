"""The artifacts as the settings say: where they are kept, and whether others use that place too."""

from __future__ import annotations

import os
from pathlib import Path

from muniment_services.artifacts.base import ArtifactStore
from muniment_services.artifacts.keeper import Artifacts
from muniment_services.artifacts.local import LocalArtifacts
from muniment_services.artifacts.objects import ObjectArtifacts
from muniment_services.artifacts.place import folder_of, open_bucket
from muniment_services.config import Settings

FOLDER = "artifacts"
"""Name of the folder in data_dir where artifacts are kept unless the settings name another."""

MULTIPART = "multipart"
"""What is below this is parts of uploads that are not complete."""


def open_artifacts(settings: Settings) -> Artifacts:
    """The artifacts of a server, not yet started. Nothing is asked or made. Raises ConfigError.

    A folder that the settings name may be a shared one when replicas share a log; a start then
    leaves alone what others may be working on.
    """
    where = str(settings.data_dir / FOLDER) if settings.artifacts is None else settings.artifacts
    folder = folder_of(where)
    if folder is not None:
        shared = settings.artifacts is not None and settings.log != "embedded"
        return _in_folder(folder, shared)
    store = ObjectArtifacts(open_bucket(where), where)
    below = f"{where.rstrip('/')}/{MULTIPART}"
    parts = ObjectArtifacts(open_bucket(below), below, transient=True)
    return Artifacts(store, parts, os.urandom)


def _in_folder(folder: Path, shared: bool) -> Artifacts:
    store: ArtifactStore = LocalArtifacts(folder, shared=shared)
    parts = LocalArtifacts(folder / MULTIPART, transient=True, shared=shared)
    return Artifacts(store, parts, os.urandom)

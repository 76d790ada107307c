"""Events of workspaces: parts of a server that do not see each other. Fields: `avro/`."""

from __future__ import annotations

from typing import ClassVar

from muniment_schemas.envelope import CATALOG, Event


class WorkspaceCreated(Event, frozen=True, kw_only=True):
    """A workspace was created."""

    TOPIC: ClassVar[str] = CATALOG
    AGGREGATE: ClassVar[str] = "workspace"
    description: str | None = None
    artifact_root: str | None = None


class WorkspaceUpdated(Event, frozen=True, kw_only=True):
    """A workspace was described anew, or its files go elsewhere from now on."""

    TOPIC: ClassVar[str] = CATALOG
    AGGREGATE: ClassVar[str] = "workspace"
    description: str | None = None
    artifact_root: str | None = None


class WorkspaceDeleted(Event, frozen=True, kw_only=True):
    """An empty workspace was deleted."""

    TOPIC: ClassVar[str] = CATALOG
    AGGREGATE: ClassVar[str] = "workspace"

"""Workspaces: parts of one server, each with experiments and models of its own.

The default one is always there and has no events. Names follow MLflow's rules. A workspace can be
deleted only while nothing is in it.
Source: MLflow 3.17, workspace APIs.
"""

from __future__ import annotations

import re
from typing import Any

import msgspec

from muniment_schemas import events as e
from muniment_schemas.envelope import WORKSPACE_DEFAULT
from muniment_services.domain.artifact import is_in_folder, path_of
from muniment_services.domain.commands import AggregateKey, Command, Context, State, World
from muniment_services.domain.errors import AlreadyExists, Invalid, NotFound, Void, WrongState
from muniment_services.domain.limits import check_length

KIND = "workspace"
NAME_CHARS = (2, 63)
RESERVED = frozenset({"workspaces", "api", "ajax-api", "static-files"})
DESCRIPTION_CHARS_MAX = 5000
LOCATION_CHARS_MAX = 512

FOLDER = "workspaces"
"""Where below the server's root the files of workspaces are that have no root of their own."""

_NAME = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")


class Workspace(State, frozen=True, kw_only=True):
    """A workspace. artifact_root: None for a folder below the server's own."""

    workspace_id: str
    description: str | None
    artifact_root: str | None


DEFAULT = Workspace(version=0, workspace_id=WORKSPACE_DEFAULT, description=None, artifact_root=None)


class WorkspaceCommand(Command, frozen=True, kw_only=True):
    """A command about one workspace."""

    workspace: str

    def serial(self) -> AggregateKey:
        """One history."""
        return (KIND, self.workspace)


class CreateWorkspace(WorkspaceCommand, frozen=True, kw_only=True):
    """Create a workspace."""

    description: str | None = None
    artifact_root: str | None = None


class UpdateWorkspace(WorkspaceCommand, frozen=True, kw_only=True):
    """Change what is given; None changes nothing, an empty text removes."""

    description: str | None = None
    artifact_root: str | None = None


class DeleteWorkspace(WorkspaceCommand, frozen=True, kw_only=True):
    """Delete a workspace in which nothing is."""


def check_name(name: str) -> None:
    """Raise Invalid unless a workspace can have the name, or has it (the default one)."""
    if name == WORKSPACE_DEFAULT:
        return
    least, most = NAME_CHARS
    if not least <= len(name) <= most:
        raise Invalid(f"Workspace name '{name}' must be between {least} and {most} characters.")
    if _NAME.fullmatch(name) is None:
        raise Invalid(
            f"Workspace name '{name}' must match the pattern ^[a-z0-9]([-a-z0-9]*[a-z0-9])?$ "
            "(lowercase alphanumeric with optional internal hyphens)."
        )
    if name in RESERVED:
        raise Invalid(f"Workspace name '{name}' is reserved and cannot be used.")


def find(world: World, name: str) -> Workspace | None:
    """The workspace of a name, if there is one."""
    found = world.get(KIND, name)
    assert found is None or isinstance(found, Workspace)
    return DEFAULT if found is None and name == WORKSPACE_DEFAULT else found


def require(world: World, name: str) -> Workspace:
    """The workspace of a name. Raises Invalid, NotFound."""
    check_name(name)
    found = find(world, name)
    if found is None:
        raise NotFound(f"Workspace '{name}' not found")
    return found


def create(world: World, command: CreateWorkspace, context: Context) -> e.WorkspaceCreated:
    """Raises Invalid, AlreadyExists."""
    if command.workspace == WORKSPACE_DEFAULT:
        raise Invalid("The 'default' workspace is reserved and cannot be created")
    check_name(command.workspace)
    _check_texts(command)
    if find(world, command.workspace) is not None:
        raise AlreadyExists(f"Workspace '{command.workspace}' already exists.")
    return e.WorkspaceCreated(
        envelope=context.envelope(e.WorkspaceCreated, command.workspace, expected_version=0),
        description=command.description or None,
        artifact_root=command.artifact_root or None,
    )


def update(world: World, command: UpdateWorkspace, context: Context) -> e.WorkspaceUpdated:
    """Raises Invalid, NotFound."""
    if command.description is None and command.artifact_root is None:
        raise Invalid("Workspace update must have at least one key")
    _check_texts(command)
    found = require(world, command.workspace)
    given = (command.description, found.description), (command.artifact_root, found.artifact_root)
    description, root = (old if new is None else new or None for new, old in given)
    return e.WorkspaceUpdated(
        envelope=context.envelope(
            e.WorkspaceUpdated, command.workspace, expected_version=found.version
        ),
        description=description,
        artifact_root=root,
    )


def delete(world: World, command: DeleteWorkspace, context: Context) -> e.WorkspaceDeleted:
    """Raises Invalid for the default one, NotFound, WrongState while something is in it."""
    if command.workspace == WORKSPACE_DEFAULT:
        raise Invalid("The 'default' workspace is reserved and cannot be deleted")
    found = require(world, command.workspace)
    if any(_is_in(world, kind, command.workspace) for kind in ("experiment", "registered_model")):
        raise WrongState(
            f"Workspace '{command.workspace}' still contains experiments or models. A deleted "
            "experiment counts too; a workspace that held one stays."
        )
    return e.WorkspaceDeleted(
        envelope=context.envelope(
            e.WorkspaceDeleted, command.workspace, expected_version=found.version
        )
    )


def evolve(state: Workspace | None, event: e.Event) -> Workspace | None:
    """The workspace behind an event; None when it was deleted. Raises Void."""
    if isinstance(event, e.WorkspaceDeleted):
        return None
    assert isinstance(event, e.WorkspaceCreated | e.WorkspaceUpdated)
    if state is not None and isinstance(event, e.WorkspaceCreated):
        raise Void("there is such a workspace already")
    return Workspace(
        version=1 if state is None else state.version + 1,
        workspace_id=event.envelope.aggregate_id,
        description=event.description,
        artifact_root=event.artifact_root,
    )


def artifact_root(world: World, name: str, server_root: str) -> str:
    """Below what URI the experiments of a workspace keep their files."""
    if name == WORKSPACE_DEFAULT:
        return server_root
    found = find(world, name)
    if found is not None and found.artifact_root is not None:
        return found.artifact_root.rstrip("/")
    return f"{server_root}/{FOLDER}/{name}"


def at(world: World, path: str) -> str | None:
    """The workspace in whose folder a path of the artifact store is: the default one for what is in
    no other's. None for a folder that has another's in it.
    """
    holder, place = WORKSPACE_DEFAULT, ""
    for found in world.known_of_kind(KIND):
        assert isinstance(found, Workspace)
        folder = _folder(found)
        if folder is None:
            continue
        if is_in_folder(path, folder):
            holder, place = max((holder, place), (found.workspace_id, folder), key=_depth)
        elif is_in_folder(folder, path):
            return None
    return holder


def _folder(workspace: Workspace) -> str | None:
    # In the artifact store; None for what is kept elsewhere.
    if workspace.artifact_root is None:
        return f"{FOLDER}/{workspace.workspace_id}"
    try:
        return path_of(workspace.artifact_root)
    except Invalid:
        return None


def _depth(held: tuple[str, str]) -> int:
    return len(held[1])


def _is_in(world: World, kind: str, workspace: str) -> bool:
    things: Any = world.known_of_kind(kind)
    return any(thing.workspace == workspace for thing in things)


def _check_texts(command: CreateWorkspace | UpdateWorkspace) -> None:
    check_length("description", command.description or "", DESCRIPTION_CHARS_MAX)
    check_length("default_artifact_root", command.artifact_root or "", LOCATION_CHARS_MAX)


def builtins(workspace: Workspace) -> dict[str, object]:
    """MLflow's Workspace."""
    shown = msgspec.to_builtins(
        {
            "name": workspace.workspace_id,
            "description": workspace.description,
            "default_artifact_root": workspace.artifact_root,
        }
    )
    return {key: value for key, value in shown.items() if value is not None}

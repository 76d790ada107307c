"""Changes of artifacts: a file is stored, or files are removed.

The bytes are in the artifact store; what happened to them is in the log, each event with the run,
model or trace that the file belongs to.
"""

from __future__ import annotations

from typing import Any

from muniment_schemas import events as e
from muniment_services.domain import hold
from muniment_services.domain.artifact import is_below, owner_of, owners
from muniment_services.domain.commands import AggregateKey, Command, Context, World
from muniment_services.domain.version_files import require_unsealed


class RecordUpload(Command, frozen=True, kw_only=True):
    """Note that a file was stored. replaces: whether there was one; previous_sha256: its digest,
    None if not known."""

    path: str
    size_bytes: int
    sha256: bytes
    replaces: bool = True
    previous_sha256: bytes | None = None

    def needs(self) -> tuple[AggregateKey, ...]:
        """What the file may belong to."""
        return owners(self.path)


class RecordDeletion(Command, frozen=True, kw_only=True):
    """Note that one owner's files at or below a path are removed. files: how many there are."""

    owner: str
    path: str
    files: int

    def needs(self) -> tuple[AggregateKey, ...]:
        """What the files may belong to."""
        return (*owners(self.owner), *owners(self.path))


def record_upload(world: World, command: RecordUpload, context: Context) -> e.ArtifactUploaded:
    """The same content again is recorded as well.

    Raises ReviewRequired for what stays as it is, Held for another content of what is held.
    """
    owned_by = (owner for _, owner in owners(command.path))
    require_unsealed(world, owned_by, command.path, adds=not command.replaces)
    if command.previous_sha256 not in (None, command.sha256):
        refuse_held(world, owner_of(command.path), command.path)
    return e.ArtifactUploaded(
        envelope=context.envelope(e.ArtifactUploaded, command.path),
        owner=owner_of(command.path),
        path=command.path,
        size_bytes=command.size_bytes,
        sha256=command.sha256,
        previous_sha256=command.previous_sha256,
    )


def record_deletion(world: World, command: RecordDeletion, context: Context) -> e.ArtifactDeleted:
    """Raises ReviewRequired for what stays as it is, Held for what is held."""
    require_unsealed(world, (owner for _, owner in command.needs()), command.path)
    refuse_held(world, command.owner, command.path)
    return e.ArtifactDeleted(
        envelope=context.envelope(e.ArtifactDeleted, command.path),
        owner=command.owner,
        path=command.path,
        files=command.files,
    )


def refuse_held(world: World, owner: str, path: str) -> None:
    """Raise Held when one owner's files at or below a path are held. The owners are in memory."""
    if next(hold.in_force(world), None) is None:
        return
    looked_at = {"run": hold.on_run, "logged_model": hold.on_logged_model, "trace": hold.on_trace}
    for kind, aggregate_id in (*owners(owner), *owners(path)):
        found = world.known(kind, aggregate_id)
        if found is not None:
            hold.refuse(looked_at[kind](world, found), f"What is at {path}")
    experiments: Any = world.known_of_kind(hold.EXPERIMENT)
    for experiment in experiments:
        if is_below(path, experiment.artifact_location):
            hold.refuse(hold.on_experiment(world, experiment), f"What is at {path}")

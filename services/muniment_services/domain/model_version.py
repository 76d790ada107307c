"""Decisions on versions of a registered model: create, describe, stages, tags, delete."""

from __future__ import annotations

import json

from muniment_schemas import events as e
from muniment_schemas.promotion_events import STAGE
from muniment_services.domain import hold
from muniment_services.domain import logged_model as logged_models
from muniment_services.domain import registry_source as sources
from muniment_services.domain import run as runs
from muniment_services.domain.commands import AggregateKey, Command, Context, World
from muniment_services.domain.errors import NotAllowedNow
from muniment_services.domain.limits import check_key, stated
from muniment_services.domain.promotion_guard import (
    decided_under,
    origins_of_move,
    others,
    require_archivable,
    require_unguarded,
    require_unpinned,
)
from muniment_services.domain.registered_model import (
    ModelCommand,
    aliases_of,
    envelope,
    require,
    require_version,
)
from muniment_services.domain.registry_names import (
    ACTIVE_STAGES,
    check_model_name,
    check_version_tag,
    is_prompt,
    stage_of,
    version_number,
)
from muniment_services.domain.review import Target

REGISTRATIONS_TAG = "mlflow.modelVersions"
"""The tag of a logged model that lists the versions it was registered as, as JSON."""


class CreateModelVersion(ModelCommand, frozen=True, kw_only=True):
    """Register a version. run_id and logged_model_id: None when they were not sent.

    model_of_run: the logged model that clients load by a `runs:/` source, if there is one.
    """

    source: str
    run_id: str | None = None
    logged_model_id: str | None = None
    run_link: str = ""
    description: str = ""
    tags: tuple[tuple[str, str], ...] = ()
    model_of_run: str | None = None

    @property
    def registers_logged_model(self) -> bool:
        """Whether a logged model is registered, and not a prompt."""
        return bool(self.logged_model_id) and not is_prompt(dict(self.tags))

    def needs(self) -> tuple[AggregateKey, ...]:
        """The run and the logged model that the source may belong to."""
        run = ((runs.KIND, self.run_id),) if self.run_id else ()
        models = (self.logged_model_id, self.model_of_run)
        return run + tuple((logged_models.KIND, model_id) for model_id in models if model_id)


class UpdateModelVersion(ModelCommand, frozen=True, kw_only=True):
    """Replace the description; None removes it."""

    version: str
    description: str | None


class TransitionStage(ModelCommand, frozen=True, kw_only=True):
    """Move a version to a stage; archive_others moves those that are in it to Archived."""

    version: str
    stage: str
    archive_others: bool = False
    comment: str | None = None

    def further_needs(self, world: World) -> tuple[AggregateKey, ...]:
        """What the version comes from, and those that it may archive."""
        return origins_of_move(world, self.name, self.version, self.stage, self.archive_others)


class DeleteModelVersion(ModelCommand, frozen=True, kw_only=True):
    """Delete a version and the aliases that point at it."""

    version: str


class SetModelVersionTag(ModelCommand, frozen=True, kw_only=True):
    """Set one tag."""

    version: str
    key: str
    value: str


class DeleteModelVersionTag(ModelCommand, frozen=True, kw_only=True):
    """Remove one tag."""

    version: str
    key: str


class NoteRegistration(Command, frozen=True, kw_only=True):
    """Say on a logged model that it was registered as a version. May be repeated at will."""

    logged_model_id: str
    name: str
    version: int

    def needs(self) -> tuple[AggregateKey, ...]:
        """The logged model."""
        return ((logged_models.KIND, self.logged_model_id),)

    def serial(self) -> AggregateKey:
        """Registrations of one model add to one list."""
        return (logged_models.KIND, self.logged_model_id)


def create(world: World, command: CreateModelVersion, context: Context) -> e.ModelVersionCreated:
    """Raises Invalid, NotFound or NotAllowedNow for the source, the tags or the model."""
    tags = dict(command.tags)
    if is_prompt(tags):
        sources.check_prompt_source(command.source)
        origin = sources.Origin(command.source, command.run_id or "", "")
    else:
        origin = sources.check(world, command.source, command.run_id, command.logged_model_id)
    check_model_name(command.name)
    for key, value in command.tags:
        check_version_tag(key, value)
    location, origin = sources.locate(world, origin, command.model_of_run)
    model = require(world, command.name)
    return e.ModelVersionCreated(
        envelope=envelope(context, e.ModelVersionCreated, model),
        version=model.last_version + 1,
        source=origin.source,
        storage_location=location,
        run_id=origin.run_id or None,
        run_link=command.run_link or None,
        description=command.description or None,
        tags=tags,
        logged_model_id=origin.model_id or None,
        copied_authors=tuple(
            e.VersionAuthor(principal_id=hand.principal_id, delegation=hand.delegation)
            for hand in origin.authors
        ),
    )


def update(world: World, command: UpdateModelVersion, context: Context) -> e.ModelVersionUpdated:
    """Raises Invalid or NotFound."""
    model, version = require_version(world, command.name, command.version)
    return e.ModelVersionUpdated(
        envelope=envelope(context, e.ModelVersionUpdated, model),
        version=version.version,
        description=command.description,
        previous_description=version.description,
    )


def transition(world: World, command: TransitionStage, context: Context) -> e.StageTransitioned:
    """One event, whatever it archives. Raises Invalid, NotAllowedNow or NotFound."""
    stage = stage_of(command.stage)
    if command.archive_others and stage not in ACTIVE_STAGES:
        raise NotAllowedNow(
            "Model version transition cannot archive existing model versions because "
            f"'{command.stage}' is not an Active stage. Valid stages are {list(ACTIVE_STAGES)}"
        )
    model, version = require_version(world, command.name, command.version)
    target = Target(STAGE, stage)
    comment = stated(command.comment)
    require_unguarded(world, model, version, target, context, comment)
    archived = others(model, version, stage) if command.archive_others else ()
    require_archivable(world, model, archived, context, comment)
    return e.StageTransitioned(
        envelope=envelope(context, e.StageTransitioned, model),
        version=version.version,
        from_stage=version.stage,
        to_stage=stage,
        archived=archived,
        comment=comment,
        decided_under=decided_under(world, model, target, bool(archived)),
    )


def delete(world: World, command: DeleteModelVersion, context: Context) -> e.ModelVersionDeleted:
    """Raises Invalid, NotFound, Held."""
    model, version = require_version(world, command.name, command.version)
    hold.refuse(
        hold.on_version(world, model, version), f"Version {version.version} of {model.name}"
    )
    return e.ModelVersionDeleted(
        envelope=envelope(context, e.ModelVersionDeleted, model),
        version=version.version,
        stage=version.stage,
        aliases=tuple(aliases_of(model, version.version)),
    )


def set_tag(world: World, command: SetModelVersionTag, context: Context) -> e.ModelVersionTagSet:
    """Raises Invalid for number or tag, NotFound, ReviewRequired for what stays as it is."""
    check_model_name(command.name)
    version_number(command.version)
    check_version_tag(command.key, command.value)
    model, version = require_version(world, command.name, command.version)
    if version.tags.get(command.key) != command.value:
        require_unpinned(world, model, version, command.key)
    return e.ModelVersionTagSet(
        envelope=envelope(context, e.ModelVersionTagSet, model),
        version=version.version,
        key=command.key,
        value=command.value,
        previous_value=version.tags.get(command.key),
    )


def delete_tag(
    world: World, command: DeleteModelVersionTag, context: Context
) -> e.ModelVersionTagDeleted | None:
    """None when there is no such tag.

    Raises Invalid for number or key, NotFound, ReviewRequired for what stays as it is.
    """
    check_model_name(command.name)
    version_number(command.version)
    check_key(command.key, "key")
    model, version = require_version(world, command.name, command.version)
    if command.key not in version.tags:
        return None
    require_unpinned(world, model, version, command.key)
    return e.ModelVersionTagDeleted(
        envelope=envelope(context, e.ModelVersionTagDeleted, model),
        version=version.version,
        key=command.key,
        previous_value=version.tags[command.key],
    )


def note_registration(
    world: World, command: NoteRegistration, context: Context
) -> e.LoggedModelTagsSet | None:
    """None when the list has the version already, or there is no such logged model."""
    model = world.get(logged_models.KIND, command.logged_model_id)
    if model is None:
        return None
    assert isinstance(model, logged_models.LoggedModel)
    listed = _registrations(model.tags.get(REGISTRATIONS_TAG, ""))
    entry = {"name": command.name, "version": command.version}
    if entry in listed:
        return None
    return e.LoggedModelTagsSet(
        envelope=context.envelope(
            e.LoggedModelTagsSet, command.logged_model_id, expected_version=model.version
        ),
        tags={REGISTRATIONS_TAG: json.dumps([*listed, entry])},
    )


def _registrations(text: str) -> list[object]:
    # Clients can write the tag too; what is not a list is replaced.
    try:
        listed = json.loads(text) if text else []
    except ValueError:
        return []
    return listed if isinstance(listed, list) else []

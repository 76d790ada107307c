"""Decisions on a registered model as a whole: create, describe, rename, delete, tags, aliases."""

from __future__ import annotations

from collections.abc import Mapping

from muniment_schemas import events as e
from muniment_schemas.promotion_events import ALIAS
from muniment_services.domain import hold
from muniment_services.domain.commands import AggregateKey, Context, World
from muniment_services.domain.errors import AlreadyExists, Invalid, ReviewRequired
from muniment_services.domain.limits import check_key
from muniment_services.domain.promotion_guard import (
    decided_under,
    origins_of_version,
    require_unguarded,
)
from muniment_services.domain.promotion_policy import escapes
from muniment_services.domain.registered_model import (
    KIND,
    ModelCommand,
    RegisteredModel,
    envelope,
    require,
    require_version,
)
from muniment_services.domain.registry_names import (
    PROMPT_TAG,
    check_alias,
    check_model_name,
    check_model_tag,
    check_new_alias,
    check_new_name,
    is_prompt,
)
from muniment_services.domain.review import Target


class CreateRegisteredModel(ModelCommand, frozen=True, kw_only=True):
    """Create a registered model, or with the prompt tag a prompt."""

    description: str | None = None
    tags: tuple[tuple[str, str], ...] = ()


class UpdateRegisteredModel(ModelCommand, frozen=True, kw_only=True):
    """Replace the description."""

    description: str | None


class RenameRegisteredModel(ModelCommand, frozen=True, kw_only=True):
    """Give the model and all its versions another name."""

    new_name: str


class DeleteRegisteredModel(ModelCommand, frozen=True, kw_only=True):
    """Delete the model with versions, tags and aliases."""


class SetRegisteredModelTag(ModelCommand, frozen=True, kw_only=True):
    """Set one tag."""

    key: str
    value: str


class DeleteRegisteredModelTag(ModelCommand, frozen=True, kw_only=True):
    """Remove one tag."""

    key: str


class SetAlias(ModelCommand, frozen=True, kw_only=True):
    """Point an alias at a version, wherever it pointed before."""

    alias: str
    version: str

    def further_needs(self, world: World) -> tuple[AggregateKey, ...]:
        """The run that the version comes from."""
        return origins_of_version(world, self.name, self.version)


class DeleteAlias(ModelCommand, frozen=True, kw_only=True):
    """Remove an alias."""

    alias: str


def create(
    world: World, command: CreateRegisteredModel, context: Context
) -> e.RegisteredModelCreated:
    """Raises Invalid for name or tags, AlreadyExists when the name is taken."""
    check_model_name(command.name)
    for key, value in command.tags:
        check_model_tag(key, value)
    tags = dict(command.tags)
    holder = world.taken(KIND, command.name)
    if holder is not None:
        assert isinstance(holder, RegisteredModel)
        raise _taken(holder, by_prompt=PROMPT_TAG in tags)
    model_id = context.new_id(context.now_ms)
    return e.RegisteredModelCreated(
        envelope=context.envelope(e.RegisteredModelCreated, model_id, expected_version=0),
        name=command.name,
        description=command.description,
        tags=tags,
    )


def _taken(holder: RegisteredModel, by_prompt: bool) -> AlreadyExists:
    old = "Prompt" if PROMPT_TAG in holder.tags else "Registered Model"
    new = "Prompt" if by_prompt else "Registered Model"
    if old == new:
        return AlreadyExists(f"{new} (name={holder.name}) already exists.")
    return AlreadyExists(
        f"Tried to create a {new.lower()} with name {holder.name!r}, but the name is already taken "
        f"by a {old.lower()}. MLflow does not allow creating a model and a prompt with the same "
        "name."
    )


def update(
    world: World, command: UpdateRegisteredModel, context: Context
) -> e.RegisteredModelUpdated:
    """Raises NotFound."""
    model = require(world, command.name)
    return e.RegisteredModelUpdated(
        envelope=envelope(context, e.RegisteredModelUpdated, model),
        description=command.description,
        previous_description=model.description,
    )


def rename(
    world: World, command: RenameRegisteredModel, context: Context
) -> e.RegisteredModelRenamed:
    """Raises Invalid for the new name, NotFound, Held, AlreadyExists for a taken name."""
    check_new_name(command.new_name)
    model = require(world, command.name)
    holder = world.taken(KIND, command.new_name)
    if holder is not None and holder is not model:
        raise AlreadyExists(
            f"Registered Model (name={command.new_name}) already exists. Error: the name is taken "
            "by another model or prompt."
        )
    if command.new_name != model.name:
        hold.refuse(hold.on_model(world, model), f"The model {model.name}")
    if escaped := escapes(world, model, command.new_name):
        raise ReviewRequired(
            f"Another name would take the model out of the policy {', '.join(escaped)}, or lead "
            "clients to what is promoted under a name that it was not approved for. Take the "
            "versions out of the stages and aliases that the policy guards, or change it, first."
        )
    return e.RegisteredModelRenamed(
        envelope=envelope(context, e.RegisteredModelRenamed, model),
        name=command.new_name,
        previous_name=model.name,
    )


def delete(
    world: World, command: DeleteRegisteredModel, context: Context
) -> e.RegisteredModelDeleted:
    """Raises NotFound, Held."""
    model = require(world, command.name)
    hold.refuse(hold.on_model(world, model), f"The model {model.name}")
    return e.RegisteredModelDeleted(
        envelope=envelope(context, e.RegisteredModelDeleted, model),
        name=model.name,
        versions=tuple(model.versions),
    )


def set_tag(
    world: World, command: SetRegisteredModelTag, context: Context
) -> e.RegisteredModelTagSet:
    """Raises Invalid for the tag, or one that makes a prompt of a model or ends that; NotFound."""
    check_model_name(command.name)
    check_model_tag(command.key, command.value)
    model = require(world, command.name)
    _check_kind(model, {**model.tags, command.key: command.value})
    return e.RegisteredModelTagSet(
        envelope=envelope(context, e.RegisteredModelTagSet, model),
        key=command.key,
        value=command.value,
        previous_value=model.tags.get(command.key),
    )


def delete_tag(
    world: World, command: DeleteRegisteredModelTag, context: Context
) -> e.RegisteredModelTagDeleted | None:
    """None when there is no such tag. Raises what `set_tag` raises."""
    check_model_name(command.name)
    check_key(command.key, "key")
    model = require(world, command.name)
    if command.key not in model.tags:
        return None
    _check_kind(model, {k: v for k, v in model.tags.items() if k != command.key})
    return e.RegisteredModelTagDeleted(
        envelope=envelope(context, e.RegisteredModelTagDeleted, model),
        key=command.key,
        previous_value=model.tags[command.key],
    )


def _check_kind(model: RegisteredModel, tags: Mapping[str, str]) -> None:
    # Grants are on one kind or the other: what is a prompt would change hands by a tag.
    if is_prompt(tags) != is_prompt(model.tags):
        kind = "prompt" if is_prompt(model.tags) else "registered model"
        raise Invalid(
            f"{model.name!r} is a {kind} and stays one: the tag {PROMPT_TAG!r} says so from its "
            "creation on. Create the other under a name of its own."
        )


def set_alias(world: World, command: SetAlias, context: Context) -> e.AliasSet | None:
    """None when it points there already. Raises Invalid for the alias, NotFound."""
    check_model_name(command.name)
    check_new_alias(command.alias)
    model, version = require_version(world, command.name, command.version)
    previous = model.aliases.get(command.alias)
    if previous == version.version:
        return None
    target = Target(ALIAS, command.alias)
    require_unguarded(world, model, version, target, context)
    return e.AliasSet(
        envelope=envelope(context, e.AliasSet, model),
        alias=command.alias,
        version=version.version,
        previous_version=previous,
        decided_under=decided_under(world, model, target, archives=False),
    )


def delete_alias(world: World, command: DeleteAlias, context: Context) -> e.AliasDeleted | None:
    """None when there is no such alias. Raises Invalid for the alias, NotFound for the model."""
    check_model_name(command.name)
    check_alias(command.alias)
    model = require(world, command.name)
    if command.alias not in model.aliases:
        return None
    return e.AliasDeleted(
        envelope=envelope(context, e.AliasDeleted, model),
        alias=command.alias,
        previous_version=model.aliases[command.alias],
    )

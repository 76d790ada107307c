"""Events of the catalog topic: all that needs one total order (schemas, principals, experiments,
registered models). What each field means stands in `avro/`.
"""

from __future__ import annotations

from typing import ClassVar

import msgspec

from muniment_schemas.envelope import CATALOG, Event


class ArchivedVersion(msgspec.Struct, frozen=True, kw_only=True):
    """A version that the same decision archived."""

    version: int
    from_stage: str


class VersionAuthor(msgspec.Struct, frozen=True, kw_only=True):
    """Who registered a version, and through whom."""

    principal_id: str
    delegation: tuple[str, ...] = ()


class DecidedUnder(msgspec.Struct, frozen=True, kw_only=True):
    """Which promotion policies a move was decided under: the events that laid them down."""

    policy_events: tuple[str, ...]


class SchemaPublished(Event, frozen=True, kw_only=True):
    """A schema that events of this log may be written with.

    Written once per schema, so that the log explains itself.
    """

    TOPIC: ClassVar[str] = CATALOG
    AGGREGATE: ClassVar[str] = "schema"
    fingerprint: str
    event_type: str
    event_version: int
    schema_json: str


class SchemaRegistered(Event, frozen=True, kw_only=True):
    """What an id of a schema registry means in this log. The first word on an id counts."""

    TOPIC: ClassVar[str] = CATALOG
    AGGREGATE: ClassVar[str] = "schema_id"
    registry_id: int
    fingerprint: str
    registry: str
    subject: str


class PrincipalRegistered(Event, frozen=True, kw_only=True):
    """A principal was seen for the first time, or its details changed.

    The only event that says who a principal is.
    """

    TOPIC: ClassVar[str] = CATALOG
    AGGREGATE: ClassVar[str] = "principal"
    principal_kind: str
    key_id: str
    identity_sealed: bytes


class SignInNoted(Event, frozen=True, kw_only=True):
    """What an identity provider said of a principal that signed in."""

    TOPIC: ClassVar[str] = CATALOG
    AGGREGATE: ClassVar[str] = "principal"
    groups: tuple[str, ...]
    groups_unknown: str | None = None
    claims: dict[str, tuple[str, ...]]
    vouched_at_ms: int


class ExperimentCreated(Event, frozen=True, kw_only=True):
    """An experiment was created."""

    TOPIC: ClassVar[str] = CATALOG
    AGGREGATE: ClassVar[str] = "experiment"
    name: str
    artifact_location: str
    tags: dict[str, str]


class ExperimentRenamed(Event, frozen=True, kw_only=True):
    """An experiment got another name."""

    TOPIC: ClassVar[str] = CATALOG
    AGGREGATE: ClassVar[str] = "experiment"
    name: str
    previous_name: str


class ExperimentDeleted(Event, frozen=True, kw_only=True):
    """An experiment was moved to the deleted stage, and its runs with it."""

    TOPIC: ClassVar[str] = CATALOG
    AGGREGATE: ClassVar[str] = "experiment"


class ExperimentRestored(Event, frozen=True, kw_only=True):
    """A deleted experiment was made active again, and its runs with it."""

    TOPIC: ClassVar[str] = CATALOG
    AGGREGATE: ClassVar[str] = "experiment"


class ExperimentTagSet(Event, frozen=True, kw_only=True):
    """A tag of an experiment was set."""

    TOPIC: ClassVar[str] = CATALOG
    AGGREGATE: ClassVar[str] = "experiment"
    key: str
    value: str
    previous_value: str | None = None


class ExperimentTagDeleted(Event, frozen=True, kw_only=True):
    """A tag of an experiment was removed."""

    TOPIC: ClassVar[str] = CATALOG
    AGGREGATE: ClassVar[str] = "experiment"
    key: str
    previous_value: str


class RegisteredModelCreated(Event, frozen=True, kw_only=True):
    """A registered model (or a prompt) was created."""

    TOPIC: ClassVar[str] = CATALOG
    AGGREGATE: ClassVar[str] = "registered_model"
    name: str
    description: str | None = None
    tags: dict[str, str]


class RegisteredModelUpdated(Event, frozen=True, kw_only=True):
    """The description of a registered model was changed."""

    TOPIC: ClassVar[str] = CATALOG
    AGGREGATE: ClassVar[str] = "registered_model"
    description: str | None = None
    previous_description: str | None = None


class RegisteredModelRenamed(Event, frozen=True, kw_only=True):
    """A registered model and all its versions got another name."""

    TOPIC: ClassVar[str] = CATALOG
    AGGREGATE: ClassVar[str] = "registered_model"
    name: str
    previous_name: str


class RegisteredModelDeleted(Event, frozen=True, kw_only=True):
    """A registered model was deleted with all its versions, tags and aliases.

    Its history stays in the log.
    """

    TOPIC: ClassVar[str] = CATALOG
    AGGREGATE: ClassVar[str] = "registered_model"
    name: str
    versions: tuple[int, ...]


class RegisteredModelTagSet(Event, frozen=True, kw_only=True):
    """A tag of a registered model was set."""

    TOPIC: ClassVar[str] = CATALOG
    AGGREGATE: ClassVar[str] = "registered_model"
    key: str
    value: str
    previous_value: str | None = None


class RegisteredModelTagDeleted(Event, frozen=True, kw_only=True):
    """A tag of a registered model was removed."""

    TOPIC: ClassVar[str] = CATALOG
    AGGREGATE: ClassVar[str] = "registered_model"
    key: str
    previous_value: str


class ModelVersionCreated(Event, frozen=True, kw_only=True):
    """A version of a registered model was created."""

    TOPIC: ClassVar[str] = CATALOG
    AGGREGATE: ClassVar[str] = "registered_model"
    version: int
    source: str
    storage_location: str
    run_id: str | None = None
    run_link: str | None = None
    description: str | None = None
    tags: dict[str, str]
    logged_model_id: str | None = None
    copied_authors: tuple[VersionAuthor, ...] = ()


class ModelVersionUpdated(Event, frozen=True, kw_only=True):
    """The description of a model version was changed."""

    TOPIC: ClassVar[str] = CATALOG
    AGGREGATE: ClassVar[str] = "registered_model"
    version: int
    description: str | None = None
    previous_description: str | None = None


class StageTransitioned(Event, frozen=True, kw_only=True):
    """A model version was moved to another stage; one event, whatever else it archived."""

    TOPIC: ClassVar[str] = CATALOG
    AGGREGATE: ClassVar[str] = "registered_model"
    version: int
    from_stage: str
    to_stage: str
    archived: tuple[ArchivedVersion, ...]
    comment: str | None = None
    decided_under: DecidedUnder | None = None


class ModelVersionDeleted(Event, frozen=True, kw_only=True):
    """A model version was deleted. What it was stays in the log."""

    TOPIC: ClassVar[str] = CATALOG
    AGGREGATE: ClassVar[str] = "registered_model"
    version: int
    stage: str
    aliases: tuple[str, ...]


class ModelVersionTagSet(Event, frozen=True, kw_only=True):
    """A tag of a model version was set."""

    TOPIC: ClassVar[str] = CATALOG
    AGGREGATE: ClassVar[str] = "registered_model"
    version: int
    key: str
    value: str
    previous_value: str | None = None


class ModelVersionTagDeleted(Event, frozen=True, kw_only=True):
    """A tag of a model version was removed."""

    TOPIC: ClassVar[str] = CATALOG
    AGGREGATE: ClassVar[str] = "registered_model"
    version: int
    key: str
    previous_value: str


class AliasSet(Event, frozen=True, kw_only=True):
    """An alias was pointed at a version, or moved to another."""

    TOPIC: ClassVar[str] = CATALOG
    AGGREGATE: ClassVar[str] = "registered_model"
    alias: str
    version: int
    previous_version: int | None = None
    decided_under: DecidedUnder | None = None


class AliasDeleted(Event, frozen=True, kw_only=True):
    """An alias was removed."""

    TOPIC: ClassVar[str] = CATALOG
    AGGREGATE: ClassVar[str] = "registered_model"
    alias: str
    previous_version: int

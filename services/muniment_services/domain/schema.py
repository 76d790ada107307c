"""Schemas in the log: each is published once, so that a reader needs nothing but the log."""

from __future__ import annotations

from muniment_schemas import events as e
from muniment_services.domain.commands import AggregateKey, Command, Context, State, World

KIND = "schema"


class PublishedSchema(State, frozen=True, kw_only=True):
    """A schema that stands in the log."""

    event_type: str
    event_version: int


class PublishSchema(Command, frozen=True, kw_only=True):
    """Publish a released schema. fingerprint: CRC-64-AVRO, 16 hex digits as framed."""

    fingerprint: str
    event_type: str
    event_version: int
    schema_json: str

    def serial(self) -> AggregateKey:
        """One history."""
        return (KIND, self.fingerprint)


def publish(world: World, command: PublishSchema, context: Context) -> e.SchemaPublished | None:
    """None when it stands in the log already."""
    if world.get(KIND, command.fingerprint) is not None:
        return None
    return e.SchemaPublished(
        envelope=context.envelope(e.SchemaPublished, command.fingerprint, expected_version=0),
        fingerprint=command.fingerprint,
        event_type=command.event_type,
        event_version=command.event_version,
        schema_json=command.schema_json,
    )


def evolve(state: PublishedSchema | None, event: e.Event) -> PublishedSchema:
    """The published schema behind an event."""
    assert isinstance(event, e.SchemaPublished)
    return PublishedSchema(
        version=1 if state is None else state.version + 1,
        event_type=event.event_type,
        event_version=event.event_version,
    )

"""What ids of schema registries mean in this log.

Records in Confluent's framing name their schema by such an id. One id is one history, and means one
schema for ever: of two servers that say different things about an id, the log's order makes one
void. Another registry may give a schema a second id, or confirm the one it has.
"""

from __future__ import annotations

from muniment_schemas import events as e
from muniment_services.domain.commands import AggregateKey, Command, Context, State, World
from muniment_services.domain.errors import WrongState

KIND = "schema_id"


class SchemaId(State, frozen=True, kw_only=True):
    """An id, the schema that it means, and the registries that gave it."""

    registry_id: int
    fingerprint: str
    registries: tuple[str, ...]


class RegisterSchema(Command, frozen=True, kw_only=True):
    """Note the id that a registry gave a schema.

    fingerprint: CRC-64-AVRO, 16 hex digits as framed. registry: its URL, without credentials.
    """

    registry_id: int
    fingerprint: str
    registry: str
    subject: str

    def serial(self) -> AggregateKey:
        """One history."""
        return (KIND, str(self.registry_id))


def register(world: World, command: RegisterSchema, context: Context) -> e.SchemaRegistered | None:
    """None when the log says so already. WrongState when the id means another schema."""
    found = world.get(KIND, str(command.registry_id))
    assert found is None or isinstance(found, SchemaId)
    if found is not None and found.fingerprint != command.fingerprint:
        raise WrongState(
            f"The registry at {command.registry} gives {command.subject} the id "
            f"{command.registry_id}, which in this log means another schema since the registry at "
            f"{found.registries[0]} gave it. Records could not be told apart. Bring the schemas "
            "of that registry into the new one with their ids, and start again."
        )
    if found is not None and command.registry in found.registries:
        return None
    return e.SchemaRegistered(
        envelope=context.envelope(
            e.SchemaRegistered,
            str(command.registry_id),
            expected_version=0 if found is None else found.version,
        ),
        registry_id=command.registry_id,
        fingerprint=command.fingerprint,
        registry=command.registry,
        subject=command.subject,
    )


def evolve(state: SchemaId | None, event: e.Event) -> SchemaId:
    """The id behind an event."""
    assert isinstance(event, e.SchemaRegistered)
    return SchemaId(
        version=1 if state is None else state.version + 1,
        registry_id=event.registry_id,
        fingerprint=event.fingerprint if state is None else state.fingerprint,
        registries=(*(state.registries if state is not None else ()), event.registry),
    )

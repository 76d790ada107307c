"""A Confluent-compatible schema registry, for the consumers that look schemas up there.

The life of a start with one:
1. Every released schema is looked up under its subject, `<topic>-<full name of the record>`
   (TopicRecordNameStrategy: a topic holds many types). In a later start that is all.
2. The subjects of those that are missing are set to FULL_TRANSITIVE, the registry is asked whether
   it would take each, and only when it would take all is the first one registered.
3. Every id that the log does not know of this registry is written to the catalog
   (`SchemaRegistered`). A registry whose ids mean something else in this log is refused.
4. From then on records are framed with ids. The registry is not asked again: it may be down, also
   at a later start of the same release.

    RegistryError (a ConfigError)
    ├── RegistryUnavailable   it does not answer, or is no registry
    └── RegistryRefused       it does not take our schemas, or its ids cannot be used in this log
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import httpx
import structlog

from muniment_schemas.framing import ALWAYS_SINGLE_OBJECT, SCHEMA_ID_MAX, Confluent
from muniment_schemas.subjects import Schemas, Subject
from muniment_services.config import ConfigError
from muniment_services.domain.commands import Command, State
from muniment_services.domain.errors import WrongState
from muniment_services.domain.schema_id import RegisterSchema, SchemaId

COMPATIBILITY = "FULL_TRANSITIVE"
"""What the registry shall hold later versions to: the rule that our own tests hold them to."""

CALL_S = 10.0
"""How long the registry may take to answer one request."""

PASSING = frozenset({409, 429, 500, 502, 503, 504})
"""Statuses that may pass: replicas that start at once get in each other's way in some registries.
All our calls can be repeated."""

PAUSES_S = (0.2, 0.5, 1.0, 2.0)
"""Between tries after such a status."""

MEDIA_TYPE = "application/vnd.schemaregistry.v1+json"

NOT_FOUND = frozenset({40401, 40402, 40403})
"""`error_code` of an answer 404 that speaks of a subject, a version or a schema."""

REASON_CHARS_MAX = 500

Submit = Callable[[Command], Awaitable[object]]
"""Decides a command and returns when its event is in the log and folded."""

_log = structlog.get_logger("muniment.registry")


class RegistryError(ConfigError):
    """The setting schema_registry cannot be followed; the server does not start."""


class RegistryUnavailable(RegistryError):
    """Nothing that speaks as a registry answers at the URL."""

    def __init__(self, url: str, reason: str) -> None:
        super().__init__(
            f"The schema registry at {url} cannot be used: {reason}. Check schema_registry; it is "
            "the URL below which /subjects is (Apicurio: …/apis/ccompat/v7)."
        )


class RegistryRefused(RegistryError):
    """The registry takes a schema of ours not, or its ids mean other schemas in this log."""


@dataclass(frozen=True, slots=True)
class _Wanted:
    """A schema, and the subject that it shall be registered under."""

    name: str
    subject: Subject

    @property
    def fingerprint(self) -> bytes:
        return self.subject.fingerprint

    @property
    def body(self) -> Mapping[str, str]:
        return {"schema": self.subject.schema_json}


async def confluent(
    url: str,
    topic_of: Callable[[str], str],
    schemas: Schemas,
    known: Iterable[State],
    submit: Submit,
) -> Confluent:
    """The framing of a server with a registry: all schemas registered, all ids in the log.

    url: of the registry, with credentials if it wants any. topic_of: a topic of ours to its name on
    Kafka. known: the log's SchemaId states. Raises RegistryError, and what `submit` raises.
    """
    registry = without_credentials(url)
    logged = _logged(registry, known)
    wanted = [
        _Wanted(subject_name(subject, topic_of), subject)
        for subject in schemas.by_version.values()
        if subject.event_type not in ALWAYS_SINGLE_OBJECT
    ]
    try:
        ids = await _registered(url, wanted)
    except RegistryUnavailable as error:
        if any(schema.fingerprint not in logged for schema in wanted):
            raise
        _log.warning("the log knows all schema ids; going on without the registry", why=str(error))
        return Confluent(logged)
    for schema in wanted:
        try:
            await submit(
                RegisterSchema(
                    registry_id=ids[schema.fingerprint],
                    fingerprint=schema.fingerprint.hex(),
                    registry=registry,
                    subject=schema.name,
                )
            )
        except WrongState as error:
            raise RegistryRefused(error.message) from error
    return Confluent(ids)


def subject_name(subject: Subject, topic_of: Callable[[str], str]) -> str:
    """What a schema is registered under: topic and full name, one history per type."""
    topic = topic_of(subject.raw["muniment"]["topic"])
    return f"{topic}-{subject.raw['namespace']}.{subject.raw['name']}"


def without_credentials(url: str) -> str:
    """The URL as it may stand in the log and in messages, without a slash at its end."""
    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL as error:
        raise RegistryError(f"schema_registry is not a URL: {error}") from error
    return str(parsed.copy_with(userinfo=b"")).rstrip("/")


def _logged(registry: str, known: Iterable[State]) -> dict[bytes, int]:
    states = [s for s in known if isinstance(s, SchemaId) and registry in s.registries]
    return {bytes.fromhex(state.fingerprint): state.registry_id for state in states}


async def _registered(url: str, wanted: Sequence[_Wanted]) -> dict[bytes, int]:
    # Fingerprint to id. Nothing is registered unless everything would be taken.
    async with httpx.AsyncClient(timeout=CALL_S, headers={"content-type": MEDIA_TYPE}) as client:
        registry = _Registry(url, client)
        ids = {schema.fingerprint: await registry.look_up(schema) for schema in wanted}
        missing = [schema for schema in wanted if ids[schema.fingerprint] is None]
        for name in dict.fromkeys(schema.name for schema in missing):
            await registry.set_compatibility(name)
        for schema in missing:
            await registry.refuse_incompatible(schema)
        new = {schema.fingerprint: await registry.register(schema) for schema in missing}
    return {
        fingerprint: new[fingerprint] if schema_id is None else schema_id
        for fingerprint, schema_id in ids.items()
    }


class _Registry:
    """The few calls of the registry's API that we need. Each raises RegistryError."""

    def __init__(self, url: str, client: httpx.AsyncClient) -> None:
        self._base = url.rstrip("/")
        self._shown = without_credentials(url)
        self._client = client

    async def look_up(self, schema: _Wanted) -> int | None:
        """The id of a schema under its subject; None when it is not registered there."""
        answer = await self._call("POST", f"/subjects/{schema.name}", schema.body, absent=True)
        return None if answer is None else self._id(answer)

    async def set_compatibility(self, name: str) -> None:
        """Hold versions of a subject to COMPATIBILITY from now on."""
        await self._call("PUT", f"/config/{name}", {"compatibility": COMPATIBILITY})

    async def refuse_incompatible(self, schema: _Wanted) -> None:
        """Raise RegistryRefused when the subject has versions that the schema does not suit."""
        path = f"/compatibility/subjects/{schema.name}/versions?verbose=true"
        answer = await self._call("POST", path, schema.body, absent=True)
        if answer is None or answer.get("is_compatible") is True:
            return
        reason = "; ".join(str(message) for message in answer.get("messages") or ())
        raise RegistryRefused(
            f"The schema registry at {self._shown} would refuse {schema.subject.file_name} under "
            f"{schema.name}: {reason or 'it is not compatible with the versions there'}. Nothing "
            "was registered. If another program registered something else under that subject, "
            "remove it, or choose another kafka_prefix."
        )

    async def register(self, schema: _Wanted) -> int:
        """Register a schema, or find it registered by then; its id."""
        answer = await self._call("POST", f"/subjects/{schema.name}/versions", schema.body)
        assert answer is not None
        return self._id(answer)

    async def _call(
        self, method: str, path: str, body: Mapping[str, str], absent: bool = False
    ) -> dict[str, Any] | None:
        # None: the registry says that there is no such thing, which `absent` allows.
        for pause_s in (*PAUSES_S, None):
            answer = await self._answer(method, path, body)
            found = _json(answer)
            if answer.is_success and found is not None:
                return found
            if absent and found is not None and found.get("error_code") in NOT_FOUND:
                return None
            if answer.status_code not in PASSING or pause_s is None:
                break
            await asyncio.sleep(pause_s)
        said = str(found.get("message", "")) if found is not None else answer.text
        what = f"{method} {path} answers {answer.status_code} {said[:REASON_CHARS_MAX]}".strip()
        if answer.status_code in (409, 422) and found is not None:
            raise RegistryRefused(f"The schema registry at {self._shown} refuses us: {what}")
        raise self._unavailable(what)

    async def _answer(self, method: str, path: str, body: Mapping[str, str]) -> httpx.Response:
        try:
            return await self._client.request(method, self._base + path, json=body)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise self._unavailable(str(error) or type(error).__name__) from error

    def _id(self, answer: Mapping[str, Any]) -> int:
        schema_id = answer.get("id")
        if not isinstance(schema_id, int) or not 0 <= schema_id <= SCHEMA_ID_MAX:
            raise self._unavailable(f"it answers the id {schema_id!r}")
        return schema_id

    def _unavailable(self, reason: str) -> RegistryUnavailable:
        return RegistryUnavailable(self._shown, reason)


def _json(answer: httpx.Response) -> dict[str, Any] | None:
    try:
        found = answer.json()
    except ValueError:
        return None
    return found if isinstance(found, dict) else None

"""Wiring: the place that makes the objects of a server of its settings.

Start: open the log, bring the projections up to its end, take current state from them, follow the
log. Stop: finish what was accepted, write the projections, release everything.
"""

from __future__ import annotations

import asyncio
import getpass
import os
import sys
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import duckdb
import structlog

from muniment_auth.authenticate import Authenticator
from muniment_auth.credentials import Credentials
from muniment_auth.errors import AuthError
from muniment_auth.identity import KeyPlace, shared_key
from muniment_auth.principal import Principal, local_principal
from muniment_projections.activities.apply import ActivitiesProjection
from muniment_projections.artifacts.apply import ArtifactsProjection
from muniment_projections.audit.apply import AuditProjection
from muniment_projections.base import Projection
from muniment_projections.catalog.apply import CatalogProjection
from muniment_projections.experiments.apply import ExperimentsProjection
from muniment_projections.logged_models.apply import LoggedModelsProjection
from muniment_projections.metrics.apply import MetricsProjection
from muniment_projections.quarantine.apply import QuarantineProjection
from muniment_projections.registry.apply import RegistryProjection
from muniment_projections.requests.apply import RequestsProjection
from muniment_projections.runner import Runner
from muniment_projections.runs.apply import RunsProjection
from muniment_projections.store import LAYOUT_VERSION, Store, is_damage
from muniment_projections.traces.apply import TracesProjection
from muniment_schemas.codec import Codec
from muniment_schemas.envelope import WORKSPACE_DEFAULT, Actor
from muniment_schemas.subjects import Schemas
from muniment_services import access_file, documents, instance, schema_registry
from muniment_services.accesses import Accesses
from muniment_services.api.app import ROUTES
from muniment_services.api.callers import Callers, LocalCallers, SignedInCallers
from muniment_services.api.recording import Recording
from muniment_services.api.services import BrowserLogin, Services
from muniment_services.artifacts.opening import open_artifacts
from muniment_services.audit_levels import Levels
from muniment_services.browser_login import open_browser_login
from muniment_services.clients import Proxies
from muniment_services.clock import now_ms
from muniment_services.config import ConfigError, Settings
from muniment_services.domain.commands import AggregateKey, Command, State
from muniment_services.domain.credential import KIND as CREDENTIAL
from muniment_services.domain.credential import Credential
from muniment_services.domain.errors import AlreadyExists
from muniment_services.domain.experiment import DEFAULT_ID, DEFAULT_NAME, CreateExperiment
from muniment_services.domain.experiment import KIND as EXPERIMENT
from muniment_services.domain.schema import KIND as SCHEMA
from muniment_services.domain.schema import PublishSchema
from muniment_services.domain.schema_id import KIND as SCHEMA_ID
from muniment_services.erasures import Erasures
from muniment_services.fold import Fold, Load
from muniment_services.identities import Identities
from muniment_services.keys import TRAIL_KEY, open_keys
from muniment_services.log.base import EventLog, LogReader
from muniment_services.log.opening import open_log
from muniment_services.metrics import Metrics
from muniment_services.projection_files import remove, settle
from muniment_services.proof.opening import cosigning, proving, witness_policy
from muniment_services.quarantine import Reports
from muniment_services.rebuild import CatchUp, Ends, open_store, open_within
from muniment_services.rebuilder import Rebuilder
from muniment_services.redaction import Redaction
from muniment_services.release import release
from muniment_services.schema_ids import LoggedSchemaIds
from muniment_services.sensitive import Edge
from muniment_services.snapshot import open_shelf
from muniment_services.snapshot_restore import restore_newest_if_empty
from muniment_services.snapshotter import Maker, Snapshotter
from muniment_services.sql.analysts import Analysts
from muniment_services.startup import CATCHING_UP, Startup
from muniment_services.state import CurrentState
from muniment_services.trail import Trail
from muniment_services.write import Caller, Writer

ARTIFACT_ROOT = "mlflow-artifacts:"
BUILDER_MODULE = "muniment_services.cli.build"

SYSTEM = Actor(principal_id="system", auth_method="system")
"""The server itself, as the actor of what it does unasked."""

_log = structlog.get_logger("muniment")


def projections() -> tuple[Projection, ...]:
    """All projections, in the order in which they are written."""
    return (
        CatalogProjection(),
        ExperimentsProjection(),
        RegistryProjection(),
        RunsProjection(),
        MetricsProjection(),
        LoggedModelsProjection(),
        TracesProjection(),
        ArtifactsProjection(),
        RequestsProjection(),
        QuarantineProjection(),
        ActivitiesProjection(),
        AuditProjection(),
    )


def codec(log: LogReader) -> Codec:
    """The codec over all released schemas, for a log that is started before it decodes."""
    schemas = Schemas.load()
    return Codec(schemas, ids=LoggedSchemaIds(log, schemas))


def local_user() -> Principal:
    """The principal of a server without an identity provider.

    In a container the user may have a number only.
    """
    try:
        name = getpass.getuser()
    except (KeyError, OSError):
        name = f"uid-{os.getuid()}"
    return local_principal(name)


def authenticator(settings: Settings) -> Authenticator | None:
    """What verifies callers' tokens; None where nobody has to sign in."""
    issuers = settings.all_issuers()
    return Authenticator(issuers) if issuers else None


def callers(verifier: Authenticator | None) -> Callers:
    """Who may call: everyone as the local user, or whoever an issuer vouches for."""
    return LocalCallers(local_user()) if verifier is None else SignedInCallers(verifier)


def admin_groups(settings: Settings) -> Iterator[tuple[str, str]]:
    """(issuer, group) whose members are admins by configuration."""
    for issuer in settings.all_issuers():
        if issuer.admin_group is not None:
            yield issuer.url, issuer.admin_group


@asynccontextmanager
async def services(
    settings: Settings,
    startup: Startup | None = None,
    metrics: Metrics | None = None,
    verifier: Authenticator | None = None,
) -> AsyncIterator[Services]:
    """The running application: log, fold, projections and write path, started and stopped.

    verifier: what verifies callers' tokens, which logins by browser use too.

    Raises FolderInUse, LogUnavailable, LogCorrupt, and Stopped when `startup` was told to stop.
    """
    with instance.held(settings.data_dir):
        async with _services(settings, startup or Startup(), metrics, verifier) as started:
            yield started


@asynccontextmanager
async def _services(
    settings: Settings,
    startup: Startup,
    metrics: Metrics | None,
    verifier: Authenticator | None,
) -> AsyncIterator[Services]:
    witnesses = witness_policy(settings)
    entries = _entries(settings, verifier)
    log, events, store = await _opened(settings, startup)
    artifacts = open_artifacts(settings)
    await artifacts.start()
    runner = Runner(store)
    state = documents.current_state(store)
    fold = Fold(log, events, state, runner, _loader(runner), now_ms, metrics)
    writer = Writer(log, events, fold, runner, now_ms, os.urandom)
    rebuilder = _rebuilder(log, events, fold, runner, settings)
    snapshotter = _snapshotter(runner, settings)
    analysts = Analysts(settings.data_dir)
    reports = Reports(log, events, fold, SYSTEM, release(), now_ms, os.urandom)
    runner.start()
    fold.start()
    reports.start()
    snapshotter.start_looking()
    try:
        place = open_keys(settings)
        identities = Identities(
            place, fold, lambda command: _submit(writer, command), now_ms, os.urandom
        )
        erasures = Erasures(place, fold, lambda command: _submit(writer, command), now_ms)
        await _first_events(events, writer, state, identities)
        await erasures.finish()
        framed = await _registered(settings, events, writer, state)
        key = await asyncio.to_thread(shared_key, place, TRAIL_KEY, os.urandom)
        redact = Edge(Redaction(settings.logged_sensitive(), key))
        writer = Writer(log, framed, fold, runner, now_ms, os.urandom, redact)
        await access_file.apply(entries, lambda command: _submit(writer, command), now_ms())
        async with (
            _trail(settings, fold, framed, runner, identities, key, metrics) as trail,
            proving(log, events, place, settings, SYSTEM) as prover,
            cosigning(prover, witnesses) as cosigner,
        ):
            yield Services(
                writer=writer,
                fold=fold,
                runner=runner,
                rebuilder=rebuilder,
                artifact_root=ARTIFACT_ROOT,
                artifacts=artifacts,
                snapshotter=snapshotter,
                identities=identities,
                erasures=erasures,
                credentials=_credentials(fold, identities, settings),
                projections=tuple(projection.name for projection in projections()),
                stale_reads=settings.stale_reads,
                browser=await _browser_login(settings, verifier, place),
                accesses=Accesses(fold, admin_groups(settings)),
                trail=trail,
                analysts=analysts,
                now_ms=now_ms,
                admin_groups=tuple(admin_groups(settings)),
                prover=prover,
                cosigner=cosigner,
            )
    finally:
        for task in (rebuilder, snapshotter, reports, log):
            await task.close()
        await fold.stop()
        await runner.close()
        await analysts.close()
        settle(settings.data_dir)


def _entries(settings: Settings, verifier: Authenticator | None) -> tuple[access_file.Entry, ...]:
    """What the access file has a server begin with; all of it can be held here."""
    entries = () if settings.access_file is None else access_file.read(settings.access_file)
    issuers = settings.all_issuers() if verifier is None else verifier.issuers
    access_file.check_holders(entries, [issuer.url for issuer in issuers])
    return entries


async def _opened(settings: Settings, startup: Startup) -> tuple[EventLog, Codec, Store]:
    """The log, what decodes it, and projections that hold all that was in it."""
    log = open_log(settings)
    await log.start()
    events = codec(log)
    try:
        ends = await log.end_offsets()
        store = await asyncio.to_thread(_caught_up_store, log, events, settings, ends, startup)
    except BaseException:
        await log.close()
        raise
    return log, events, store


@asynccontextmanager
async def _trail(
    settings: Settings,
    fold: Fold,
    events: Codec,
    runner: Runner,
    identities: Identities,
    key: bytes,
    metrics: Metrics | None,
) -> AsyncIterator[Trail]:
    redaction = Redaction(settings.recorded_sensitive(), key)
    degraded = settings.audit_mode == "degraded"
    trail = Trail(
        fold, events, runner, identities, redaction, SYSTEM, now_ms, metrics, degraded, os.urandom
    )
    trail.start()
    try:
        yield trail
    finally:
        await trail.close()


def recording(settings: Settings) -> Recording:
    """What the trail is told of requests. Raises ConfigError for rules that leave out too much."""
    levels = Levels(rule.rule() for rule in settings.audit_rules)
    kept = levels.left_out_wrongly((route.path, route.permission) for route in ROUTES)
    if kept:
        raise ConfigError(
            f"audit_rules leave out {kept[0]} and {len(kept) - 1} other routes that are always "
            "recorded: sign-ins, artifacts, the registry, access and the trail itself. Say "
            "`metadata` for them, or name other routes."
        )
    return Recording(levels, Proxies(settings.trusted_proxies))


def _snapshotter(runner: Runner, settings: Settings) -> Snapshotter:
    maker = Maker(settings.data_dir, lambda: open_shelf(settings), release(), now_ms, os.urandom)
    return Snapshotter(runner, maker)


def _rebuilder(
    log: EventLog, events: Codec, fold: Fold, runner: Runner, settings: Settings
) -> Rebuilder:
    return Rebuilder(
        log,
        events,
        fold,
        runner,
        settings.data_dir,
        lambda path: projections_store(path, settings),
        lambda path: (sys.executable, "-m", BUILDER_MODULE, str(path)),
        settings.for_a_process_of_ours(),
        now_ms,
    )


async def _browser_login(
    settings: Settings, verifier: Authenticator | None, place: KeyPlace
) -> BrowserLogin | None:
    if verifier is None:
        return None
    public_url = settings.public_url or f"http://{settings.host}:{settings.port}"
    return await open_browser_login(
        verifier, verifier.issuers, public_url, place, now_ms, os.urandom, (AuthError,)
    )


def projections_store(path: Path, settings: Settings) -> Store:
    """The projections' database at a path, opened or created."""
    return open_store(path, projections(), settings.projections_memory)


def _caught_up_store(
    log: EventLog, events: Codec, settings: Settings, ends: Ends, startup: Startup
) -> Store:
    path = settle(settings.data_dir)
    restore_newest_if_empty(settings, log.log_id, LAYOUT_VERSION, startup)
    store = open_within(path, lambda at: projections_store(at, settings), ends, log.log_id)
    try:
        _catch_up(log, events, store, ends, startup)
    except duckdb.Error as error:
        store.close()
        if not is_damage(error):
            raise
        _log.warning("projections are damaged and are built anew", reason=str(error))
        remove(path)
        store = projections_store(path, settings)
        store.belong_to(log.log_id)
        _catch_up(log, events, store, ends, startup)
    except BaseException:
        store.close()
        raise
    return store


def _catch_up(log: EventLog, events: Codec, store: Store, ends: Ends, startup: Startup) -> None:
    rest = CatchUp(log, events, store)
    startup.enter(CATCHING_UP, rest.left(ends))
    rest.run(ends, startup.advance)


def _loader(runner: Runner) -> Load:
    async def load(keys: Sequence[AggregateKey]) -> Mapping[AggregateKey, State]:
        return await runner.read(lambda connection: documents.find(connection, keys))

    return load


def _credentials(fold: Fold, identities: Identities, settings: Settings) -> Credentials:
    def find(credential_id: str) -> Credential | None:
        found = fold.state.get(CREDENTIAL, credential_id)
        assert found is None or isinstance(found, Credential)
        return found

    return Credentials(
        find,
        identities.subject_and_name,
        settings.public_url,
        identities.latest_sign_in,
        settings.token_groups_days,
    )


async def _first_events(
    events: Codec, writer: Writer, state: CurrentState, identities: Identities
) -> None:
    # What a fresh log begins with: the schemas, the local user and MLflow's Default experiment.
    # On a later start there is nothing to do, or just the schemas of a newer release.
    commands: list[Command] = [
        PublishSchema(
            fingerprint=subject.fingerprint.hex(),
            event_type=subject.event_type,
            event_version=subject.version,
            schema_json=subject.schema_json,
        )
        for subject in events.schemas.by_version.values()
        if state.get(SCHEMA, subject.fingerprint.hex()) is None
    ]
    if state.get(EXPERIMENT, DEFAULT_ID) is None:
        commands.append(
            CreateExperiment(
                name=DEFAULT_NAME,
                artifact_location=None,
                artifact_root=ARTIFACT_ROOT,
                experiment_id=DEFAULT_ID,
            )
        )
    await asyncio.gather(
        identities.register_once(local_user()),
        *(_submit_unless_there(writer, command) for command in commands),
    )


async def _submit_unless_there(writer: Writer, command: Command) -> None:
    with suppress(AlreadyExists):  # Another replica, starting at the same time, was quicker.
        await _submit(writer, command)


async def _submit(writer: Writer, command: Command) -> None:
    caller = Caller(actor=SYSTEM, request_id="start", workspace=WORKSPACE_DEFAULT)
    await writer.submit(caller, command, lambda _: b"")


async def _registered(
    settings: Settings, events: Codec, writer: Writer, state: CurrentState
) -> Codec:
    # With a schema registry, a codec that writes what its consumers read; all ids are in the log.
    if settings.schema_registry is None:
        return events
    framing = await schema_registry.confluent(
        settings.schema_registry,
        lambda topic: f"{settings.kafka_prefix}.{topic}",
        events.schemas,
        list(state.of_kind(SCHEMA_ID)),
        lambda command: _submit(writer, command),
    )
    return Codec(events.schemas, framing, events.ids)

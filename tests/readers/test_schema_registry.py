"""With a real schema registry: stock consumers decode, replicas start at once, it may go away."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from confluent_kafka.schema_registry import SchemaRegistryClient
from confluent_kafka.schema_registry.avro import AvroDeserializer
from confluent_kafka.serialization import MessageField, SerializationContext

from harness.brokers import fresh_prefix
from harness.registry import Registry, running_registry
from harness.replicas import Replica, digests, replica, running_replicas
from harness.server import ServerFailed, process_environment
from muniment_schemas.events import ExperimentCreated, SchemaRegistered
from muniment_schemas.framing import ALWAYS_SINGLE_OBJECT, MARKER, schema_id
from muniment_schemas.subjects import Schemas
from readers.journey import EVENT_TYPES, travel
from readers.our_reader import everything_in, fields_of, types_of

pytestmark = pytest.mark.slow

SCHEMAS = Schemas.load()
REGISTERED = [s for s in SCHEMAS.by_version.values() if s.event_type not in ALWAYS_SINGLE_OBJECT]
COMMAND_S_MAX = 60.0


class Site:
    """Two replicas that were started at once with an empty registry, and one without it."""

    def __init__(self, registry: Registry, replicas: list[Replica], kafka: str, prefix: str):
        self.registry = registry
        self.replicas = replicas
        self.kafka = kafka
        self.prefix = prefix

    def command(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """What a command of ours says of this log; it is not told of the registry."""
        variables = {"LOG": "kafka", "KAFKA_BOOTSTRAP": self.kafka, "KAFKA_PREFIX": self.prefix}
        return subprocess.run(
            [sys.executable, "-m", "muniment_services", *arguments],
            env=process_environment() | {f"MUNIMENT_{k}": v for k, v in variables.items()},
            capture_output=True,
            text=True,
            timeout=COMMAND_S_MAX,
            check=False,
        )


@pytest.fixture(scope="module")
def site(kafka: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """The site after a journey through each kind of replica."""
    folder = tmp_path_factory.mktemp("site")
    prefix = fresh_prefix()
    settings = {"log": "kafka", "kafka_bootstrap": kafka, "kafka_prefix": prefix}
    with running_registry(folder) as registry:
        told = {"MUNIMENT_SCHEMA_REGISTRY": registry.url}
        with running_replicas(folder, 3, settings, environments=[told, told, {}]) as replicas:
            for number, one in enumerate(replicas[1:]):
                travel(one.url, f"journey-{number}")
            yield Site(registry, replicas, kafka, prefix)


def name_of(prefix: str, event_type: str) -> str:
    topic = SCHEMAS.newest[event_type].raw["muniment"]["topic"]
    return f"{prefix}.{topic}-muniment.events.{event_type}"


def test_replicas_that_start_at_once_register_every_schema_under_one_id(site: Site) -> None:
    expected = {name_of(site.prefix, subject.event_type) for subject in REGISTERED}
    assert expected == set(site.registry.get("/subjects"))
    logged = {
        event.registry_id: event.fingerprint
        for _, event in everything_in(site.kafka, site.prefix).values()
        if isinstance(event, SchemaRegistered)
    }
    for subject in REGISTERED:
        name = name_of(site.prefix, subject.event_type)
        version = site.registry.get(f"/subjects/{name}/versions/{subject.version}")
        assert logged[version["id"]] == subject.fingerprint.hex()
        assert json.loads(version["schema"]) == subject.raw
    assert len(logged) == len(REGISTERED)


def test_the_registry_refuses_what_would_break_readers(site: Site) -> None:
    raw = SCHEMAS.newest["RunTagDeleted"].raw
    field = {"name": "reason", "type": ["null", "string"], "default": None}
    optional = raw | {"fields": [*raw["fields"], field]}
    required = raw | {"fields": [*raw["fields"], {"name": "reason", "type": "string"}]}
    name = name_of(site.prefix, "RunTagDeleted")
    assert site.registry.get(f"/config/{name}")["compatibilityLevel"] == "FULL_TRANSITIVE"
    assert site.registry.register(name, json.dumps(required)).status_code == 409
    assert site.registry.register(name, json.dumps(optional)).status_code == 200


def test_a_stock_consumer_decodes_what_we_wrote(site: Site) -> None:
    deserialize = AvroDeserializer(SchemaRegistryClient({"url": site.registry.url}))
    found = everything_in(site.kafka, site.prefix)
    assert set(types_of(found)) >= EVENT_TYPES
    decoded = set()
    for (topic, _, _), (record, event) in found.items():
        if schema_id(record.value) is None:
            assert record.value[:2] == MARKER
            continue
        context = SerializationContext(topic, MessageField.VALUE)
        assert deserialize(record.value, context) == fields_of(event)
        decoded.add(event.envelope.type)
    assert decoded >= EVENT_TYPES


def test_what_is_always_a_single_object_is_one_in_every_replica(site: Site) -> None:
    found = everything_in(site.kafka, site.prefix).values()
    singles = [r for r, event in found if event.envelope.type in ALWAYS_SINGLE_OBJECT]
    assert len(singles) >= len(SCHEMAS.by_version) + len(REGISTERED)
    assert all(record.value[:2] == MARKER for record in singles)


def test_a_replica_that_is_not_told_of_the_registry_folds_the_same(site: Site) -> None:
    assert digests(site.replicas)["checkpoints"]


def test_commands_read_the_log_without_the_registry(site: Site, tmp_path: Path) -> None:
    events = site.command(
        "events", "--data-dir", str(tmp_path / "new"), "--topic", "runs", "--json"
    )
    assert events.returncode == 0, events.stderr
    lines = [json.loads(line) for line in events.stdout.split("\n") if line]
    assert lines
    assert not [line for line in lines if "error" in line]
    digests(site.replicas)
    verified = site.command(
        "verify", "--no-artifacts", "--data-dir", str(site.replicas[2].data_dir)
    )
    assert verified.returncode == 0, verified.stdout + verified.stderr
    rebuilt = site.command("rebuild", "--data-dir", str(tmp_path / "new"))
    assert rebuilt.returncode == 0, rebuilt.stderr


def test_the_registry_may_go_away(site: Site) -> None:
    one = site.replicas[0]
    site.registry.stop()
    try:
        before = created(one, "without")
        assert one.stop() == 0
        one.start()
        assert "going on without the registry" in one.log
        after = created(one, "restarted without")
        digests(site.replicas)
    finally:
        site.registry.start()
    framed = {
        event.envelope.aggregate_id: schema_id(record.value)
        for record, event in everything_in(site.kafka, site.prefix).values()
        if isinstance(event, ExperimentCreated)
    }
    assert framed[before] == framed[after] is not None


def created(one: Replica, name: str) -> str:
    """The id of a new experiment."""
    status, _, answer = one.post("experiments/create", {"name": name})
    assert status == 200, answer
    return str(answer["experiment_id"])


@pytest.fixture(scope="module")
def foreign(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    """A registry in which others were first."""
    with running_registry(tmp_path_factory.mktemp("foreign")) as registry:
        for number in range(3):
            schema = {"type": "record", "name": f"Other{number}", "fields": []}
            assert registry.register(f"other-{number}", json.dumps(schema)).is_success
        yield registry


def test_a_registry_that_gives_ids_another_meaning_is_refused(
    site: Site, foreign: Registry, tmp_path: Path
) -> None:
    settings = {"log": "kafka", "kafka_bootstrap": site.kafka, "kafka_prefix": site.prefix}
    refused = started_in_vain(settings | {"schema_registry": foreign.url}, tmp_path / "data")
    assert f"The registry at {foreign.url} gives" in refused
    assert f"since the registry at {site.registry.url} gave it" in refused


def test_a_registry_that_has_something_else_under_our_subject_is_refused(
    foreign: Registry, tmp_path: Path
) -> None:
    prefix = fresh_prefix()
    field = {"name": "theirs", "type": "string"}
    schema = {"type": "record", "name": "AliasSet", "namespace": "theirs", "fields": [field]}
    name = name_of(prefix, "AliasSet")
    assert foreign.register(name, json.dumps(schema)).is_success
    settings = {"kafka_prefix": prefix, "schema_registry": foreign.url}
    refused = started_in_vain(settings, tmp_path / "data")
    assert f"would refuse AliasSet.v1.avsc under {name}" in refused
    assert [s for s in foreign.get("/subjects") if s.startswith(prefix)] == [name]


def started_in_vain(settings: dict[str, str], data_dir: Path) -> str:
    """What a replica with these settings says when it does not start."""
    one = replica(data_dir, settings, {"NO_COLOR": "1"})
    with pytest.raises(ServerFailed) as raised:
        one.start()
    assert one.server.process.returncode not in (None, 0)
    return " ".join(str(raised.value).split())

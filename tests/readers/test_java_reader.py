"""A Java program that knows nothing of us reads what we write: stock Kafka client, stock Avro."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from kafka import KafkaProducer

from harness.brokers import admin, fresh_prefix
from harness.replicas import running_replicas
from muniment_schemas import subjects
from muniment_schemas.codec import Codec
from muniment_schemas.envelope import Event
from muniment_schemas.subjects import Schemas
from muniment_services.log.base import Record
from readers.java_reader import JavaReader
from readers.journey import EVENT_TYPES, travel
from readers.our_reader import Place, everything_in, fields_of, printed, types_of

pytestmark = pytest.mark.slow

AVRO = Path(subjects.__file__).parent / "avro"
GOLDEN = Path(__file__).parents[1] / "golden" / "events"
PUBLISHING = AVRO / "SchemaPublished.v1.avsc"

Log = dict[Place, tuple[Record, Event]]


@pytest.fixture(scope="module")
def prefix(kafka: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The topics of a server that was driven by MLflow's client and has ended."""
    prefix = fresh_prefix()
    settings = {"log": "kafka", "kafka_bootstrap": kafka, "kafka_prefix": prefix}
    with running_replicas(tmp_path_factory.mktemp("server"), 1, settings) as (server,):
        travel(server.url, "journey")
    return prefix


@pytest.fixture(scope="module")
def ours(kafka: str, prefix: str) -> Log:
    """What our decoder says of it."""
    found = everything_in(kafka, prefix)
    assert set(types_of(found)) >= EVENT_TYPES
    return found


def place_of(line: dict[str, Any]) -> Place:
    return line["topic"], line["partition"], line["offset"]


def assert_same(lines: list[dict[str, Any]], ours: Log) -> None:
    """Each line says of its record what we say, field by field; none is missing."""
    assert {place_of(line) for line in lines} == set(ours)
    for line in lines:
        record, event = ours[place_of(line)]
        assert line["event"] == printed(fields_of(event)), line["event_id"]
        assert line["type"] == event.envelope.type
        assert line["event_id"] == event.envelope.event_id
        assert line["key"] == record.key.decode()
        assert line["timestamp_ms"] == record.timestamp_ms
        assert line["headers"] == {name: value.decode() for name, value in record.headers}


@pytest.mark.parametrize("topic", ["catalog", "runs"])
@pytest.mark.parametrize("from_folder", [True, False], ids=["from a folder", "from the catalog"])
def test_what_a_server_wrote(
    java_reader: JavaReader, prefix: str, ours: Log, topic: str, from_folder: bool
) -> None:
    schemas = (str(AVRO),) if from_folder else (str(PUBLISHING), f"{prefix}.catalog")
    lines = java_reader.read(f"{prefix}.{topic}", *schemas)
    assert_same(lines, {at: both for at, both in ours.items() if at[0] == f"{prefix}.{topic}"})


def test_every_schema_ever_released(java_reader: JavaReader, kafka: str) -> None:
    topic = fresh_prefix()
    codec = Codec(Schemas.load())
    with admin(kafka) as client:
        client.create_topics({topic: {"num_partitions": 1, "replication_factor": 1}})
        client.wait_for_topics([topic])
    values = [bytes.fromhex(path.read_text()) for path in sorted(GOLDEN.iterdir())]
    producer = KafkaProducer(bootstrap_servers=kafka)
    for value in values:
        producer.send(topic, value, key=b"k")
    producer.close()
    lines = java_reader.read(topic, str(AVRO))
    assert [line["type"] for line in lines] == [codec.subject_of(v).event_type for v in values]
    newest = [v for v in values if codec.schemas.newest[codec.subject_of(v).event_type] is
              codec.subject_of(v)]  # fmt: skip
    said = {line["type"]: line["event"] for line in lines}
    for value in newest:
        event = codec.decode(value)
        assert said[event.envelope.type] == printed(fields_of(event))

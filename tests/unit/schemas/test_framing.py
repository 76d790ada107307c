"""Two framings: one is written, both are read, and a registry's ids mean what the log says."""

from __future__ import annotations

from collections.abc import Mapping
from io import BytesIO

import fastavro
import pytest
from hypothesis import given
from hypothesis import strategies as st

from muniment_schemas.codec import Codec, CodecError, UnknownFraming, UnknownSchemaId
from muniment_schemas.envelope import Actor, Envelope, Event
from muniment_schemas.events import RunDeleted, RunTagDeleted, SchemaPublished, SchemaRegistered
from muniment_schemas.framing import (
    ALWAYS_SINGLE_OBJECT,
    CONFLUENT_HEADER_BYTES,
    HEADER_BYTES,
    MARKER,
    Confluent,
    schema_id,
)
from muniment_schemas.subjects import Schemas

SCHEMAS = Schemas.load()
IDS: Mapping[bytes, int] = {
    subject.fingerprint: number
    for number, subject in enumerate(SCHEMAS.by_version.values(), start=256)
    if subject.event_type not in ALWAYS_SINGLE_OBJECT
}


class Told:
    """SchemaIds of a log that says everything, of which nothing has been read at first."""

    def __init__(self) -> None:
        self.read: dict[int, bytes] = {}
        self.looks = 0

    def known(self, schema_id: int) -> bytes | None:
        return self.read.get(schema_id)

    def find(self, schema_id: int) -> bytes | None:
        self.looks += 1
        self.read = {number: fingerprint for fingerprint, number in IDS.items()}
        return self.read.get(schema_id)


def envelope(event_type: type[Event]) -> Envelope:
    return Envelope(
        event_id="0192f0c0-0000-7000-8000-000000000000",
        type=event_type.__name__,
        aggregate_kind=event_type.AGGREGATE,
        aggregate_id="a" * 32,
        actor=Actor(principal_id="p", auth_method="local"),
        request_id="r",
        recorded_at_ms=1,
    )


EVENT = RunTagDeleted(envelope=envelope(RunTagDeleted), key="k ü")


def test_confluent_framing_is_zero_and_four_bytes_before_the_same_value() -> None:
    framed = Codec(SCHEMAS, Confluent(IDS), Told()).encode(EVENT)
    subject = SCHEMAS.newest["RunTagDeleted"]
    assert framed[:5] == b"\x00" + IDS[subject.fingerprint].to_bytes(4, "big")
    assert framed[5:] == Codec(SCHEMAS).encode(EVENT)[HEADER_BYTES:]
    read = fastavro.schemaless_reader(BytesIO(framed[5:]), subject.parsed, None)
    assert isinstance(read, dict)
    assert read["key"] == "k ü"


def test_whatever_is_written_both_are_read() -> None:
    single, confluent = Codec(SCHEMAS, ids=Told()), Codec(SCHEMAS, Confluent(IDS), Told())
    for value in (single.encode(EVENT), confluent.encode(EVENT)):
        for codec in (single, confluent):
            assert codec.decode(value) == EVENT
            assert codec.subject_of(value) is SCHEMAS.newest["RunTagDeleted"]


@pytest.mark.parametrize(
    "event",
    [
        SchemaPublished(
            envelope=envelope(SchemaPublished),
            fingerprint="00" * 8,
            event_type="T",
            event_version=1,
            schema_json="{}",
        ),
        SchemaRegistered(
            envelope=envelope(SchemaRegistered),
            registry_id=7,
            fingerprint="00" * 8,
            registry="http://r",
            subject="s",
        ),
    ],
    ids=lambda event: type(event).__name__,
)
def test_what_ids_are_read_from_needs_none(event: Event) -> None:
    value = Codec(SCHEMAS, Confluent(IDS)).encode(event)
    assert value[:2] == MARKER
    assert Codec(SCHEMAS).decode(value) == event


def test_the_log_is_looked_into_once_per_id_that_is_not_known() -> None:
    ids = Told()
    codec = Codec(SCHEMAS, Confluent(IDS), ids)
    value = codec.encode(EVENT)
    assert codec.needs_log(value)
    assert not codec.needs_log(Codec(SCHEMAS).encode(EVENT))
    assert codec.decode(value) == EVENT
    assert not codec.needs_log(value)
    codec.decode(value)
    assert ids.looks == 1


def test_an_id_of_which_the_log_says_nothing_is_named() -> None:
    value = b"\x00\x00\x00\x00\x05rest"
    for codec in (Codec(SCHEMAS), Codec(SCHEMAS, ids=Told())):
        with pytest.raises(UnknownSchemaId, match="registry id 5"):
            codec.decode(value)


@pytest.mark.parametrize("value", [b"", b"\x00", b"\x00\x00\x00\x01", b"\x01" + b"x" * 20])
def test_less_than_a_header_is_no_framing(value: bytes) -> None:
    codec = Codec(SCHEMAS, ids=Told())
    assert schema_id(value) is None
    assert not codec.needs_log(value)
    with pytest.raises(UnknownFraming):
        codec.decode(value)


def test_nothing_is_written_unless_every_type_has_an_id() -> None:
    lacking = dict(IDS)
    del lacking[SCHEMAS.newest["RunDeleted"].fingerprint]
    with pytest.raises(KeyError):
        Codec(SCHEMAS, Confluent(lacking))


@given(st.binary(max_size=200))
def test_damaged_bytes_raise_codec_errors_and_nothing_else(tail: bytes) -> None:
    codec = Codec(SCHEMAS, Confluent(IDS), Told())
    head = codec.encode(RunDeleted(envelope=envelope(RunDeleted)))[:CONFLUENT_HEADER_BYTES]
    try:
        event = codec.decode(head + tail)
    except CodecError:
        return
    assert codec.encode(event)[:CONFLUENT_HEADER_BYTES] == head

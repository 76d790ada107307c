"""Framing, round trips and what cannot be decoded."""

from __future__ import annotations

import math
import struct

import fastavro.schema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from muniment_schemas.codec import Codec, Undecodable, UnknownFraming
from muniment_schemas.columns import NO_CONTEXT, context_index, pack, points
from muniment_schemas.envelope import Actor, Envelope
from muniment_schemas.events import BatchLogged, MetricContext, RunDeleted
from muniment_schemas.framing import HEADER_BYTES
from muniment_schemas.ids import dashed, derived_uuid7_hex, uuid7_hex
from muniment_schemas.subjects import Schemas

CODEC = Codec(Schemas.load())


def envelope(event_type: str = "BatchLogged") -> Envelope:
    return Envelope(
        event_id="0192f0c0-0000-7000-8000-000000000000",
        type=event_type,
        aggregate_kind="run",
        aggregate_id="a" * 32,
        actor=Actor(principal_id="p", auth_method="local"),
        request_id="r",
        recorded_at_ms=1,
    )


def test_fingerprint_is_the_one_of_the_avro_specification() -> None:
    canonical = fastavro.schema.to_parsing_canonical_form({"type": "int"})
    # The single-object header of the schema "int" is C3 01 8F 5C 39 3F 1A D5 75 72.
    assert fastavro.schema.fingerprint(canonical, "CRC-64-AVRO") == "8f5c393f1ad57572"


floats = st.floats(allow_nan=True, allow_infinity=True)
longs = st.integers(-(2**63), 2**63 - 1)
metric_points = st.lists(st.tuples(st.text(max_size=5), floats, longs, longs), max_size=50)


@given(metric_points, st.dictionaries(st.text(), st.text()), st.dictionaries(st.text(), st.text()))
def test_batches_survive_bit_for_bit(
    given_points: list[tuple[str, float, int, int]], params: dict[str, str], tags: dict[str, str]
) -> None:
    columns = (
        pack(*(list(column) for column in zip(*given_points, strict=True)))
        if given_points
        else None
    )
    event = BatchLogged(envelope=envelope(), params=params, tags=tags, metrics=columns)
    read = CODEC.decode(CODEC.encode(event))
    assert read == event
    if columns is not None:
        assert isinstance(read, BatchLogged)
        assert read.metrics is not None
        back = points(read.metrics)
        for i, (key, value, timestamp_ms, step) in enumerate(given_points):
            assert back.keys[back.key_index[i]] == key
            assert struct.pack("<d", back.value[i]) == struct.pack("<d", value)
            assert (back.timestamp_ms[i], back.step[i]) == (timestamp_ms, step)


def test_nan_keeps_its_bits() -> None:
    signalling = struct.unpack("<d", bytes.fromhex("010000000000f8ff"))[0]
    assert math.isnan(signalling)
    assert pack(["k"], [signalling], [0], [0]).value.hex() == "010000000000f8ff"


def test_contexts_are_distinct_and_indexed() -> None:
    model = MetricContext(model_id="m-1")
    columns = pack(["a"] * 4, [1.0] * 4, [1] * 4, [0] * 4, [None, model, None, model])
    assert columns.contexts == (model,)
    assert context_index(columns).tolist() == [NO_CONTEXT, 0, NO_CONTEXT, 0]


def test_columns_of_unequal_length_are_refused() -> None:
    columns = pack(["a", "b"], [1.0, 2.0], [1, 2], [0, 0])
    broken = type(columns)(
        **{**{f: getattr(columns, f) for f in columns.__struct_fields__}, "count": 3}
    )
    with pytest.raises(ValueError, match="columns of 3 points"):
        points(broken)


def test_unknown_framing_is_named() -> None:
    with pytest.raises(UnknownFraming) as raised:
        CODEC.decode(b"\xc3\x01" + b"12345678" + b"rest")
    assert raised.value.head == b"\xc3\x0112345678"
    with pytest.raises(UnknownFraming):
        CODEC.decode(b"")


@pytest.mark.parametrize("cut", [HEADER_BYTES, HEADER_BYTES + 1, -1])
def test_cut_values_are_undecodable(cut: int) -> None:
    whole = CODEC.encode(RunDeleted(envelope=envelope("RunDeleted")))
    with pytest.raises(Undecodable):
        CODEC.decode(whole[:cut])


def test_bytes_behind_the_value_are_undecodable() -> None:
    whole = CODEC.encode(RunDeleted(envelope=envelope("RunDeleted")))
    with pytest.raises(Undecodable, match="bytes follow"):
        CODEC.decode(whole + b"x")


@given(st.binary(max_size=200))
def test_damaged_bytes_raise_codec_errors_and_nothing_else(tail: bytes) -> None:
    head = CODEC.encode(RunDeleted(envelope=envelope("RunDeleted")))[:HEADER_BYTES]
    try:
        event = CODEC.decode(head + tail)
    except (Undecodable, UnknownFraming):
        return
    assert CODEC.encode(event)[:HEADER_BYTES] == head


@given(st.integers(0, 2**48 - 1), st.binary(min_size=10, max_size=10))
def test_uuid7_sorts_by_time_and_has_version_and_variant(now_ms: int, random: bytes) -> None:
    made = uuid7_hex(now_ms, random)
    assert len(made) == 32
    assert int(made[:12], 16) == now_ms
    assert made[12] == "7"
    assert made[16] in "89ab"
    assert dashed(made).replace("-", "") == made


def test_derived_ids_repeat() -> None:
    assert derived_uuid7_hex(5, b"x") == derived_uuid7_hex(5, b"x") != derived_uuid7_hex(5, b"y")

"""The leaf of a record: its exact bytes, and that nothing of the record can change without it."""

from __future__ import annotations

from dataclasses import replace
from hashlib import sha256

import pytest

from muniment_schemas.ids import Offset
from muniment_services.log.base import Record, TopicPartition
from muniment_services.proof.statement import statement

RECORD = Record(
    at=TopicPartition("runs", 3),
    offset=Offset(17),
    key=b"run",
    value=b"value",
    headers=(("ce_id", b"0193-id"), ("ce_type", b"BatchLogged"), ("ce_source", b"/muniment")),
    timestamp_ms=1_732_684_800_000,
)

EXPECTED = b"""muniment/1
runs/3
17
0193-id
BatchLogged
1732684800000
acba25512100f80b56fc3ccd14c65be55d94800cda77585c5f41a887e398f9be
cd42404d52ad55ccfa9aca4adc828aa5800ad9d385a0671fbcbf724118320619
"""


def test_the_bytes_of_a_leaf_stay_as_they_are() -> None:
    key, value = EXPECTED.splitlines()[6:]
    assert key.decode() == sha256(b"run").hexdigest()
    assert value.decode() == sha256(b"value").hexdigest()
    assert statement(RECORD) == EXPECTED


@pytest.mark.parametrize(
    "other",
    [
        replace(RECORD, at=TopicPartition("runs", 2)),
        replace(RECORD, at=TopicPartition("catalog", 3)),
        replace(RECORD, offset=Offset(18)),
        replace(RECORD, key=b"ruN"),
        replace(RECORD, value=b"valuf"),
        replace(RECORD, timestamp_ms=1_732_684_800_001),
        replace(RECORD, headers=(("ce_id", b"other"), *RECORD.headers[1:])),
        replace(RECORD, headers=(RECORD.headers[0], ("ce_type", b"RunCreated"))),
    ],
)
def test_another_record_has_another_leaf(other: Record) -> None:
    assert statement(other) != statement(RECORD)


@pytest.mark.parametrize("header", [b"", b"two\nlines", b"a space", b"\xff\xfe", b"x" * 256])
def test_a_header_that_is_none_of_ours_leaves_an_empty_line(header: bytes) -> None:
    poison = replace(RECORD, headers=(("ce_id", header), ("ce_type", header)))
    lines = EXPECTED.splitlines(keepends=True)
    assert statement(poison) == b"".join([*lines[:3], b"\n", b"\n", *lines[5:]])
    assert statement(replace(RECORD, headers=())) == statement(poison)

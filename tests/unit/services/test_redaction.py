"""No sensitive value is kept in clear, wherever it stands; what is not sensitive stays."""

from __future__ import annotations

import hashlib
import hmac
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from muniment_services.redaction import SENSITIVE_DEFAULT, Redaction

REDACTION = Redaction(SENSITIVE_DEFAULT, b"key")
SECRET = "hunter2-hunter2"


def test_a_hash_is_the_keyed_one() -> None:
    digest = hmac.new(b"key", SECRET.encode(), hashlib.sha256).hexdigest()
    assert REDACTION.hashed(SECRET) == f"hmac-sha256:{digest}"
    assert Redaction((), b"other").hashed(SECRET) != REDACTION.hashed(SECRET)


@pytest.mark.parametrize(
    "key", ["password", "DB_PASSWORD", "api-key", "aws_secret_access_key", "token", "hf.token"]
)
def test_keys_are_told_by_pattern(key: str) -> None:
    assert REDACTION.is_sensitive(key)
    assert not REDACTION.is_sensitive("learning_rate")


@pytest.mark.parametrize(
    "body",
    [
        {"password": SECRET, "lr": "0.1"},
        {"key": "db_password", "value": SECRET, "run_id": "lr"},
        {"params": [{"key": "token", "value": SECRET}, {"key": "lr", "value": "0.1"}]},
        {"tags": {"nested": {"api_key": {"deep": SECRET}}}},
        {"filter": f"params.api_key = '{SECRET}' AND params.lr = '0.1'"},
        {"filter": f'tags.`my-secret` LIKE "{SECRET}"'},
    ],
)
def test_bodies_lose_the_value_and_nothing_else(body: dict[str, object]) -> None:
    told = REDACTION.body(json.dumps(body).encode())
    assert told is not None
    assert SECRET not in told
    assert "hmac-sha256:" in told
    assert "lr" in told or "lr" not in json.dumps(body)


def test_queries_lose_the_value_and_nothing_else() -> None:
    told = REDACTION.query(f"token={SECRET}&a=1&filter=params.secret%3D%27{SECRET}%27")
    assert SECRET not in told
    assert "a=1" in told


@pytest.mark.parametrize("body", [b"password=x", b"\xff\xfe", b'{"a":', b"[" * 100 + b"]" * 100])
def test_what_cannot_be_read_is_not_kept(body: bytes) -> None:
    assert REDACTION.body(body) is None


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text("ab", max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("ab"), inner, max_size=3),
    max_leaves=10,
)


@given(json_values)
def test_a_body_without_sensitive_keys_stays_as_it_is(value: object) -> None:
    told = REDACTION.body(json.dumps(value).encode())
    assert told is not None
    assert json.loads(told) == value


@given(json_values, st.sampled_from(["password", "x_secret"]))
def test_a_secret_at_any_depth_is_found(value: object, key: str) -> None:
    nested = [{"outer": [{key: SECRET}, value]}]
    told = REDACTION.body(json.dumps(nested).encode())
    assert told is not None
    assert SECRET not in told

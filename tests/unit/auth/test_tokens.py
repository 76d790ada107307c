"""The text of a token: what scanners find, what a slip is, what one may make of another."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import random
import re
from fnmatch import fnmatchcase
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from muniment_auth import tokens
from muniment_auth.principal import local_principal
from muniment_auth.tokens import (
    SCANNED_BY,
    SESSION_PREFIX,
    TOKEN_PREFIX,
    ScopesTooWide,
    covers,
    is_ours,
    narrowed,
    new_secret,
    parse,
)

VERBS = ("read", "write", "fly")


def test_a_token_is_found_by_scanners_and_read_back() -> None:
    for _ in range(200):
        secret = new_secret(TOKEN_PREFIX, os.urandom)
        text = f'MLFLOW_TRACKING_TOKEN="{secret.text}"\n'
        assert re.findall(SCANNED_BY, text) == [secret.text]
        assert is_ours(secret.text)
        assert parse(secret.text, TOKEN_PREFIX) == secret
        assert len(secret.text) == 70


def test_the_text_of_known_randomness_stays_what_it_is() -> None:
    # A change here would make all tokens that are in use malformed.
    secret = new_secret(TOKEN_PREFIX, random.Random(1).randbytes)
    assert secret.text == ("mnt_IKaqlJuovziSF8Xd_keNknEwuEb8U8iYjCxgJKyU5Y6JdQiReK2p1R7h2z283fbRuO")


def test_the_largest_and_the_smallest_secret_fit() -> None:
    for byte in (b"\x00", b"\xff"):
        secret = new_secret(SESSION_PREFIX, lambda count, byte=byte: byte * count)  # type: ignore[misc]
        assert parse(secret.text, SESSION_PREFIX) == secret


@pytest.mark.parametrize("place", range(70))
def test_a_change_of_any_character_is_noticed(place: int) -> None:
    text = new_secret(TOKEN_PREFIX, random.Random(place).randbytes).text
    other = "x" if text[place] != "x" else "y"
    assert parse(text[:place] + other + text[place + 1 :], TOKEN_PREFIX) is None


@pytest.mark.parametrize(
    "change",
    [
        lambda text: "",
        lambda text: text[:-1],
        lambda text: text + "A",
        lambda text: " " + text,
        lambda text: text + "\n",
        lambda text: text.upper(),
        lambda text: text.replace("mnt_", "mns_"),
        lambda text: text.replace("mnt_", "ghp_"),
        lambda text: text[:-1] + "é",
        lambda text: text[:-1] + "\u0661",
        lambda text: "mnt_" + "A" * 100_000,
    ],
)
def test_what_has_not_the_form_is_none(change: Any) -> None:
    text = new_secret(TOKEN_PREFIX, random.Random(3).randbytes).text
    assert parse(change(text), TOKEN_PREFIX) is None


def test_a_token_is_no_session_and_the_other_way_round() -> None:
    token, session = (new_secret(p, os.urandom) for p in (TOKEN_PREFIX, SESSION_PREFIX))
    assert parse(token.text, SESSION_PREFIX) is None
    assert parse(session.text, TOKEN_PREFIX) is None


def test_only_its_hash_is_kept_and_it_is_not_shown() -> None:
    secret = new_secret(TOKEN_PREFIX, os.urandom)
    assert secret.sha256 == hashlib.sha256(secret.secret.encode()).digest()
    assert secret.fits(secret.sha256)
    assert not secret.fits(hashlib.sha256(b"").digest())
    assert secret.secret not in repr(secret)
    assert secret.secret not in f"{secret}"


@pytest.mark.parametrize(
    ("scopes", "wanted", "allowed"),
    [
        (None, None, True),
        (None, {"*"}, True),
        ({"run:*"}, None, False),
        ({"run:*"}, {"run:read"}, True),
        ({"run:*"}, {"run:*"}, True),
        ({"run:*"}, {"experiment:read"}, False),
        ({"run:*"}, {"run:read", "experiment:read"}, False),
        ({"run:*", "*:read"}, {"run:write", "experiment:read"}, True),
        ({"run:read", "run:write", "run:delete"}, {"run:*"}, False),
        ({"*:read"}, {"run:*"}, False),
        ({"*:read"}, {"*"}, False),
        ({"*"}, {"*:read", "*"}, True),
        ({"run:read"}, {"*:read"}, False),
    ],
)
def test_what_a_limited_credential_may_make(
    scopes: set[str] | None, wanted: set[str] | None, allowed: bool
) -> None:
    has = None if scopes is None else frozenset(scopes)
    assert covers(has, None if wanted is None else frozenset(wanted)) is allowed


PARTS = st.sampled_from(["*", "run", "experiment", "read", "write"])
SCOPES = st.just("*") | st.tuples(PARTS, PARTS).map(":".join)


@given(st.frozensets(SCOPES, min_size=1), st.frozensets(SCOPES, min_size=1))
def test_what_is_covered_never_stands_for_more(has: frozenset[str], asks: frozenset[str]) -> None:
    known = [f"{resource}:{verb}" for resource in ("run", "experiment", "new") for verb in VERBS]

    def all_of(scopes: frozenset[str]) -> set[str]:
        return {one for one in known for scope in scopes if fnmatchcase(one, scope)}

    if covers(has, asks):
        assert all_of(asks) <= all_of(has)
    if asks <= has:
        assert covers(has, asks)


def test_who_is_limited_and_asks_for_no_limit_gets_its_own() -> None:
    free = local_principal("t")
    limited = dataclasses.replace(free, scopes=frozenset({"run:*"}))
    assert narrowed(None, free) is None
    for maker, asked, gets in (
        (free, {"*"}, {"*"}),
        (limited, None, {"run:*"}),
        (limited, {"run:read"}, {"run:read"}),
    ):
        assert narrowed(None if asked is None else frozenset(asked), maker) == frozenset(gets)
    with pytest.raises(ScopesTooWide):
        narrowed(frozenset({"*"}), limited)


def test_random_texts_are_not_taken_for_ours() -> None:
    chance = random.Random(5)
    digits = tokens._DIGITS
    texts = [
        f"mnt_{''.join(chance.choices(digits, k=16))}_{''.join(chance.choices(digits, k=49))}"
        for _ in range(5000)
    ]
    assert all(re.fullmatch(SCANNED_BY, text) for text in texts)
    assert not any(map(is_ours, texts))

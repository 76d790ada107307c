"""Page tokens: what they refuse, and that they hold what the next page needs."""

from __future__ import annotations

import base64
import json

import pytest

from muniment_projections.search import keyset
from muniment_projections.search.errors import PageTokenInvalid
from muniment_projections.search.keyset import MISSING, NAN, PRESENT, Cursor, SortKey
from muniment_projections.search.predicate import Predicate

KEYS = (
    SortKey(Predicate("a"), "double", ascending=False, nullable=True),
    SortKey(Predicate("b"), "integer"),
    SortKey(Predicate("c"), "text"),
)
MADE_FOR = keyset.digest(["runs", "metrics.a > 1", []])


def token(content: object) -> str:
    return base64.b64encode(json.dumps(content).encode()).decode()


def entries(*after: object) -> str:
    return token({"after": after, "for": MADE_FOR})


@pytest.mark.parametrize(
    "cursor",
    [
        ((PRESENT, 0.1), (PRESENT, 2**63 - 1), (PRESENT, "é'")),
        ((PRESENT, keyset.DOUBLE_MAX), (PRESENT, -1), (PRESENT, "")),
        ((NAN, None), (PRESENT, 0), (PRESENT, "x")),
        ((MISSING, None), (PRESENT, 0), (PRESENT, "x")),
        (),
    ],
)
def test_a_token_gives_back_its_cursor(cursor: Cursor) -> None:
    assert keyset.decode(keyset.encode(cursor, MADE_FOR), KEYS, MADE_FOR) == cursor


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ("abc", "Invalid page token, could not base64-decode"),
        ("é", "Invalid page token, could not base64-decode"),
        ("A" * (keyset.TOKEN_CHARACTERS_MAX + 1), "Invalid page token, could not base64-decode"),
        ("abcd", "Invalid page token, decoded value=b'i\\xb7\\x1d'"),
        (token({}), "Invalid page token, parsed value={}"),
        (token([]), "Invalid page token, parsed value=[]"),
        (token({"offset": 3}), "Invalid page token, parsed value={'offset': 3}"),
    ],
)
def test_damaged_tokens_have_mlflows_messages(bad: str, message: str) -> None:
    with pytest.raises(PageTokenInvalid) as refusal:
        keyset.decode(bad, KEYS, MADE_FOR)
    assert refusal.value.message == message


@pytest.mark.parametrize(
    "forged",
    [
        entries([0, 1.0]),
        entries([0, "1"], [0, 1], [0, "x"]),
        entries([0, None], [0, 1], [0, "x"]),
        entries([3, None], [0, 1], [0, "x"]),
        entries([0, 1.0], [2, None], [0, "x"]),
        entries([0, 1.0], [0, 2**63], [0, "x"]),
        entries([0, 1.0], [0, True], [0, "x"]),
        entries([0, 1.0], [0, 1], [0, "\ud800"]),
        entries([0, 1.0], [0, 1], [0, ["x"]]),
        entries([0, 1.0], [0, 1], "x"),
        token({"after": [[0, float("inf")], [0, 1], [0, "x"]], "for": MADE_FOR}),
    ],
)
def test_forged_entries_are_refused(forged: str) -> None:
    with pytest.raises(PageTokenInvalid, match="Invalid page token, parsed value="):
        keyset.decode(forged, KEYS, MADE_FOR)


def test_a_token_of_another_search_is_refused() -> None:
    cursor: Cursor = ((PRESENT, 1.0), (PRESENT, 1), (PRESENT, "x"))
    other = keyset.digest(["runs", "metrics.a > 2", []])
    with pytest.raises(PageTokenInvalid, match="Invalid page token: it was made for another"):
        keyset.decode(keyset.encode(cursor, other), KEYS, MADE_FOR)

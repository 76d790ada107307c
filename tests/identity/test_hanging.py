"""A Keycloak that takes connections and answers nothing: worse than one that is down."""

from __future__ import annotations

import time
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from harness.guarded import WHO, Guarded, running_guarded
from harness.keycloak import Provider, header_of
from muniment_auth.keys import COOLDOWN_S, FETCH_S_MAX

pytestmark = pytest.mark.slow

CALLERS = 20
PAUSE_S = 0.05
PROMPT_S = 3.0
"""Far above what an answer takes that waits for nobody; below FETCH_S_MAX."""
SLACK_S = 10.0


def slowest_s(
    server: Guarded, token: str | None, path: str, until: Future[httpx.Response]
) -> float:
    """Of one caller's calls, one after the other, until another's is answered."""
    slowest = 0.0
    while not until.done():
        began = time.monotonic()
        assert server.ask(token, "GET", path).status_code == 200
        slowest = max(slowest, time.monotonic() - began)
        time.sleep(PAUSE_S)
    return slowest


def test_nobody_waits_for_keys_that_somebody_else_s_token_needs(
    keycloak: Provider, server: Guarded
) -> None:
    ana, known = keycloak.person("ana").access, keycloak.person("ben").access
    server.who(ana)
    new = keycloak.rotate_keys()
    unknown = keycloak.job()
    assert header_of(unknown)["kid"] == new
    with keycloak.frozen(), ThreadPoolExecutor(1) as pool:
        # Keys are asked for at most so often: the first refusals cost no call.
        deadline, took_s = time.monotonic() + COOLDOWN_S + SLACK_S, 0.0
        while took_s < FETCH_S_MAX / 2:
            assert time.monotonic() < deadline
            asked = pool.submit(server.ask, unknown, "GET", WHO)
            began = time.monotonic()
            assert slowest_s(server, ana, WHO, asked) < PROMPT_S
            assert asked.result().status_code in (401, 503)
            took_s = time.monotonic() - began
        assert took_s < FETCH_S_MAX + SLACK_S
        # Whether it is good cannot be known: its bearer is told to come again, not to sign in.
        assert asked.result().status_code == 503
        assert int(asked.result().headers["retry-after"]) > 0
        # A token that was never shown before, signed with a key that is known.
        assert server.who(known)["name"] == "ben"
    deadline = time.monotonic() + COOLDOWN_S + SLACK_S
    while server.ask(unknown, "GET", WHO).status_code != 200:
        assert time.monotonic() < deadline, "the new key was not fetched afterwards"
        time.sleep(PAUSE_S)


def test_a_server_starts_while_keycloak_hangs(keycloak: Provider, tmp_path: Path) -> None:
    ana = keycloak.person("ana").access
    with (
        keycloak.frozen(),
        running_guarded(tmp_path / "late", keycloak) as late,
        ThreadPoolExecutor(CALLERS + 1) as pool,
    ):
        began = time.monotonic()
        login = pool.submit(late.ask, None, "GET", "/login")
        asked = [pool.submit(late.ask, ana, "GET", WHO) for _ in range(CALLERS)]
        assert slowest_s(late, None, "/health", asked[-1]) < PROMPT_S
        assert [one.result().status_code for one in asked] == [503] * CALLERS
        assert all(int(one.result().headers["retry-after"]) > 0 for one in asked)
        assert login.result().status_code == 502, login.result().text
        # They have all waited for the same attempt.
        assert time.monotonic() - began < FETCH_S_MAX + SLACK_S
        assert late.ask(None, "GET", WHO).status_code == 401

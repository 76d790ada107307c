"""Sign-ins that outlive their tokens: long runs, many threads and processes, a provider down."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import mlflow
import pytest
from mlflow.exceptions import MlflowException
from mlflow.tracking.request_auth import registry

from harness.guarded_server import GuardedServer
from harness.issuer import Fault, Issuer
from muniment_client.cache import Cache
from muniment_client.errors import ClientError, LoginNeeded, Unreachable
from muniment_client.renewing import Held, Renewing
from muniment_client.sources import Login

THREADS = 8
PROCESSES = 4
USE_TOKEN = """
import os, sys
from muniment_client.situation import find_source
source = find_source(sys.argv[1], os.environ)
sys.stdin.readline()
print(source.token())
"""


def log_metric() -> None:
    mlflow.MlflowClient().log_metric("0123456789abcdef0123456789abcdef", "loss", 0.5)


def expire(cache: Cache, server: GuardedServer) -> None:
    """Make the stored access token one that has just ended."""
    stored = cache.find(server.url)
    assert stored is not None
    cache.store(replace(stored, expires_at=time.time() - 1))


def test_a_run_goes_on_while_its_tokens_live_two_seconds(
    environment: pytest.MonkeyPatch,
    server: GuardedServer,
    issuer: Issuer,
    signed_in: Callable[[str], None],
) -> None:
    issuer.lives.access_s = 2
    signed_in("ada")
    ends_at = time.monotonic() + 5
    while time.monotonic() < ends_at:
        log_metric()
        time.sleep(0.05)
    assert {one.status for one in server.requests} == {200}
    assert 2 <= issuer.grants.refreshes <= 4
    assert issuer.grants.reuses == 0


def test_many_threads_renew_once(
    environment: pytest.MonkeyPatch,
    server: GuardedServer,
    issuer: Issuer,
    cache: Cache,
    signed_in: Callable[[str], None],
) -> None:
    signed_in("ada")
    expire(cache, server)
    issuer.fault, issuer.slow_s = Fault.SLOW, 0.3
    with ThreadPoolExecutor(THREADS) as pool:
        for done in [pool.submit(log_metric) for _ in range(THREADS * 3)]:
            done.result()
    assert issuer.grants.refreshes == 1
    assert issuer.grants.reuses == 0
    assert {one.status for one in server.requests} == {200}


def test_many_processes_and_threads_renew_once_and_lose_nothing(
    environment: pytest.MonkeyPatch,
    server: GuardedServer,
    issuer: Issuer,
    cache: Cache,
    signed_in: Callable[[str], None],
) -> None:
    signed_in("ada")
    issuer.fault, issuer.slow_s = Fault.SLOW, 0.3
    for round in range(1, 3):
        expire(cache, server)
        command = [sys.executable, "-c", USE_TOKEN, server.url]
        running = [
            subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            for _ in range(PROCESSES)
        ]
        sign_in = cache.find(server.url)
        assert sign_in is not None
        logins = [Login(cache, sign_in) for _ in range(THREADS)]
        with ThreadPoolExecutor(THREADS + PROCESSES) as pool:
            here = [pool.submit(login.token) for login in logins]
            there = [pool.submit(process.communicate, "go\n", 60) for process in running]
            tokens = {one.result() for one in here} | {one.result()[0].strip() for one in there}
        assert issuer.grants.refreshes == round
        assert issuer.grants.reuses == 0
        (token,) = tokens
        assert server.subject(token) == "ada"
        stored = cache.find(server.url)
        assert stored is not None
        assert stored.access_token == token


def test_another_processes_renewal_is_taken_over(
    environment: pytest.MonkeyPatch,
    server: GuardedServer,
    issuer: Issuer,
    cache: Cache,
    signed_in: Callable[[str], None],
) -> None:
    signed_in("ada")
    old = cache.find(server.url)
    assert old is not None
    mine, theirs = (Login(cache, replace(old, expires_at=time.time() - 1)) for _ in range(2))
    expire(cache, server)
    assert mine.token() == theirs.token() != old.access_token
    assert issuer.grants.refreshes == 1


def test_an_ended_login_says_to_sign_in_and_a_new_one_is_found(
    environment: pytest.MonkeyPatch,
    server: GuardedServer,
    issuer: Issuer,
    cache: Cache,
    signed_in: Callable[[str], None],
) -> None:
    signed_in("ada")
    log_metric()
    issuer.grants.end_logins("ada")
    server.refused_tokens.add(server.requests[-1].headers["authorization"].removeprefix("Bearer "))
    environment.setattr("muniment_client.renewing.YOUNG_S", 0.0)
    with pytest.raises(MlflowException, match=r"has ended.*Run `muniment-client login http"):
        log_metric()
    asked = issuer.asked("/token")
    with pytest.raises(MlflowException, match="Run `muniment-client login"):
        log_metric()
    assert issuer.asked("/token") == asked, "a refresh token that has ended is not tried again"
    signed_in("bob")
    log_metric()
    assert server.requests[-1].subject == "bob"


def test_signing_out_ends_running_jobs_at_the_next_renewal(
    environment: pytest.MonkeyPatch,
    server: GuardedServer,
    cache: Cache,
    signed_in: Callable[[str], None],
) -> None:
    signed_in("ada")
    stored = cache.find(server.url)
    assert stored is not None
    cache.remove(stored)
    with pytest.raises(LoginNeeded, match="signed out"):
        Login(cache, replace(stored, expires_at=time.time() - 1)).token()


@pytest.mark.parametrize("fault", [Fault.ERROR, Fault.SLOW], ids=["down", "hanging"])
def test_a_provider_that_does_not_answer_costs_one_attempt_while_the_token_holds(
    environment: pytest.MonkeyPatch,
    server: GuardedServer,
    issuer: Issuer,
    cache: Cache,
    signed_in: Callable[[str], None],
    fault: Fault,
) -> None:
    environment.setattr("muniment_client.exchange.BACKOFF_S", 0.01)
    environment.setattr("muniment_client.exchange.READ_S", 0.3)
    signed_in("ada")
    stored = cache.find(server.url)
    assert stored is not None
    cache.store(replace(stored, expires_at=time.time() + 30))
    issuer.fault, issuer.slow_s = fault, 3.0
    for _ in range(5):
        log_metric()
    assert {one.status for one in server.requests} == {200}
    assert issuer.asked("/token") == 1, "one attempt, and a pause"


def test_a_sign_in_that_has_ended_gives_way_to_one_at_another_issuer(
    environment: pytest.MonkeyPatch,
    server: GuardedServer,
    cache: Cache,
    signed_in: Callable[[str], None],
) -> None:
    signed_in("ada")
    log_metric()
    stored = cache.find(server.url)
    assert stored is not None
    auth = registry.fetch_auth("muniment")  # type: ignore[no-untyped-call]
    source = auth._sources[server.url]
    source._renewing._held = replace(source._renewing._held, expires_at=time.time() - 1)
    cache.remove(stored)
    server.known_tokens["other"] = "ada elsewhere"
    other = replace(stored, issuer="https://other.example", access_token="other")
    cache.store(other)
    log_metric()
    assert server.requests[-1].subject == "ada elsewhere"


def test_the_providers_key_may_change_under_a_run(
    environment: pytest.MonkeyPatch,
    server: GuardedServer,
    issuer: Issuer,
    signed_in: Callable[[str], None],
) -> None:
    environment.setattr("muniment_client.renewing.YOUNG_S", 0.0)
    signed_in("ada")
    log_metric()
    issuer.rotate_key(keep_old=False)
    log_metric()
    assert [one.status for one in server.requests] == [200, 401, 200]


def test_a_renewal_that_fails_is_one_failure_for_all_who_wait() -> None:
    begun, calls = threading.Event(), []

    def fetch(refused: str | None, urgent: bool) -> Held:
        calls.append(refused)
        begun.wait(10)
        time.sleep(0.2)
        raise Unreachable("https://issuer.example", "status 503", 4)

    renewing = Renewing(fetch)
    with ThreadPoolExecutor(THREADS) as pool:
        waiting = [pool.submit(renewing.token) for _ in range(THREADS)]
        time.sleep(0.2)
        begun.set()
        errors = [one.exception(20) for one in waiting]
    assert all(isinstance(error, ClientError) for error in errors)
    assert len(calls) == 1


@pytest.mark.slow
def test_a_forked_process_shares_no_lock_with_its_parent(
    environment: pytest.MonkeyPatch,
    server: GuardedServer,
    signed_in: Callable[[str], None],
) -> None:
    signed_in("ada")
    script = (
        "import os, mlflow\n"
        "from mlflow.tracking.request_auth import registry\n"
        "from muniment_client.provider import MunimentAuthProvider\n"
        "registry._request_auth_provider_registry.register(MunimentAuthProvider)\n"
        "auth = registry.fetch_auth('muniment')\n"
        "auth._lock.acquire()\n"
        "child = os.fork()\n"
        "if child == 0:\n"
        "    mlflow.MlflowClient().log_metric('0' * 32, 'loss', 1.0)\n"
        "    os._exit(0)\n"
        "raise SystemExit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))\n"
    )
    environment.setenv("MLFLOW_TRACKING_URI", server.url)
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60, env=dict(os.environ))
    assert server.requests[-1].subject == "ada"

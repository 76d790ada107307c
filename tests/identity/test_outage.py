"""What callers see of a Keycloak that changes its keys, or is not there.

Stands last in its folder, since every test after one that stopped Keycloak waits for its start.
"""

from __future__ import annotations

import time
from pathlib import Path

import httpx
import pytest

from harness.callers import calling
from harness.guarded import MLFLOW, WHO, Guarded, running_guarded
from harness.keycloak import Provider, header_of
from harness.training import Jobs
from muniment_auth.keys import COOLDOWN_S

pytestmark = pytest.mark.slow

POLL_S = 0.5
SLACK_S = 5.0
CALLERS_EACH = 2
GOES_ON_S = 2.0


def log_metric(server: Guarded, token: str, run_id: str) -> httpx.Request:
    body = {"run_id": run_id, "key": "loss", "value": 0.5, "timestamp": 1, "step": 1}
    headers = {"authorization": f"Bearer {token}"}
    url = f"{server.url}{MLFLOW}/runs/log-metric"
    return httpx.Request("POST", url, json=body, headers=headers)


def new_run(server: Guarded, token: str, experiment_id: str) -> str:
    body = {"experiment_id": experiment_id}
    answer = server.ask(token, "POST", f"{MLFLOW}/runs/create", body)
    assert answer.status_code == 200, answer.text
    return str(answer.json()["run"]["info"]["run_id"])


def test_keys_are_rotated_under_load(keycloak: Provider, server: Guarded) -> None:
    ana, job = keycloak.person("ana").access, keycloak.job()
    experiment = server.experiment(ana, "rotation")
    server.grant(ana, job, "logger", "rotation")
    requests = [
        log_metric(server, token, new_run(server, token, experiment))
        for token in (ana, job) * CALLERS_EACH
    ]
    with calling(requests) as heard:
        new = keycloak.rotate_keys()
        rotated_s = time.monotonic()
        tokens = keycloak.job(), keycloak.person("ana").access
        assert {header_of(token)["kid"] for token in tokens} == {new}
        while (answer := server.ask(tokens[0], "GET", WHO)).status_code != 200:
            assert answer.status_code == 401, answer.text
            assert time.monotonic() - rotated_s < COOLDOWN_S + SLACK_S, answer.text
            time.sleep(POLL_S)
        # One look at the keys was enough for all that are signed with the new one.
        assert server.who(tokens[1])["name"] == "ana"
        so_far = heard.good
        time.sleep(GOES_ON_S)
    assert heard.bad == []
    assert heard.good > so_far > 0


def test_a_training_job_goes_on_while_keycloak_is_down(
    keycloak: Provider, server: Guarded, tmp_path: Path
) -> None:
    ana, job = keycloak.person("ana").access, keycloak.job()
    # Never shown to the server before: a caller that is new to it.
    ben = keycloak.person("ben").access
    await_accepted(server, job)
    made = server.experiment(ana, "overnight")
    server.grant(ana, job, "logger", "overnight")
    keycloak.stop()
    jobs = Jobs(server.url, ["overnight"], MLFLOW_TRACKING_TOKEN=job)
    try:
        assert server.who(ben)["name"] == "ben"
        assert server.ask("not.a.token", "GET", WHO).status_code == 401
        with running_guarded(tmp_path / "late", keycloak) as late:
            check_started_without_keys(late, ben)
        (logged,) = jobs.finished()
    finally:
        jobs.kill()
    assert not keycloak.keycloak.is_running
    assert logged["experiment_id"] == made
    assert len(logged["runs"]) >= 1
    # Whoever is known is served on; what is made meanwhile is there for all.
    found = server.ask(ana, "GET", f"{MLFLOW}/runs/get?run_id={logged['runs'][-1]}")
    assert found.json()["run"]["info"]["status"] == "FINISHED"


def await_accepted(server: Guarded, token: str) -> None:
    """Until the server has the key that a token is signed with."""
    deadline = time.monotonic() + COOLDOWN_S + SLACK_S
    while server.ask(token, "GET", WHO).status_code != 200:
        assert time.monotonic() < deadline
        time.sleep(POLL_S)


def check_started_without_keys(late: Guarded, token: str) -> None:
    """A server that never saw Keycloak serves, knows nobody, and says so: come again."""
    answer = late.ask(token, "GET", WHO)
    assert answer.status_code == 503, answer.text
    assert answer.json()["error_code"] == "TEMPORARILY_UNAVAILABLE"
    assert int(answer.headers["retry-after"]) > 0
    assert late.ask(None, "GET", WHO).status_code == 401
    login = late.ask(None, "GET", "/login")
    assert login.status_code == 502, login.text
    assert late.ask(None, "GET", "/health").status_code == 200


def test_sign_in_works_again_once_keycloak_is_back(keycloak: Provider, server: Guarded) -> None:
    assert server.who(keycloak.person("cleo").access)["name"] == "cleo"
    assert keycloak.issuer in server.ask(None, "GET", "/login").headers["location"]

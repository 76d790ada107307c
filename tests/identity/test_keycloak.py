"""Tokens of a real Keycloak: who they are from, and what that person or job may do here."""

from __future__ import annotations

import hashlib
import secrets
from base64 import urlsafe_b64encode

import httpx
import pytest
from mlflow import MlflowClient

from harness.guarded import MLFLOW, WHO, Guarded
from harness.keycloak import CLI_CLIENT, Provider, Tokens, approve, claims_of
from harness.training import Jobs

pytestmark = pytest.mark.slow


def test_the_server_tells_whose_tokens_it_takes(keycloak: Provider, server: Guarded) -> None:
    refused = server.ask(None, "GET", WHO)
    assert refused.status_code == 401
    path = "/.well-known/oauth-protected-resource"
    challenge = refused.headers["www-authenticate"]
    assert challenge == f'Bearer resource_metadata="{server.url}{path}"'
    told = server.ask(None, "GET", path).json()
    assert told["authorization_servers"] == [keycloak.issuer]
    (issuer,) = told["muniment"]["issuers"]
    assert (issuer["audience"], issuer["client_id"]) == ("muniment", CLI_CLIENT)
    assert keycloak.metadata()["issuer"] == issuer["url"]


def test_a_person_is_known_by_a_token(keycloak: Provider, server: Guarded) -> None:
    found = server.who(keycloak.person("cleo").access)
    assert found["name"] == "cleo"
    assert found["kind"] == "user"
    assert found["issuer"] == keycloak.issuer
    assert found["groups"] == ["auditors"]
    assert found["auth_method"] == "bearer"


def test_a_job_is_known_by_client_credentials(keycloak: Provider, server: Guarded) -> None:
    found = server.who(keycloak.job())
    assert found["kind"] == "service"
    assert found["client_id"] == "trainer"
    assert found["groups"] == []


def test_every_sign_in_of_a_person_is_the_same_principal(
    keycloak: Provider, server: Guarded
) -> None:
    first, second = keycloak.person("ben").access, keycloak.person("ben").access
    assert first != second
    assert server.who(first)["principal_id"] == server.who(second)["principal_id"]


@pytest.mark.parametrize("kind", ["id", "refresh"])
def test_what_is_no_access_token_is_refused(keycloak: Provider, server: Guarded, kind: str) -> None:
    token = getattr(keycloak.person("ana"), kind)
    answer = server.ask(token, "GET", WHO)
    assert answer.status_code == 401, answer.text
    assert 'error="invalid_token"' in answer.headers["www-authenticate"]


def test_a_token_for_another_server_is_refused(keycloak: Provider, server: Guarded) -> None:
    token = keycloak.person("ana", client="admin-cli").access
    assert claims_of(token)["iss"] == keycloak.issuer
    assert "muniment" not in str(claims_of(token).get("aud"))
    assert server.ask(token, "GET", WHO).status_code == 401


def test_a_token_of_another_realm_is_refused(keycloak: Provider, server: Guarded) -> None:
    assert server.ask(keycloak.admin_token(), "GET", WHO).status_code == 401


def test_a_changed_token_is_refused(keycloak: Provider, server: Guarded) -> None:
    head, _, signature = keycloak.person("ben").access.split(".")
    body = keycloak.person("ana").access.split(".")[1]
    assert server.ask(f"{head}.{body}.{signature}", "GET", WHO).status_code == 401


def test_the_group_of_admins_may_everything_and_others_nothing(
    keycloak: Provider, server: Guarded
) -> None:
    ana, ben = keycloak.person("ana").access, keycloak.person("ben").access
    wanted = server.experiment(ana, "secret-plans")
    assert "secret-plans" in server.experiments(ana)
    assert "secret-plans" not in server.experiments(ben)
    path = f"{MLFLOW}/experiments/get?experiment_id={wanted}"
    assert server.ask(ana, "GET", path).status_code == 200
    assert server.ask(ben, "GET", path).status_code in (403, 404)
    made = server.ask(ben, "POST", "/api/v1/access/grants", everything_for(ben, server))
    assert made.status_code == 403, made.text


def everything_for(token: str, server: Guarded) -> dict[str, str]:
    who = server.who(token)["principal_id"]
    return {
        "subject_kind": "principal",
        "subject": who,
        "role": "admin",
        "resource_kind": "*",
        "pattern": "*",
        "workspace": "*",
    }


def test_a_group_gets_what_is_granted_and_no_more(keycloak: Provider, server: Guarded) -> None:
    ana, ben = keycloak.person("ana").access, keycloak.person("ben").access
    assert server.create_experiment(ben, "team-vision").status_code == 403
    server.grant_group(ana, "ml-team", "editor", "team-*")
    made = server.experiment(ben, "team-vision")
    body = {"experiment_id": made, "run_name": "first"}
    run = server.ask(ben, "POST", f"{MLFLOW}/runs/create", body)
    assert run.status_code == 200, run.text
    assert server.create_experiment(ben, "other-team").status_code == 403
    # Another group of the same Keycloak has nothing of it.
    cleo = keycloak.person("cleo").access
    assert server.create_experiment(cleo, "team-audit").status_code == 403
    assert "team-vision" not in server.experiments(cleo)


def test_a_training_job_logs_with_mlflows_client(keycloak: Provider, server: Guarded) -> None:
    ana, job = keycloak.person("ana").access, keycloak.job()
    name = "nightly-training"
    made = server.experiment(ana, name)
    server.grant(ana, job, "logger", name)
    (logged,) = Jobs(server.url, [name], MLFLOW_TRACKING_TOKEN=job).finished()
    assert logged["experiment_id"] == made
    run = server.ask(ana, "GET", f"{MLFLOW}/runs/get?run_id={logged['runs'][0]}").json()["run"]
    assert run["info"]["status"] == "FINISHED"
    # Of its experiment alone, and to log only.
    assert server.create_experiment(job, "of-the-job").status_code == 403
    delete = {"experiment_id": made}
    assert server.ask(job, "POST", f"{MLFLOW}/experiments/delete", delete).status_code == 403


def test_a_job_without_a_token_is_told_how_to_get_one(
    server: Guarded, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_TOKEN", raising=False)
    with pytest.raises(Exception, match="MLFLOW_TRACKING_TOKEN"):
        MlflowClient(server.url).search_experiments()


@pytest.mark.parametrize("with_pkce", [False, True], ids=["plain", "pkce"])
def test_a_device_is_signed_in_by_a_person_elsewhere(
    keycloak: Provider, server: Guarded, with_pkce: bool
) -> None:
    verifier = secrets.token_urlsafe(48)
    challenge = urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=").decode()
    asked = {"code_challenge": challenge, "code_challenge_method": "S256"} if with_pkce else {}
    proof = {"code_verifier": verifier} if with_pkce else {}
    device = keycloak.ask_for_device(**asked)
    assert keycloak.poll(device, **proof) == "authorization_pending"
    assert "Device Login Successful" in approve(device.url, "ben")
    tokens = keycloak.await_device(device, **proof)
    found = server.who(tokens.access)
    assert (found["name"], found["client_id"]) == ("ben", CLI_CLIENT)
    assert found["groups"] == ["ml-team"]
    assert not isinstance(keycloak.poll(device, **proof), Tokens)


def test_keycloak_is_not_asked_for_each_request(keycloak: Provider, server: Guarded) -> None:
    token = keycloak.person("ana").access
    server.who(token)
    with httpx.Client(base_url=server.url, headers={"authorization": f"Bearer {token}"}) as http:
        slowest = max(http.get(WHO).elapsed.total_seconds() for _ in range(50))
    assert slowest < 1.0

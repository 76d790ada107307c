"""Where tokens come from besides a sign-in: services, CI systems, Kubernetes, the environment."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from urllib.parse import parse_qs, urlsplit

import mlflow
import pytest
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
)
from joserfc.jwk import ECKey, OKPKey, RSAKey
from mlflow.exceptions import MlflowException

from harness.guarded_server import GuardedServer
from harness.issuer import Client, Fault, Issuer
from muniment_client.situation import find_source
from muniment_client.sources import TokenFile

from .conftest import SERVICE_SECRET

GITHUB = "https://token.actions.githubusercontent.com"


def log_metric() -> None:
    mlflow.MlflowClient().log_metric("0123456789abcdef0123456789abcdef", "loss", 0.5)


def last_subject(server: GuardedServer) -> str | None:
    log_metric()
    return server.requests[-1].subject


def test_client_credentials_by_secret(
    environment: pytest.MonkeyPatch, server: GuardedServer, issuer: Issuer
) -> None:
    environment.setenv("MUNIMENT_CLIENT_ID", "job")
    environment.setenv("MUNIMENT_CLIENT_SECRET", SERVICE_SECRET)
    assert last_subject(server) == "service-job"
    assert last_subject(server) == "service-job"
    assert issuer.asked("/token") == 1
    assert server.metadata_asked == 1


def test_client_credentials_in_the_form_where_the_issuer_takes_no_header(
    environment: pytest.MonkeyPatch, server: GuardedServer, issuer: Issuer
) -> None:
    issuer.extra_metadata = {"token_endpoint_auth_methods_supported": ["client_secret_post"]}
    environment.setenv("MUNIMENT_CLIENT_ID", "job")
    environment.setenv("MUNIMENT_CLIENT_SECRET", SERVICE_SECRET)
    assert last_subject(server) == "service-job"


def test_a_named_issuer_needs_nothing_of_the_server(
    environment: pytest.MonkeyPatch, server: GuardedServer, issuer: Issuer
) -> None:
    environment.setenv("MUNIMENT_ISSUER", issuer.url)
    environment.setenv("MUNIMENT_CLIENT_ID", "job")
    environment.setenv("MUNIMENT_CLIENT_SECRET", SERVICE_SECRET)
    assert last_subject(server) == "service-job"
    assert server.metadata_asked == 0


def test_a_wrong_secret_is_an_error_with_the_issuers_words(
    environment: pytest.MonkeyPatch, server: GuardedServer
) -> None:
    environment.setenv("MUNIMENT_CLIENT_ID", "job")
    environment.setenv("MUNIMENT_CLIENT_SECRET", "another")
    with pytest.raises(MlflowException, match="invalid_client") as refused:
        log_metric()
    assert "another" not in str(refused.value)
    assert server.requests == []


@pytest.mark.parametrize(
    "key",
    [RSAKey.generate_key(2048), ECKey.generate_key("P-256"), OKPKey.generate_key("Ed25519")],
    ids=["RS256", "ES256", "EdDSA"],
)
def test_client_credentials_by_private_key(
    environment: pytest.MonkeyPatch,
    server: GuardedServer,
    issuer: Issuer,
    tmp_path: Path,
    key: RSAKey | ECKey | OKPKey,
) -> None:
    public = {**key.as_dict(private=False), "kid": "one"}
    issuer.grants.clients["robot"] = Client("robot", public_key=public)
    assert key.private_key is not None
    pem = key.private_key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    (tmp_path / "key.pem").write_bytes(pem)
    environment.setenv("MUNIMENT_CLIENT_ID", "robot")
    environment.setenv("MUNIMENT_CLIENT_KEY_FILE", str(tmp_path / "key.pem"))
    environment.setenv("MUNIMENT_CLIENT_KEY_ID", "one")
    assert last_subject(server) == "service-robot"


def test_a_key_file_that_is_none_is_named(
    environment: pytest.MonkeyPatch, server: GuardedServer, tmp_path: Path
) -> None:
    (tmp_path / "key.pem").write_text("not a key")
    environment.setenv("MUNIMENT_CLIENT_ID", "job")
    environment.setenv("MUNIMENT_CLIENT_KEY_FILE", str(tmp_path / "key.pem"))
    with pytest.raises(MlflowException, match="MUNIMENT_CLIENT_KEY_FILE"):
        log_metric()


class Workflows:
    """The endpoint where a GitHub job asks for its OIDC token."""

    def __init__(self, issuer: Issuer) -> None:
        asked: list[tuple[str, str]] = []

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, format: str, *args: object) -> None:
                pass

            def do_GET(self) -> None:
                audience = parse_qs(urlsplit(self.path).query)["audience"][0]
                asked.append((audience, self.headers["Authorization"]))
                now = time.time()
                token = issuer.mint(
                    iss=issuer.url,
                    sub="repo:ada/model:environment:production",
                    aud=audience,
                    iat=int(now),
                    exp=int(now) + 300,
                    jti=str(len(asked)),
                    repository_id="42",
                )
                body = f'{{"value": "{token}"}}'.encode()
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

        self.asked = asked
        self.http = HTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_address[1]}/token?api-version=2.0"


@pytest.fixture
def workflows(issuer: Issuer, environment: pytest.MonkeyPatch) -> Iterator[Workflows]:
    running = Workflows(issuer)
    thread = Thread(target=running.http.serve_forever, args=(0.05,))
    thread.start()
    environment.setenv("ACTIONS_ID_TOKEN_REQUEST_URL", running.url)
    environment.setenv("ACTIONS_ID_TOKEN_REQUEST_TOKEN", "of this job")
    yield running
    running.http.shutdown()
    thread.join()
    running.http.server_close()


def test_a_github_job_signs_in_by_itself_for_the_servers_audience(
    server: GuardedServer, workflows: Workflows
) -> None:
    server.issuers.append({"url": GITHUB, "audience": "muniment"})
    assert last_subject(server) == "repo:ada/model:environment:production"
    log_metric()
    assert workflows.asked == [("muniment", "bearer of this job")]


def test_a_github_job_gets_a_new_token_when_the_server_refuses_one(
    server: GuardedServer, workflows: Workflows, environment: pytest.MonkeyPatch
) -> None:
    environment.setattr("muniment_client.renewing.YOUNG_S", 0.0)
    environment.setenv("MUNIMENT_AUDIENCE", "muniment")
    log_metric()
    server.refused_tokens.add(server.requests[-1].headers["authorization"].removeprefix("Bearer "))
    log_metric()
    assert [one.status for one in server.requests] == [200, 401, 200]
    assert len(workflows.asked) == 2


def test_a_server_without_githubs_issuer_is_told_apart(
    server: GuardedServer, workflows: Workflows
) -> None:
    with pytest.raises(MlflowException, match="MUNIMENT_AUDIENCE"):
        log_metric()
    assert workflows.asked == []


def test_a_projected_token_is_read_again_when_the_kubelet_has_replaced_it(
    environment: pytest.MonkeyPatch, server: GuardedServer, issuer: Issuer, tmp_path: Path
) -> None:
    # A kubelet writes a new folder and moves the link to it.
    link, token = tmp_path / "..data", tmp_path / "token"
    for generation, subject in (("1", "ada"), ("2", "bob")):
        folder = tmp_path / generation
        folder.mkdir()
        (folder / "token").write_text(issuer.access_token(subject) + "\n")
    link.symlink_to(tmp_path / "1")
    token.symlink_to(link / "token")
    environment.setenv("MUNIMENT_TOKEN_FILE", str(token))
    assert last_subject(server) == "ada"
    draft = tmp_path / "..data_tmp"
    draft.symlink_to(tmp_path / "2")
    draft.replace(link)
    assert last_subject(server) == "bob"


def test_the_usual_place_of_a_projected_token_is_looked_at(
    environment: pytest.MonkeyPatch, server: GuardedServer, issuer: Issuer, tmp_path: Path
) -> None:
    assert find_source(server.url, os.environ, tmp_path / "token") is None
    (tmp_path / "token").write_text(issuer.access_token("ada"))
    source = find_source(server.url, os.environ, tmp_path / "token")
    assert isinstance(source, TokenFile)
    assert server.subject(source.token()) == "ada"


def test_a_token_file_that_is_missing_is_named(
    environment: pytest.MonkeyPatch, server: GuardedServer, tmp_path: Path
) -> None:
    environment.setenv("MUNIMENT_TOKEN_FILE", str(tmp_path / "none"))
    with pytest.raises(MlflowException, match=f"{tmp_path}/none cannot be read"):
        log_metric()


def test_a_gitlab_job_uses_its_id_token(
    environment: pytest.MonkeyPatch, server: GuardedServer, issuer: Issuer
) -> None:
    environment.setenv("MUNIMENT_ID_TOKEN", issuer.access_token("ada", project_path="ml/model"))
    assert last_subject(server) == "ada"


def test_a_given_token_that_has_expired_is_not_sent(
    environment: pytest.MonkeyPatch, server: GuardedServer, issuer: Issuer
) -> None:
    environment.setenv("MUNIMENT_ID_TOKEN", issuer.access_token("ada", exp=int(time.time()) - 90))
    with pytest.raises(MlflowException, match="MUNIMENT_ID_TOKEN has expired"):
        log_metric()
    assert server.requests == []


@pytest.mark.parametrize("name", ["MUNIMENT_TOKEN", "MLFLOW_TRACKING_TOKEN"])
def test_a_personal_token_is_used_as_it_is(
    environment: pytest.MonkeyPatch, server: GuardedServer, name: str
) -> None:
    server.known_tokens["mnt_secret"] = "ada"
    environment.setenv(name, "mnt_secret")
    assert last_subject(server) == "ada"


def test_a_personal_token_that_was_revoked_names_its_variable_and_not_itself(
    environment: pytest.MonkeyPatch, server: GuardedServer
) -> None:
    environment.setenv("MUNIMENT_TOKEN", "mnt_secret")
    with pytest.raises(MlflowException, match="came from: MUNIMENT_TOKEN") as refused:
        log_metric()
    assert "mnt_secret" not in str(refused.value)


def test_what_was_set_on_purpose_comes_before_what_is_around(
    environment: pytest.MonkeyPatch,
    server: GuardedServer,
    workflows: Workflows,
    signed_in: Callable[[str], None],
    tmp_path: Path,
) -> None:
    def named() -> str:
        source = find_source(server.url, os.environ, projected)
        return "" if source is None else source.name

    projected = tmp_path / "projected"
    assert named() == "GitHub Actions"
    projected.write_text("t")
    assert named() == str(projected)
    signed_in("ada")
    assert named().startswith("sign-in of Ada")
    environment.setenv("MUNIMENT_ID_TOKEN", "t")
    assert named() == "MUNIMENT_ID_TOKEN"
    environment.setenv("MUNIMENT_TOKEN_FILE", "/file")
    assert named() == "/file"
    environment.setenv("MUNIMENT_CLIENT_ID", "job")
    assert named() == "/file", "an id alone is for signing in people"
    environment.setenv("MUNIMENT_CLIENT_SECRET", "s")
    assert named() == "client credentials of job"
    environment.setenv("MLFLOW_TRACKING_TOKEN", "t")
    assert named() == "MLFLOW_TRACKING_TOKEN"
    environment.setenv("MUNIMENT_TOKEN", "t")
    assert named() == "MUNIMENT_TOKEN"


def test_an_issuer_that_is_down_is_asked_a_few_times_and_named(
    environment: pytest.MonkeyPatch, server: GuardedServer, issuer: Issuer
) -> None:
    environment.setattr("muniment_client.exchange.BACKOFF_S", 0.01)
    environment.setenv("MUNIMENT_CLIENT_ID", "job")
    environment.setenv("MUNIMENT_CLIENT_SECRET", SERVICE_SECRET)
    issuer.fault = Fault.DOWN
    with pytest.raises(MlflowException, match=f"{issuer.url}.* gave no usable answer.*4 times"):
        log_metric()
    issuer.fault = Fault.NONE
    assert last_subject(server) == "service-job"

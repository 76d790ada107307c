"""What MLflow's client sends with the plugin: token, key, trace parent, to its server only."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import mlflow
import pytest
from mlflow.exceptions import MlflowException
from mlflow.store.artifact.http_artifact_repo import HttpArtifactRepository

from harness.guarded_server import GuardedServer
from harness.issuer import Issuer

TRACEPARENT = re.compile(r"00-[0-9a-f]{32}-[0-9a-f]{16}-0[0-3]")


def log_metric() -> None:
    mlflow.MlflowClient().log_metric("0123456789abcdef0123456789abcdef", "loss", 0.5)


def upload(url: str, path: Path) -> None:
    HttpArtifactRepository(url).log_artifact(str(path))  # type: ignore[no-untyped-call]


def test_a_write_carries_the_token_a_key_and_a_trace_parent(
    environment: pytest.MonkeyPatch, server: GuardedServer, signed_in: Callable[[str], None]
) -> None:
    signed_in("ada")
    log_metric()
    log_metric()
    first, second = [one for one in server.requests if one.path.endswith("log-metric")]
    assert first.subject == second.subject == "ada"
    assert TRACEPARENT.fullmatch(first.headers["traceparent"])
    keys = {one.headers["idempotency-key"] for one in (first, second)}
    assert len(keys) == 2
    traces = [one.headers["traceparent"].split("-") for one in (first, second)]
    assert traces[0][1] == traces[1][1], "writes of one process share a trace"
    assert traces[0][2] != traces[1][2]


def test_a_read_carries_the_token_alone(
    environment: pytest.MonkeyPatch, server: GuardedServer, signed_in: Callable[[str], None]
) -> None:
    signed_in("ada")
    mlflow.MlflowClient().get_experiment("0")
    (read,) = server.requests
    assert read.method == "GET"
    assert read.subject == "ada"
    assert not {"idempotency-key", "traceparent"} & read.headers.keys()


def test_a_write_belongs_to_the_trace_that_the_job_runs_in(
    environment: pytest.MonkeyPatch, server: GuardedServer, signed_in: Callable[[str], None]
) -> None:
    trace = "4bf92f3577b34da6a3ce929d0e0e4736"
    environment.setenv("TRACEPARENT", f"00-{trace}-00f067aa0ba902b7-01")
    signed_in("ada")
    log_metric()
    assert server.requests[-1].headers["traceparent"].startswith(f"00-{trace}-")


def test_the_key_survives_the_retries_of_urllib3(
    environment: pytest.MonkeyPatch, server: GuardedServer, signed_in: Callable[[str], None]
) -> None:
    signed_in("ada")
    server.next_answers = [(503, {}), (503, {}), (429, {"Retry-After": "0"})]
    log_metric()
    assert [one.status for one in server.requests] == [503, 503, 429, 200]
    assert len({one.headers["idempotency-key"] for one in server.requests}) == 1
    assert len({one.headers["traceparent"] for one in server.requests}) == 1


def test_a_refused_token_is_renewed_and_the_same_request_repeated(
    environment: pytest.MonkeyPatch,
    server: GuardedServer,
    issuer: Issuer,
    signed_in: Callable[[str], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("muniment_client.renewing.YOUNG_S", 0.0)
    signed_in("ada")
    log_metric()
    server.refused_tokens.add(server.requests[-1].headers["authorization"].removeprefix("Bearer "))
    log_metric()
    refused, repeated = server.requests[1:]
    assert (refused.status, repeated.status) == (401, 200)
    assert refused.headers["idempotency-key"] == repeated.headers["idempotency-key"]
    assert refused.body == repeated.body != b""
    assert issuer.grants.refreshes == 1


def test_an_upload_is_sent_again_from_its_beginning(
    environment: pytest.MonkeyPatch,
    server: GuardedServer,
    signed_in: Callable[[str], None],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.setattr("muniment_client.renewing.YOUNG_S", 0.0)
    signed_in("ada")
    log_metric()
    server.refused_tokens.add(server.requests[-1].headers["authorization"].removeprefix("Bearer "))
    (tmp_path / "model.bin").write_bytes(b"weights" * 50_000)
    url = f"{server.url}/api/2.0/mlflow-artifacts/artifacts/1/a"
    upload(url, tmp_path / "model.bin")
    uploads = [one for one in server.requests if one.method == "PUT"]
    assert [one.status for one in uploads] == [401, 200]
    assert uploads[1].body == b"weights" * 50_000


def test_a_token_that_is_refused_twice_is_an_error_that_says_what_to_do(
    environment: pytest.MonkeyPatch, server: GuardedServer, signed_in: Callable[[str], None]
) -> None:
    signed_in("ada")
    server.audience = "another"
    with pytest.raises(MlflowException, match=r"the token does not hold.*muniment-client login"):
        log_metric()
    assert len(server.requests) <= 2


def test_nobody_signed_in_is_an_error_that_names_the_command(
    environment: pytest.MonkeyPatch, server: GuardedServer
) -> None:
    with pytest.raises(MlflowException, match=f"Run `muniment-client login {server.url}`"):
        log_metric()
    assert [one.status for one in server.requests] == [401]


def test_a_server_without_sign_in_is_written_to_with_keys_all_the_same(
    environment: pytest.MonkeyPatch, server: GuardedServer
) -> None:
    server.known_tokens[""] = "local"
    log_metric()
    (write,) = server.requests
    assert "authorization" not in write.headers
    assert "idempotency-key" in write.headers


def test_a_sign_in_after_the_first_call_is_found(
    environment: pytest.MonkeyPatch, server: GuardedServer, signed_in: Callable[[str], None]
) -> None:
    with pytest.raises(MlflowException, match="login"):
        log_metric()
    signed_in("ada")
    log_metric()
    assert server.requests[-1].subject == "ada"


def test_another_host_gets_nothing_of_ours(
    environment: pytest.MonkeyPatch,
    server: GuardedServer,
    issuer: Issuer,
    signed_in: Callable[[str], None],
    tmp_path: Path,
) -> None:
    signed_in("ada")
    (tmp_path / "file").write_text("x")
    with GuardedServer(issuer) as stranger:
        stranger.known_tokens[""] = "anybody"
        upload(f"{stranger.url}/bucket", tmp_path / "file")
        (stored,) = stranger.requests
    assert stored.method == "PUT"
    assert not {"authorization", "idempotency-key", "traceparent"} & stored.headers.keys()


@pytest.mark.parametrize("status", [302, 307, 308])
def test_a_redirect_to_another_host_takes_nothing_of_ours_along(
    environment: pytest.MonkeyPatch,
    server: GuardedServer,
    issuer: Issuer,
    signed_in: Callable[[str], None],
    status: int,
) -> None:
    signed_in("ada")
    with GuardedServer(issuer) as stranger:
        stranger.known_tokens[""] = "anybody"
        server.next_answers = [(status, {"Location": f"{stranger.url}/elsewhere"})]
        log_metric()
        (followed,) = stranger.requests
    assert not {"authorization", "idempotency-key", "traceparent"} & followed.headers.keys()


def test_a_redirect_within_the_server_stays_signed(
    environment: pytest.MonkeyPatch, server: GuardedServer, signed_in: Callable[[str], None]
) -> None:
    signed_in("ada")
    server.next_answers = [(307, {"Location": "/moved"})]
    log_metric()
    first, moved = server.requests
    assert moved.path == "/moved"
    assert moved.subject == "ada"
    assert moved.headers["idempotency-key"] == first.headers["idempotency-key"]


def test_a_second_server_with_a_sign_in_of_its_own_gets_its_own_token(
    environment: pytest.MonkeyPatch,
    server: GuardedServer,
    signed_in: Callable[[str], None],
) -> None:
    signed_in("ada")
    mlflow.set_tracking_uri("http://127.0.0.1:9")
    mlflow.MlflowClient(tracking_uri=server.url).log_metric("0" * 32, "loss", 1.0)
    assert server.requests[-1].subject == "ada"

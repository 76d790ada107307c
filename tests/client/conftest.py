"""An issuer, a server behind it, and an MLflow client that has the plugin and a clean environment.

The plugin is registered by hand in this process; `test_installed.py` finds it by its entry points.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import mlflow
import pytest
from mlflow.tracking._tracking_service import utils as tracking
from mlflow.tracking.request_auth import registry

from harness.guarded_server import GuardedServer
from harness.issuer import Client, Issuer, User
from muniment_client.cache import Cache
from muniment_client.login import sign_in
from muniment_client.provider import MunimentAuthProvider

SWEPT = ("MUNIMENT_", "MLFLOW_", "ACTIONS_", "SSH_CONNECTION", "CI", "TRACEPARENT", "DISPLAY")
SERVICE_SECRET = "a secret/with+signs%"


@pytest.fixture
def issuer() -> Iterator[Issuer]:
    users = [User("ada", "Ada", "ada@example.org", ("ml",)), User("bob", "Bob")]
    clients = [Client("cli"), Client("job", SERVICE_SECRET, groups=("jobs",))]
    with Issuer(users, clients) as running:
        yield running


@pytest.fixture
def server(issuer: Issuer) -> Iterator[GuardedServer]:
    with GuardedServer(issuer) as running:
        yield running


@pytest.fixture
def environment(
    server: GuardedServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> pytest.MonkeyPatch:
    """Set variables on it; MLflow talks to `server` with the plugin, and retries at once."""
    for name in os.environ:
        if name.startswith(SWEPT):
            monkeypatch.delenv(name)
    monkeypatch.setenv("MUNIMENT_CLIENT_CACHE", str(tmp_path / "sign-ins"))
    monkeypatch.setenv("MLFLOW_TRACKING_AUTH", "muniment")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR", "0")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_BACKOFF_JITTER", "0")
    monkeypatch.setattr(registry._request_auth_provider_registry, "_registry", [])
    registry._request_auth_provider_registry.register(  # type: ignore[no-untyped-call]
        MunimentAuthProvider
    )
    # Put back as it was: other tests of this process name their server by the environment.
    monkeypatch.setattr(tracking, "_tracking_uri", None)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.url)
    mlflow.set_tracking_uri(server.url)
    return monkeypatch


@pytest.fixture
def cache(environment: pytest.MonkeyPatch) -> Cache:
    return Cache(Path(os.environ["MUNIMENT_CLIENT_CACHE"]))


@pytest.fixture
def signed_in(server: GuardedServer, issuer: Issuer, cache: Cache) -> Callable[[str], None]:
    """Sign a user in by device flow, without waiting."""

    def sign(subject: str) -> None:
        issuer.lives.device_interval_s = 0

        def approve(text: str) -> None:
            issuer.approve_device(text.partition("code ")[2].split()[0], subject)

        sign_in(server.url, cache, approve, flow="device", environ=os.environ)

    return sign

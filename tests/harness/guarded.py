"""Our server as a process of its own that takes a real Keycloak's tokens, and who calls it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from harness.keycloak import ADMINS, AUDIENCE, CLI_CLIENT, LOGIN_CLIENT, Provider
from harness.server import Server, running_muniment

CALL_S_MAX = 30.0
MLFLOW = "/api/2.0/mlflow"
GRANTS = "/api/v1/access/grants"
WHO = "/api/v1/whoami"


class Guarded:
    """The server. Whoever calls it shows a token, or nothing."""

    def __init__(self, server: Server, issuer: str) -> None:
        self.url = server.url
        self.issuer = issuer
        self._http = httpx.Client(base_url=server.url, timeout=CALL_S_MAX)

    def close(self) -> None:
        """Release connections."""
        self._http.close()

    def ask(
        self, token: str | None, method: str, path: str, json: Any = None, **headers: str
    ) -> httpx.Response:
        """The answer to one request."""
        if token is not None:
            headers["authorization"] = f"Bearer {token}"
        return self._http.request(method, path, json=json, headers=headers)

    def who(self, token: str) -> dict[str, Any]:
        """Whom a token is from; AssertionError when it is refused."""
        answer = self.ask(token, "GET", WHO)
        assert answer.status_code == 200, answer.text
        found = answer.json()
        assert isinstance(found, dict)
        return found

    def create_experiment(self, token: str, name: str) -> httpx.Response:
        """The answer to a wish for an experiment."""
        return self.ask(token, "POST", f"{MLFLOW}/experiments/create", {"name": name})

    def experiment(self, token: str, name: str) -> str:
        """The id of a new experiment."""
        answer = self.create_experiment(token, name)
        assert answer.status_code == 200, answer.text
        return str(answer.json()["experiment_id"])

    def experiments(self, token: str) -> set[str]:
        """The names of the experiments that somebody is told of."""
        answer = self.ask(token, "POST", f"{MLFLOW}/experiments/search", {"max_results": 1000})
        assert answer.status_code == 200, answer.text
        return {found["name"] for found in answer.json().get("experiments", [])}

    def grant_group(self, admin: str, group: str, role: str, pattern: str) -> None:
        """An admin gives a group of Keycloak's a role on experiments."""
        subject = {"subject_kind": "group", "subject": group, "issuer": self.issuer}
        self._grant(admin, {**subject, "role": role, "pattern": pattern})

    def grant(self, admin: str, token: str, role: str, pattern: str) -> None:
        """An admin gives whom a token is from a role on experiments."""
        subject = {"subject_kind": "principal", "subject": self.who(token)["principal_id"]}
        self._grant(admin, {**subject, "role": role, "pattern": pattern})

    def _grant(self, admin: str, body: dict[str, str]) -> None:
        answer = self.ask(admin, "POST", GRANTS, {**body, "resource_kind": "experiment"})
        assert answer.status_code == 200, answer.text


@contextmanager
def running_guarded(data_dir: Path, provider: Provider) -> Iterator[Guarded]:
    """A server that knows callers by this Keycloak only."""
    arguments = ["--issuer", provider.issuer, "--audience", AUDIENCE, "--admin-group", ADMINS]
    arguments += ["--login-client", LOGIN_CLIENT, "--cli-client", CLI_CLIENT]
    with running_muniment(data_dir, extra_args=arguments) as server:
        guarded = Guarded(server, provider.issuer)
        try:
            yield guarded
        finally:
            guarded.close()

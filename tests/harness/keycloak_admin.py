"""What an administrator of a real Keycloak changes for a test, and changes back."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import httpx
from local_keycloak import REALM, REALM_FILE

from harness.keycloak import CALL_S_MAX, JOB_CLIENT, Provider

LIFE = "access.token.lifespan"
EVENTS_MAX = 1000


class Administrator:
    """Keycloak's administrator, at work in the realm."""

    def __init__(self, provider: Provider) -> None:
        self._provider = provider
        self._realm = f"{provider.keycloak.url}/admin/realms/{REALM}"

    @contextmanager
    def token_life(self, client: str, seconds: int) -> Iterator[None]:
        """Access tokens of a client live so long."""
        (found,) = self._get("/clients", clientId=client)
        path = f"/clients/{found['id']}"
        changed = {**found, "attributes": {**found["attributes"], LIFE: str(seconds)}}
        self._ask("PUT", path, changed)
        try:
            yield
        finally:
            self._ask("PUT", path, {**found, "attributes": {**found["attributes"], LIFE: ""}})

    @contextmanager
    def refresh_tokens_work_once(self) -> Iterator[None]:
        """A refresh token that comes a second time ends the session that it is of."""
        self._ask("PUT", "", {"revokeRefreshToken": True, "refreshTokenMaxReuse": 0})
        try:
            yield
        finally:
            self._ask("PUT", "", {"revokeRefreshToken": False})

    @contextmanager
    def recorded(self, *kinds: str) -> Iterator[None]:
        """Keycloak keeps what happens of these kinds, and nothing of before."""
        self._ask("DELETE", "/events")
        self._ask("PUT", "/events/config", {"eventsEnabled": True, "enabledEventTypes": kinds})
        try:
            yield
        finally:
            self._ask("PUT", "/events/config", {"eventsEnabled": False})

    def happened(self, kind: str, client: str) -> int:
        """How often something happened with a client, while it was recorded."""
        return len(self._get("/events", type=kind, client=client, max=EVENTS_MAX))

    @contextmanager
    def job_with_key(self, client: str, public_key: Mapping[str, Any]) -> Iterator[None]:
        """A job like the realm's own, which proves itself with a key. public_key: a JWK."""
        realm = json.loads(REALM_FILE.read_text("utf-8"))
        (like,) = (one for one in realm["clients"] if one["clientId"] == JOB_CLIENT)
        keys = {"use.jwks.string": "true", "jwks.string": json.dumps({"keys": [public_key]})}
        own = {"clientId": client, "clientAuthenticatorType": "client-jwt", "attributes": keys}
        self._ask("POST", "/clients", {**like, **own, "secret": None})
        try:
            yield
        finally:
            (found,) = self._get("/clients", clientId=client)
            self._ask("DELETE", f"/clients/{found['id']}")

    @contextmanager
    def taken_out(self, name: str, group: str) -> Iterator[None]:
        """A person is in no group of that name, until the end."""
        user = self._user(name)
        (found,) = (g for g in self._get("/groups", search=group) if g["name"] == group)
        self._ask("DELETE", f"/users/{user}/groups/{found['id']}")
        try:
            yield
        finally:
            self._ask("PUT", f"/users/{user}/groups/{found['id']}")

    def log_out(self, name: str) -> None:
        """End all of a person's sessions."""
        self._ask("POST", f"/users/{self._user(name)}/logout")

    def _user(self, name: str) -> str:
        (found,) = self._get("/users", username=name, exact="true")
        return str(found["id"])

    def _get(self, path: str, **query: str | int) -> Any:
        return self._ask("GET", f"{path}?{httpx.QueryParams(query)}").json()

    def _ask(self, method: str, path: str, body: object = None) -> httpx.Response:
        headers = {"authorization": f"Bearer {self._provider.admin_token()}"}
        url = f"{self._realm}{path}"
        answer = httpx.request(method, url, json=body, headers=headers, timeout=CALL_S_MAX)
        assert answer.is_success, answer.text
        return answer

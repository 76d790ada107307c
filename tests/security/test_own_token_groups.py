"""Tokens of muniment's own: by groups they hold what their owner's latest sign-in showed."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from harness.signed_in import ADMINS, MLFLOW, Served, served
from muniment_auth.credentials import DAY_MS
from muniment_auth.principal import principal_id
from muniment_schemas.envelope import CATALOG, Event
from muniment_schemas.ids import Offset
from muniment_services.api.services import Services
from muniment_services.domain.principal import KIND, PrincipalState
from muniment_services.log.base import TopicPartition

CREATE = f"{MLFLOW}experiments/create"
ROLES = "/api/v1/access/roles/tried"
ROLE = {"permissions": ["run:read"]}
DAYS = 30


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder: Path = tmp_path_factory.mktemp("own-tokens")
    with served(folder, token_groups_days=DAYS) as found:
        yield found


class Owner:
    """Somebody with a token of muniment's own. Each sign-in is a second after the last one."""

    def __init__(self, server: Served, name: str, *groups: str) -> None:
        self.server, self.name = server, name
        self._issued_s = int(time.time()) - 3000
        made = self.sign_in(*groups, body={"name": "laptop"})
        assert made.status_code == 200, made.text
        self.token, self.token_id = made.json()["secret"], made.json()["token"]["id"]

    def provided(self, *groups: str) -> str:
        """A new token of the provider."""
        self._issued_s += 1
        return self.server.provider.token(sub=self.name, groups=list(groups), iat=self._issued_s)

    def sign_in(self, *groups: str, body: Any = None) -> httpx.Response:
        """Call with a new token of the provider: read, or make a token."""
        return self.call(self.provided(*groups), "/api/v1/tokens", body)

    def call(self, token: str, path: str, body: Any = None, method: str = "") -> httpx.Response:
        """Call with some token."""
        headers = {"authorization": f"Bearer {token}"}
        method = method or ("GET" if body is None else "POST")
        return self.server.ask(None, method, path, body, headers=headers)

    def defines_a_role(self) -> httpx.Response:
        """What only admins do, with the own token."""
        return self.call(self.token, ROLES, ROLE, "PUT")

    @property
    def noted(self) -> PrincipalState:
        """What the log has of the owner."""
        services = self.server.gateway.services
        assert services is not None
        owner_id = principal_id(self.server.provider.url, self.name)
        found = services.fold.state.get(KIND, owner_id)
        assert isinstance(found, PrincipalState)
        return found


def services_of(server: Served) -> Services:
    assert server.gateway.services is not None
    return server.gateway.services


def test_who_is_taken_out_of_the_admins_is_no_admin_by_an_old_token(server: Served) -> None:
    anna = Owner(server, "anna", ADMINS)
    assert anna.defines_a_role().status_code == 200
    old = anna.provided(ADMINS)
    assert anna.sign_in().status_code == 200
    assert anna.defines_a_role().status_code == 403
    assert anna.call(old, "/api/v1/tokens").status_code == 200
    assert anna.defines_a_role().status_code == 403, "a token from before says nothing new"
    assert anna.sign_in(ADMINS).status_code == 200
    assert anna.defines_a_role().status_code == 200


def test_only_what_is_news_is_noted(server: Served) -> None:
    bert = Owner(server, "bert", "ml")
    version = bert.noted.version
    for _ in range(3):
        bert.sign_in("ml")
    assert bert.noted.version == version
    bert.sign_in("ops")
    assert bert.noted.version == version + 1
    assert bert.noted.sign_in is not None
    assert bert.noted.sign_in.groups == ("ops",)


def test_who_has_only_read_is_known_as_the_trail_names_readers(server: Served) -> None:
    headers = {"authorization": f"Bearer {server.provider.token(sub='reader', groups=['ml'])}"}
    server.ask(None, "GET", "/api/v1/tokens", headers=headers)
    reader = principal_id(server.provider.url, "reader")
    noted = services_of(server).fold.state.get(KIND, reader)
    assert isinstance(noted, PrincipalState)
    assert noted.sign_in is not None
    assert noted.sign_in.groups == ("ml",)


def test_groups_count_for_a_time_and_direct_grants_for_ever(server: Served) -> None:
    cleo = Owner(server, "cleo", ADMINS)
    server.grant("cleo", "editor", "experiment", "cleo-*")
    services = services_of(server)
    assert cleo.noted.sign_in is not None
    end_ms = cleo.noted.sign_in.vouched_at_ms + DAYS * DAY_MS
    try:
        at(server, services, end_ms - 1)
        assert cleo.defines_a_role().status_code == 200
        at(server, services, end_ms)
        refused = cleo.defines_a_role()
        assert refused.status_code == 403
        assert "its owner last signed in on" in refused.json()["message"]
        assert cleo.call(cleo.token, CREATE, {"name": "cleo-1"}).status_code == 200
        asked = "/api/v1/access/explain?permission=access:grant&resource=server"
        explained = cleo.call(cleo.token, asked).json()
        assert not explained["allowed"]
        assert "last signed in" in str(explained)
        (listed,) = cleo.call(cleo.token, "/api/v1/tokens").json()["tokens"]
        assert "last signed in" in listed["groups_unknown"]
        assert listed["state"] == "live"
        cleo.sign_in(ADMINS)
        at(server, services, end_ms + 1)
    finally:
        server.gateway.open(services)
    assert cleo.defines_a_role().status_code == 200
    assert "groups_unknown" not in cleo.call(cleo.token, "/api/v1/tokens").json()["tokens"][0]


def at(server: Served, services: Services, at_ms: int) -> None:
    """Have the server look at its own tokens at another time."""
    server.gateway.open(dataclasses.replace(services, now_ms=lambda: at_ms))


def test_events_say_by_which_token_they_were_made(server: Served) -> None:
    dora = Owner(server, "dora")
    server.grant("dora", "editor", "experiment", "dora-*")
    provided = server.provider.token(sub="dora", groups=[], jti="jti-of-dora")
    for number, token in enumerate((dora.token, provided)):
        assert dora.call(token, CREATE, {"name": f"dora-{number}"}).status_code == 200
    owner = principal_id(server.provider.url, "dora")
    acted = [
        event.envelope.actor.token_id
        for event in catalog(services_of(server))
        if event.envelope.actor.principal_id == owner and event.envelope.type == "ExperimentCreated"
    ]
    assert acted == [dora.token_id, "jti-of-dora"]


def catalog(services: Services) -> list[Event]:
    """All events of the catalog."""
    log, codec = services.writer._log, services.writer._codec
    at_ = TopicPartition(CATALOG, 0)
    end = services.fold.state.next_offsets[at_]
    return [codec.decode(record.value) for record in log.read(at_, Offset(0), end)]

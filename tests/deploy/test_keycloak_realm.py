"""The realm that `deploy/scripts/keycloak` brings along says what sign-in needs of a realm."""

from __future__ import annotations

import json
from typing import Any

import pytest
from local_keycloak import REALM, REALM_FILE

realm: dict[str, Any] = json.loads(REALM_FILE.read_text("utf-8"))
CLIENTS = {client["clientId"]: client for client in realm["clients"]}


def test_it_leaves_keycloak_its_own_scopes() -> None:
    # With a list of its own, Keycloak makes none of the built-in ones, and tokens have no `sub`.
    assert realm["realm"] == REALM
    assert not realm.keys() & {"clientScopes", "defaultDefaultClientScopes"}


@pytest.mark.parametrize("name", CLIENTS)
def test_a_client_s_tokens_tell_groups_and_are_for_muniment(name: str) -> None:
    mappers = {
        mapper["protocolMapper"]: mapper["config"] for mapper in CLIENTS[name]["protocolMappers"]
    }
    groups = mappers["oidc-group-membership-mapper"]
    assert groups["claim.name"] == "groups"
    assert groups["full.path"] == "false"
    assert groups["access.token.claim"] == groups["id.token.claim"] == "true"
    audience = mappers["oidc-audience-mapper"]
    assert audience["included.custom.audience"] == "muniment"
    assert audience["access.token.claim"] == "true"


@pytest.mark.parametrize("name", CLIENTS)
def test_a_client_sends_browsers_to_this_machine_only(name: str) -> None:
    for uri in CLIENTS[name].get("redirectUris", []):
        assert uri.startswith(("http://127.0.0.1/", "http://localhost/")), uri


def test_passwords_are_taken_by_the_tests_client_alone() -> None:
    assert [n for n, c in CLIENTS.items() if c["directAccessGrantsEnabled"]] == ["test-password"]
    assert [n for n, c in CLIENTS.items() if not c["publicClient"]] == ["trainer"]
    assert CLIENTS["muniment"]["attributes"]["pkce.code.challenge.method"] == "S256"

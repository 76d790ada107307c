"""What a real Keycloak says when a login is renewed: as it is now, not as it was at the login."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator

import pytest

from harness.keycloak import AUDIENCE, PASSWORD_CLIENT, Provider
from harness.keycloak_admin import Administrator
from muniment_auth.authenticate import Authenticator
from muniment_auth.code_flow import CodeFlow, LoginEnded
from muniment_auth.errors import AuthError
from muniment_auth.issuers import Issuer
from muniment_auth.sessions import Renewal
from muniment_services.clock import now_ms

pytestmark = pytest.mark.slow

PERSON, GROUP = "ben", "ml-team"


@pytest.fixture
def administrator(keycloak: Provider) -> Iterator[Administrator]:
    """Who changes persons; whoever logged in is logged out at the end."""
    found = Administrator(keycloak)
    yield found
    found.log_out(PERSON)


def flow_with(authenticator: Authenticator, issuer: Issuer) -> CodeFlow:
    """The server's part in logins of a client that also takes passwords."""
    where = "https://muniment.example/login/callback"
    issuers = {issuer.name: issuer}
    return CodeFlow(authenticator, issuers, where, now_ms, os.urandom, (AuthError,))


def test_a_renewed_login_has_the_groups_of_now_and_ends_with_the_session(
    keycloak: Provider, administrator: Administrator
) -> None:
    async def run() -> None:
        trusted = ("keycloak", keycloak.issuer, (AUDIENCE,), "keycloak")
        issuer = Issuer(*trusted, client_id=PASSWORD_CLIENT)
        refresh = keycloak.person(PERSON).refresh
        assert refresh is not None
        authenticator = Authenticator([issuer])
        try:
            flow = flow_with(authenticator, issuer)
            found = await flow.renew(keycloak.issuer, Renewal(refresh, "of the login"))
            assert GROUP in found.principal.groups
            with administrator.taken_out(PERSON, GROUP):
                assert found.renewal is not None
                found = await flow.renew(keycloak.issuer, found.renewal)
                assert GROUP not in found.principal.groups
            administrator.log_out(PERSON)
            assert found.renewal is not None
            with pytest.raises(LoginEnded):
                await flow.renew(keycloak.issuer, found.renewal)
        finally:
            await authenticator.close()

    asyncio.run(run())

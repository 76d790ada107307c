"""A token or session of another replica counts here as soon as it was told."""

from __future__ import annotations

import asyncio
import dataclasses
import os
from collections.abc import Collection
from pathlib import Path

import pytest

from harness.login_stage import Stage, on_stage
from muniment_auth.credentials import Credentials, CredentialUnknown, StoredCredential
from muniment_auth.sessions import SESSION_COOKIE
from muniment_auth.tokens import TOKEN_PREFIX, new_secret
from muniment_schemas.credential_events import PERSONAL
from muniment_services.api.issuing import Wish, issue
from muniment_services.api.own_credentials import by_session, by_token
from muniment_services.api.services import Services
from muniment_services.clock import now_ms
from muniment_services.domain.credential import KIND, Credential
from muniment_services.write import Caller


def behind(services: Services) -> tuple[Services, list[str]]:
    """The same, but it finds a credential only after a look at the log; the looks are noted."""
    looks: list[str] = []

    def find(credential_id: str) -> StoredCredential | None:
        found = services.fold.state.get(KIND, credential_id)
        assert found is None or isinstance(found, Credential)
        return found if looks else None

    class Behind(Services):
        async def caught_up(self, topics: Collection[str] = ()) -> None:
            looks.append("look")

    fields = {f.name: getattr(services, f.name) for f in dataclasses.fields(services)}
    fields["credentials"] = Credentials(
        find,
        services.identities.subject_and_name,
        None,
        services.identities.latest_sign_in,
        groups_days=30,
    )
    return Behind(**fields), looks


def test_a_token_that_is_not_folded_yet_is_asked_for_again(tmp_path: Path) -> None:
    async def test(stage: Stage) -> None:
        anna = stage.provider.principal("corp", "anna")
        caller = Caller(actor=anna.actor, request_id="r", workspace="default")
        wish = Wish(PERSONAL, "laptop", expires_at_ms=now_ms() + 60_000)
        secret, _ = await issue(stage.services.writer, caller, anna, wish, None)
        late, looks = behind(stage.services)
        assert (await by_token(late, secret.text)).id == anna.id
        assert (await by_token(late, secret.text)).id == anna.id
        assert looks == ["look"]

    on_stage(tmp_path, test)


def test_a_session_that_is_not_folded_yet_is_asked_for_again(tmp_path: Path) -> None:
    async def test(stage: Stage) -> None:
        browser = stage.browser()
        await browser.log_in()
        cookie = f"{SESSION_COOKIE}={browser.cookies[SESSION_COOKIE]}".encode()
        late, looks = behind(stage.services)
        found = await by_session(late, "GET", {b"cookie": cookie})
        assert found is not None
        assert (found.name, looks) == ("Anna", ["look"])
        assert await by_session(late, "GET", {}) is None

    on_stage(tmp_path, test)


def test_what_nobody_made_is_looked_for_once(tmp_path: Path) -> None:
    async def test(stage: Stage) -> None:
        late, looks = behind(stage.services)
        invented = new_secret(TOKEN_PREFIX, os.urandom).text
        for expected in (1, 2):
            with pytest.raises(CredentialUnknown):
                await by_token(late, invented)
            assert len(looks) == expected
        results = await asyncio.gather(
            *(by_token(stage.services, invented) for _ in range(50)), return_exceptions=True
        )
        assert {type(result) for result in results} == {CredentialUnknown}

    on_stage(tmp_path, test)

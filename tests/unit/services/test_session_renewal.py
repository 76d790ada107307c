"""A browser's session says what its identity provider says now, or ends."""

from __future__ import annotations

import asyncio
import dataclasses
from pathlib import Path

import httpx2
import pytest

from harness.login_stage import Stage, on_stage
from muniment_auth.credentials import CredentialError, CredentialExpired, CredentialUnknown
from muniment_auth.errors import ProviderUnavailable
from muniment_auth.principal import Principal
from muniment_auth.sessions import SESSION_COOKIE, open_renewal
from muniment_auth.tokens import SESSION_PREFIX, Secret, parse
from muniment_services.api.own_credentials import by_session
from muniment_services.api.session_renewal import AGAIN_MS
from muniment_services.clock import now_ms
from muniment_services.domain.limits import SESSION_GRACE_MS, SESSION_RENEWED_MS


class Clocked:
    """A browser that is logged in, asking at times that the test chooses."""

    def __init__(self, stage: Stage, cookie: str) -> None:
        self.stage = stage
        self.secret: Secret | None = parse(cookie, SESSION_PREFIX)
        self._cookie = f"{SESSION_COOKIE}={cookie}".encode()
        self._start_ms = stage.sessions()[0].said.vouched_at_ms

    async def ask(self, after_ms: int) -> Principal:
        """Who the server says it is, so long after the login."""
        at_ms = self._start_ms + after_ms
        self.stage.provider.now_ms = lambda: at_ms
        services = dataclasses.replace(self.stage.services, now_ms=lambda: at_ms)
        found = await by_session(services, "GET", {b"cookie": self._cookie})
        assert found is not None
        return found


async def logged_in(stage: Stage) -> Clocked:
    browser = stage.browser()
    await browser.log_in()
    return Clocked(stage, browser.cookies[SESSION_COOKIE])


def questions(stage: Stage) -> int:
    """How often the provider was asked to renew."""
    return sum(form["grant_type"] == "refresh_token" for _, form in stage.provider.asked)


def test_groups_are_asked_for_anew_and_hold_for_the_owners_tokens_too(tmp_path: Path) -> None:
    async def test(stage: Stage) -> None:
        anna = await logged_in(stage)
        stage.provider.groups = frozenset({"ops"})
        assert (await anna.ask(SESSION_RENEWED_MS - 1)).groups == {"ml"}
        assert questions(stage) == 0
        assert (await anna.ask(SESSION_RENEWED_MS)).groups == {"ops"}
        assert (await anna.ask(SESSION_RENEWED_MS * 2 - 1)).groups == {"ops"}
        assert questions(stage) == 1
        assert (await anna.ask(SESSION_RENEWED_MS * 2)).groups == {"ops"}
        assert questions(stage) == 2, "with the refresh token of the first answer"
        (session,) = stage.sessions()
        latest = stage.services.identities.latest_sign_in(session.principal_id)
        assert latest is not None
        assert latest.groups == ("ops",)

    on_stage(tmp_path, test)


def test_who_asks_at_once_waits_for_one_answer(tmp_path: Path) -> None:
    async def test(stage: Stage) -> None:
        anna = await logged_in(stage)
        found = await asyncio.gather(*(anna.ask(SESSION_RENEWED_MS) for _ in range(20)))
        assert len(found) == 20
        assert questions(stage) == 1

    on_stage(tmp_path, test)


def test_a_login_that_is_over_at_the_provider_is_over_here(tmp_path: Path) -> None:
    async def test(stage: Stage) -> None:
        anna = await logged_in(stage)
        stage.provider.logins.clear()
        with pytest.raises(CredentialExpired):
            await anna.ask(SESSION_RENEWED_MS)
        assert stage.sessions() == []
        with pytest.raises(CredentialUnknown):
            await anna.ask(0)

    on_stage(tmp_path, test)


def test_an_answer_about_somebody_else_ends_the_session(tmp_path: Path) -> None:
    async def test(stage: Stage) -> None:
        anna = await logged_in(stage)
        for login in stage.provider.logins.values():
            login["sub"] = "mallory"
        with pytest.raises(CredentialError):
            await anna.ask(SESSION_RENEWED_MS)
        assert stage.sessions() == []

    on_stage(tmp_path, test)


def test_a_refresh_token_that_another_server_used_ends_nothing(tmp_path: Path) -> None:
    async def test(stage: Stage) -> None:
        anna = await logged_in(stage)
        before = dataclasses.replace(stage.services)
        # The other server has its own questions under way; both know the same refresh token.
        other = dataclasses.replace(before, renewals=type(before.renewals)(lambda n: b"r" * n))
        there = Clocked(dataclasses.replace(stage, services=other), _text(anna))
        first, second = await asyncio.gather(
            anna.ask(SESSION_RENEWED_MS), there.ask(SESSION_RENEWED_MS)
        )
        assert first.id == second.id
        assert questions(stage) == 2
        assert len(stage.sessions()) == 1

    on_stage(tmp_path, test)


@pytest.mark.parametrize("how", ["down", "broken", "no id token"])
def test_while_the_provider_cannot_say_old_groups_count_for_a_while(
    tmp_path: Path, how: str
) -> None:
    async def test(stage: Stage) -> None:
        anna = await logged_in(stage)
        answers = {
            "down": None,
            "broken": httpx2.Response(500, text="oh"),
            "no id token": httpx2.Response(200, json={"access_token": "a", "token_type": "Bearer"}),
        }
        stage.provider.down = how == "down"
        stage.provider.token_answer = answers[how]
        assert (await anna.ask(SESSION_RENEWED_MS)).groups == {"ml"}
        asked = questions(stage)
        assert (await anna.ask(SESSION_RENEWED_MS + AGAIN_MS - 1)).groups == {"ml"}
        assert questions(stage) == asked, "it is let alone for a while"
        assert (await anna.ask(SESSION_GRACE_MS - 1)).groups == {"ml"}
        with pytest.raises(ProviderUnavailable) as raised:
            await anna.ask(SESSION_GRACE_MS)
        assert raised.value.retry_after_s == AGAIN_MS // 1000
        stage.provider.down, stage.provider.token_answer = False, None
        assert (await anna.ask(SESSION_GRACE_MS + AGAIN_MS)).groups == {"ml"}

    on_stage(tmp_path, test)


def test_without_a_refresh_token_a_session_is_short(tmp_path: Path) -> None:
    async def test(stage: Stage) -> None:
        stage.provider.renews = False
        browser = stage.browser()
        answer = await browser.log_in()
        assert any(f"Max-Age={SESSION_GRACE_MS // 1000}" in c for c in answer.all("set-cookie"))
        (session,) = stage.sessions()
        assert session.expires_at_ms <= now_ms() + SESSION_GRACE_MS
        anna = Clocked(stage, browser.cookies[SESSION_COOKIE])
        assert (await anna.ask(SESSION_GRACE_MS - 1000)).groups == {"ml"}
        with pytest.raises(CredentialExpired):
            await anna.ask(SESSION_GRACE_MS + 1000)

    on_stage(tmp_path, test)


def test_a_refresh_token_is_kept_sealed_under_what_only_the_browser_has(tmp_path: Path) -> None:
    async def test(stage: Stage) -> None:
        anna = await logged_in(stage)
        (session,) = stage.sessions()
        (refresh_token,) = stage.provider.logins
        assert anna.secret is not None
        assert session.renewal_sealed is not None
        opened = open_renewal(anna.secret, session.renewal_sealed)
        assert opened is not None
        assert opened.refresh_token == refresh_token
        assert refresh_token not in repr(opened)
        assert refresh_token.encode() not in session.renewal_sealed
        other = Secret(SESSION_PREFIX, anna.secret.id, "0" * 43)
        assert open_renewal(other, session.renewal_sealed) is None
        elsewhere = Secret(SESSION_PREFIX, "0" * 16, anna.secret.secret)
        assert open_renewal(elsewhere, session.renewal_sealed) is None

    on_stage(tmp_path, test)


def _text(browser: Clocked) -> str:
    assert browser.secret is not None
    return browser.secret.text

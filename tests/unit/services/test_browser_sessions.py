"""Browser sessions: begun anew, ended at once, and written by their own pages only."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from harness.door import PUBLIC_URL
from harness.login_stage import ORIGIN, Stage, on_stage
from muniment_auth.credentials import principal_of
from muniment_auth.sessions import SESSION_COOKIE
from muniment_auth.tokens import SESSION_PREFIX, Secret, parse
from muniment_schemas.credential_events import SESSION
from muniment_services.api.issuing import Wish, issue
from muniment_services.api.login import SESSIONS_KEPT_MAX
from muniment_services.clock import now_ms
from muniment_services.domain.limits import SESSION_LIFE_MS
from muniment_services.write import Caller


def test_a_new_login_is_a_new_session_and_ends_the_old_one(tmp_path: Path) -> None:
    async def test(stage: Stage) -> None:
        browser = stage.browser()
        await browser.log_in()
        old = dict(browser.cookies)
        stage.provider.subject = "bert"
        await browser.log_in()
        assert browser.cookies[SESSION_COOKIE] != old[SESSION_COOKIE]
        assert (await browser.who())["name"] == "Bert"
        assert await stage.browser(old).who() == {"status": 401, "reason": "unknown"}
        assert len(stage.sessions()) == 1

    on_stage(tmp_path, test)


def test_a_session_that_somebody_planted_is_not_the_one_after_the_login(tmp_path: Path) -> None:
    async def test(stage: Stage) -> None:
        attacker = stage.browser()
        stage.provider.subject = "mallory"
        await attacker.log_in()
        planted = dict(attacker.cookies)
        victim = stage.browser(planted)
        stage.provider.subject = "anna"
        await victim.log_in()
        assert victim.cookies[SESSION_COOKIE] != planted[SESSION_COOKIE]
        assert (await attacker.who())["status"] == 401
        invented = stage.browser({SESSION_COOKIE: "mns_invented"})
        await invented.log_in()
        assert invented.cookies[SESSION_COOKIE] != "mns_invented"

    on_stage(tmp_path, test)


def test_nobody_ends_a_session_by_knowing_its_id(tmp_path: Path) -> None:
    async def test(stage: Stage) -> None:
        anna = stage.browser()
        await anna.log_in()
        stage.provider.subject = "mallory"
        other = stage.browser()
        await other.log_in()
        theirs = parse(anna.cookies[SESSION_COOKIE], SESSION_PREFIX)
        own = parse(other.cookies[SESSION_COOKIE], SESSION_PREFIX)
        assert theirs is not None
        assert own is not None
        forged = Secret(SESSION_PREFIX, theirs.id, own.secret).text
        await stage.browser({SESSION_COOKIE: forged}).log_in()
        assert (await anna.who())["name"] == "Anna"

    on_stage(tmp_path, test)


def test_logout_needs_the_sessions_own_page_and_ends_it_at_once(tmp_path: Path) -> None:
    async def test(stage: Stage) -> None:
        browser = stage.browser()
        await browser.log_in()
        kept = dict(browser.cookies)
        page = await browser.ask("GET", "/logout")
        assert (await browser.who())["status"] == 200, "a link logs nobody out"
        assert "form-action 'self' https://id.example" in page.header("content-security-policy")
        assert page.header("referrer-policy") == "same-origin"
        token = re.findall(r'name="csrf_token" value="(\w+)"', page.body.decode())[0]
        form = {"content-type": "application/x-www-form-urlencoded", **ORIGIN}
        sent = f"csrf_token={token}".encode()
        for body, headers in (
            (b"", form),
            (b"csrf_token=wrong", form),
            (sent, form | {"origin": "https://evil.example"}),
            (sent, {k: v for k, v in form.items() if k != "origin"}),
        ):
            refused = await stage.browser(kept).ask("POST", "/logout", body, headers=headers)
            assert refused.status == 403
            assert refused.all("set-cookie") == []
        done = await browser.ask("POST", "/logout", sent, headers=form)
        assert done.status == 303
        asked = parse_qs(urlsplit(done.header("location")).query)
        assert done.header("location").startswith("https://id.example/logout?")
        assert asked["post_logout_redirect_uri"] == [f"{PUBLIC_URL}/logout"]
        assert browser.cookies == {}
        assert await stage.browser(kept).who() == {"status": 401, "reason": "unknown"}
        assert stage.sessions() == []
        again = await stage.browser(kept).ask("POST", "/logout", sent, headers=form)
        assert again.status == 200

    on_stage(tmp_path, test)


def test_a_program_logs_out_by_header_and_hears_where_to_go(tmp_path: Path) -> None:
    async def test(stage: Stage) -> None:
        browser = stage.browser()
        await browser.log_in()
        csrf = (await browser.who())["csrf_token"]
        done = await browser.ask("POST", "/logout", headers={"x-csrf-token": csrf, **ORIGIN})
        assert done.json["end_session_url"].startswith("https://id.example/logout?client_id=")
        assert (await stage.browser().ask("POST", "/logout")).json == {"end_session_url": None}

    on_stage(tmp_path, test)


def test_logout_works_while_the_provider_does_not(tmp_path: Path) -> None:
    async def test(stage: Stage) -> None:
        browser = stage.browser()
        await browser.log_in()
        csrf = (await browser.who())["csrf_token"]
        stage.provider.down = True
        done = await browser.ask("POST", "/logout", headers={"x-csrf-token": csrf, **ORIGIN})
        assert done.json == {"end_session_url": None}
        assert stage.sessions() == []

    on_stage(tmp_path, test)


def test_writes_of_a_session_need_its_csrf_token(tmp_path: Path) -> None:
    async def test(stage: Stage) -> None:
        anna, bert = stage.browser(), stage.browser()
        await anna.log_in()
        stage.provider.subject = "bert"
        await bert.log_in()
        own, others = (await anna.who())["csrf_token"], (await bert.who())["csrf_token"]
        assert own != others
        body = {"name": "laptop"}
        for headers in (
            ORIGIN,
            {"x-csrf-token": own},
            {"x-csrf-token": others, **ORIGIN},
            {"x-csrf-token": own, "origin": "https://evil.example"},
            {"x-csrf-token": own, "origin": "null"},
        ):
            answer = await anna.ask("POST", "/api/v1/tokens", body, headers=headers)
            assert (answer.status, answer.json) == (403, {"reason": "csrf"})
        made = await anna.ask(
            "POST", "/api/v1/tokens", body, headers={"x-csrf-token": own, **ORIGIN}
        )
        assert made.status == 200
        assert made.json["token"]["maker_id"] == (await anna.who())["credential_id"]

    on_stage(tmp_path, test)


def test_a_session_ends_after_twelve_hours(tmp_path: Path) -> None:
    async def test(stage: Stage) -> None:
        browser = stage.browser()
        await browser.log_in()
        (session,) = stage.sessions()
        assert session.expires_at_ms - session.issued_at_ms <= SESSION_LIFE_MS
        later = stage.browser(browser.cookies, session.expires_at_ms)
        assert await later.who() == {"status": 401, "reason": "expired"}
        sooner = stage.browser(browser.cookies, session.expires_at_ms - 1)
        assert (await sooner.who())["status"] == 200

    on_stage(tmp_path, test)


def test_a_login_clears_the_sessions_that_nobody_ended(tmp_path: Path) -> None:
    async def test(stage: Stage) -> None:
        await stage.browser().log_in()
        (first,) = stage.sessions()
        wish = Wish(SESSION, "browser", expires_at_ms=now_ms() + 20)
        anna = principal_of(first, first.said)
        caller = Caller(actor=anna.actor, request_id="r", workspace="default")
        _, short = await issue(stage.services.writer, caller, anna, wish, None)
        while now_ms() < short.expires_at_ms:  # noqa: ASYNC110
            await asyncio.sleep(0.005)
        await stage.browser().log_in()
        ids = [found.credential_id for found in stage.sessions()]
        assert len(ids) == 2
        assert first.credential_id in ids
        assert short.credential_id not in ids

    on_stage(tmp_path, test)


def test_of_too_many_sessions_the_oldest_goes(tmp_path: Path) -> None:
    async def test(stage: Stage) -> None:
        browsers = [stage.browser() for _ in range(SESSIONS_KEPT_MAX + 2)]
        for browser in browsers:
            await browser.log_in()
        assert len(stage.sessions()) == SESSIONS_KEPT_MAX
        answers = [(await browser.who())["status"] for browser in browsers]
        assert answers == [401, 401] + [200] * SESSIONS_KEPT_MAX

    on_stage(tmp_path, test)


def test_sessions_survive_a_restart_and_ended_ones_do_not_come_back(tmp_path: Path) -> None:
    kept: list[dict[str, str]] = []

    async def test(stage: Stage) -> None:
        for _ in range(2):
            browser = stage.browser()
            await browser.log_in()
            kept.append(dict(browser.cookies))
        csrf = (await stage.browser(kept[0]).who())["csrf_token"]
        await stage.services.read(lambda connection: connection.execute("SELECT 1").fetchall())
        headers = {"x-csrf-token": csrf, **ORIGIN}
        await stage.browser(kept[0]).ask("POST", "/logout", headers=headers)

    async def later(stage: Stage) -> None:
        assert await stage.browser(kept[0]).who() == {"status": 401, "reason": "unknown"}
        assert (await stage.browser(kept[1]).who())["name"] == "Anna"
        assert len(stage.sessions()) == 1

    on_stage(tmp_path, test)
    on_stage(tmp_path, later)
    for file in tmp_path.glob("projections*"):
        file.unlink()
    on_stage(tmp_path, later)

"""Login by browser, from the first redirect to the session, and what must not work."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx2
import pytest

from harness.door import PUBLIC_URL
from harness.login_stage import CORP, PARTNER, Browser, Stage, on_stage
from muniment_auth.sessions import LOGIN_COOKIE, LOGIN_LIFE_MS, SESSION_COOKIE
from muniment_services.clock import now_ms


def test_a_login_from_the_first_redirect_to_the_page_that_was_asked_for(tmp_path: Path) -> None:
    async def test(stage: Stage) -> None:
        browser = stage.browser()
        begun = await browser.ask("GET", "/login", query={"return_to": "/x?y=1"})
        location = begun.header("location")
        asked = parse_qs(urlsplit(location).query)
        assert location.startswith("https://id.example/authorize?tenant=1&")
        assert asked["redirect_uri"] == [f"{PUBLIC_URL}/login/callback"]
        assert asked["client_id"] == ["muniment"]
        assert len(asked["state"][0]) == len(asked["nonce"][0]) == 64
        assert begun.header("cache-control") == "no-store"
        back = await browser.ask("GET", "/login/callback", query=stage.provider.agree(location))
        assert (back.status, back.header("location")) == (303, "/x?y=1")
        assert set(browser.cookies) == {SESSION_COOKIE}, "the login's own cookie is gone"
        for cookie in back.all("set-cookie"):
            assert {"Secure", "HttpOnly", "SameSite=Lax", "Path=/"} <= set(cookie.split("; "))
        told = await browser.who()
        assert told["status"] == 200
        assert (told["name"], told["kind"], told["issuer"]) == ("Anna", "user", CORP.url)
        assert (told["groups"], told["auth_method"]) == (["ml"], "session")
        assert len(told["csrf_token"]) == 64
        (session,) = stage.sessions()
        assert session.claims == {"department": ("risk",)}
        assert session.issued_by == session.principal_id == told["principal_id"]
        assert told["expires_at_ms"] == session.expires_at_ms

    on_stage(tmp_path, test)


def test_without_return_to_a_browser_sees_who_it_is(tmp_path: Path) -> None:
    async def test(stage: Stage) -> None:
        assert (await stage.browser().log_in()).header("location") == "/api/v1/whoami"

    on_stage(tmp_path, test)


@pytest.mark.parametrize(
    "return_to", ["//evil.example", "https://evil.example", "/\\evil.example", "/\n/evil.example"]
)
def test_a_login_sends_nobody_elsewhere(tmp_path: Path, return_to: str) -> None:
    async def test(stage: Stage) -> None:
        answer = await stage.browser().ask("GET", "/login", query={"return_to": return_to})
        assert answer.status == 400
        assert answer.all("location") == answer.all("set-cookie") == []

    on_stage(tmp_path, test)


def test_of_several_providers_one_chooses_on_a_page_without_scripts(tmp_path: Path) -> None:
    async def test(stage: Stage) -> None:
        browser = stage.browser()
        page = await browser.ask("GET", "/login", query={"return_to": '/x?"><script>'})
        assert page.status == 400, "what no URL holds is no path"
        page = await browser.ask("GET", "/login", query={"return_to": "/x?a=1&b='2'"})
        text = page.body.decode()
        assert page.header("content-type").startswith("text/html")
        assert "<script" not in text
        policy = page.header("content-security-policy")
        assert policy.startswith("default-src 'none'; ")
        assert "unsafe" not in policy
        assert "frame-ancestors 'none'" in policy
        assert "Partner &amp; Co" in text
        links = re.findall(r'href="([^"]+)"', text)
        query = links[1].replace("&amp;", "&").partition("?")[2]
        begun = await browser.ask("GET", "/login", query=query)
        assert begun.header("location").startswith("https://partner.example/authorize")
        back = stage.provider.agree(begun.header("location"))
        done = await browser.ask("GET", "/login/callback", query=back)
        assert done.header("location") == "/x?a=1&b='2'"
        authorization, form = stage.provider.asked[-1]
        assert authorization.startswith("Basic ")
        assert "client_secret" not in form
        assert (await browser.ask("GET", "/login", query={"issuer": "none"})).status == 404

    on_stage(tmp_path, test, CORP, PARTNER)


def test_whoever_acts_for_another_gets_no_session(tmp_path: Path) -> None:
    async def test(stage: Stage) -> None:
        stage.provider.delegation = ("a" * 32,)
        browser = stage.browser()
        answer = await browser.log_in()
        assert answer.status == 403
        assert "acts for another" in answer.body.decode()
        assert (browser.cookies, stage.sessions()) == ({}, [])

    on_stage(tmp_path, test)


async def _begun(browser: Browser) -> str:
    begun = await browser.ask("GET", "/login")
    return browser.provider.agree(begun.header("location"))


def test_an_answer_counts_in_the_browser_that_asked_and_once(tmp_path: Path) -> None:
    async def test(stage: Stage) -> None:
        one, other = stage.browser(), stage.browser()
        back, others = await _begun(one), await _begun(other)
        for browser, query in ((one, others), (other, back), (stage.browser(), back)):
            answer = await Browser(browser.door, stage.provider, dict(browser.cookies)).ask(
                "GET", "/login/callback", query=query
            )
            assert answer.status == 400
            assert f"{LOGIN_COOKIE}=; Max-Age=0" in answer.header("set-cookie")
        before = dict(one.cookies)
        assert (await one.ask("GET", "/login/callback", query=back)).status == 303
        replayed = await stage.browser(before).ask("GET", "/login/callback", query=back)
        assert replayed.status == 400, "the provider takes a code once"
        assert len(stage.sessions()) == 1

    on_stage(tmp_path, test)


@pytest.mark.parametrize(
    ("change", "status"),
    [
        (lambda q: q.replace("state=", "state=0"), 400),
        (lambda q: re.sub("state=[^&]*", "state=", q), 400),
        (lambda q: re.sub("&?state=[^&]*", "", q), 400),
        (lambda q: q + "&state=x", 400),
        (lambda q: q + "&iss=https%3A%2F%2Fevil.example", 400),
        (lambda q: q + "&iss=https%3A%2F%2Fid.example", 303),
        (lambda q: re.sub("code=[^&]*", "code=x", q), 400),
        (lambda q: re.sub("code=[^&]*", "code=", q), 400),
        (lambda q: re.sub("code=[^&]*", "error=access_denied&error_description=%3Cb%3Eno", q), 400),
        (lambda q: q + "&x=" + "y" * 20_000, 400),
        (lambda q: "", 400),
    ],
)
def test_what_the_provider_answers_is_looked_at(
    tmp_path: Path, change: Callable[[str], str], status: int
) -> None:
    async def test(stage: Stage) -> None:
        browser = stage.browser()
        query = change(await _begun(browser))
        answer = await browser.ask("GET", "/login/callback", query=query)
        assert answer.status == status
        assert b"<b>" not in answer.body
        assert len(stage.sessions()) == (status == 303)

    on_stage(tmp_path, test)


def test_a_provider_that_says_who_it_is_must_say_so_always(tmp_path: Path) -> None:
    async def test(stage: Stage) -> None:
        stage.provider.iss_in_answers = True
        assert (await stage.browser().log_in()).status == 303
        browser = stage.browser()
        query = re.sub("&?iss=[^&]*", "", await _begun(browser))
        assert (await browser.ask("GET", "/login/callback", query=query)).status == 400

    on_stage(tmp_path, test)


def test_a_login_of_one_provider_is_not_finished_by_another(tmp_path: Path) -> None:
    async def test(stage: Stage) -> None:
        browser = stage.browser()
        begun = await browser.ask("GET", "/login", query={"issuer": "corp"})
        location = begun.header("location").replace("id.example", "partner.example")
        back = stage.provider.agree(location)
        assert (await browser.ask("GET", "/login/callback", query=back)).status == 400
        assert stage.sessions() == []

    on_stage(tmp_path, test, CORP, PARTNER)


def test_a_login_that_took_too_long_begins_again(tmp_path: Path) -> None:
    async def test(stage: Stage) -> None:
        browser = stage.browser()
        back = await _begun(browser)
        late = stage.browser(browser.cookies, now_ms() + LOGIN_LIFE_MS + 1)
        answer = await late.ask("GET", "/login/callback", query=back)
        assert answer.status == 400
        assert b"/login" in answer.body

    on_stage(tmp_path, test)


@pytest.mark.parametrize(
    ("answer", "status"),
    [
        (httpx2.Response(200, json={"access_token": "x", "token_type": "Bearer"}), 400),
        (httpx2.Response(200, json={"id_token": 5, "access_token": "x"}), 400),
        (httpx2.Response(200, json=[]), 400),
        (httpx2.Response(200, text="<html>"), 400),
        (httpx2.Response(400, json={"error": "invalid_client"}), 400),
        (httpx2.Response(302, headers={"location": "https://evil.example"}), 502),
        (httpx2.Response(429, text="slow down"), 502),
        (httpx2.Response(503, text="down"), 502),
    ],
)
def test_a_token_endpoint_that_does_not_do_its_part(
    tmp_path: Path, answer: httpx2.Response, status: int
) -> None:
    async def test(stage: Stage) -> None:
        stage.provider.token_answer = answer
        answered = await stage.browser().log_in()
        assert answered.status == status
        assert stage.sessions() == []

    on_stage(tmp_path, test)


def test_a_provider_that_is_down_is_told_and_nothing_is_begun(tmp_path: Path) -> None:
    async def test(stage: Stage) -> None:
        browser = stage.browser()
        back = await _begun(browser)
        stage.provider.down = True
        assert (await browser.ask("GET", "/login")).status == 502
        kept = stage.browser(browser.cookies)
        assert (await kept.ask("GET", "/login/callback", query=back)).status in (400, 502)
        assert stage.sessions() == []

    on_stage(tmp_path, test)


@pytest.mark.parametrize(
    "endpoint", ["http://id.example/a", "http://127.0.0.1/a", "javascript:x", "", None, 5, "/a"]
)
def test_an_endpoint_that_is_not_https_is_not_used(tmp_path: Path, endpoint: Any) -> None:
    async def test(stage: Stage) -> None:
        stage.provider.metadata_changes = {"authorization_endpoint": endpoint}
        assert (await stage.browser().ask("GET", "/login")).status == 400

    on_stage(tmp_path, test)


def test_where_no_provider_is_set_up_nobody_logs_in(tmp_path: Path) -> None:
    async def test(stage: Stage) -> None:
        stage = Stage(dataclasses.replace(stage.services, browser=None), stage.provider)
        for path in ("/login", "/login/callback"):
            assert (await stage.browser().ask("GET", path)).status == 404
        assert (await stage.browser().ask("GET", "/logout")).status == 200

    on_stage(tmp_path, test)

"""Logins in a real Chromium by a real Keycloak: in, at work, out."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from playwright.sync_api import Page, expect

from harness.guarded import MLFLOW, WHO, Guarded
from harness.keycloak import Provider, password_of

pytestmark = pytest.mark.slow

SESSION = "__Host-muniment_session"
LOGIN = "__Host-muniment_login"

WRITE = """async ([path, name, csrf]) => {
    const headers = {"content-type": "application/json"};
    if (csrf !== null) headers["x-csrf-token"] = csrf;
    const answer = await fetch(path, {method: "POST", headers, body: JSON.stringify({name})});
    return [answer.status, await answer.text()];
}"""
"""What a page's own script does to make an experiment."""

WRITE_FROM_AFAR = """async ([url, name]) => {
    const body = JSON.stringify({name});
    await fetch(url, {method: "POST", mode: "no-cors", credentials: "include", body});
}"""
"""What a script of another origin can do; it is not told what came of it."""


def begin(page: Page, server: Guarded, keycloak: Provider) -> None:
    """To Keycloak's form."""
    page.goto(f"{server.url}/login")
    expect(page.locator("#username")).to_be_visible()
    assert page.url.startswith(keycloak.issuer)


def log_in(page: Page, server: Guarded, keycloak: Provider, name: str) -> dict[str, Any]:
    """The whole way; what whoami, where it ends, says."""
    begin(page, server, keycloak)
    fill_in(page, name, password_of(name))
    page.wait_for_url(f"{server.url}{WHO}")
    return who(page)


def fill_in(page: Page, name: str, password: str) -> None:
    page.fill("#username", name)
    page.fill("#password", password)
    page.click("#kc-login")


def who(page: Page) -> dict[str, Any]:
    """What whoami tells the page's own script."""
    found = page.evaluate("async (path) => await (await fetch(path)).json()", WHO)
    assert isinstance(found, dict)
    return found


def cookies(page: Page, server: Guarded) -> dict[str, dict[str, Any]]:
    """The browser's cookies for the server, by name."""
    found = page.context.cookies(server.url)
    return {str(cookie["name"]): dict(cookie) for cookie in found if "muniment" in cookie["name"]}


def write(page: Page, name: str, csrf: str | None) -> tuple[int, str]:
    status, text = page.evaluate(WRITE, [f"{MLFLOW}/experiments/create", name, csrf])
    return int(status), str(text)


def test_a_login_leads_through_keycloak_and_back(
    page: Page, keycloak: Provider, server: Guarded
) -> None:
    found = log_in(page, server, keycloak, "ana")
    assert (found["name"], found["groups"]) == ("ana", ["ml-admins"])
    assert found["auth_method"] == "session"
    assert found["issuer"] == keycloak.issuer
    # By a token and by a browser, a person is the same one.
    by_token = server.who(keycloak.person("ana").access)
    assert found["principal_id"] == by_token["principal_id"]


def test_the_request_to_keycloak_is_bound_to_this_login(
    page: Page, keycloak: Provider, server: Guarded
) -> None:
    begin(page, server, keycloak)
    asked = httpx.URL(page.url).params
    assert asked["response_type"] == "code"
    assert asked["code_challenge_method"] == "S256"
    assert min(len(asked[name]) for name in ("code_challenge", "state", "nonce")) >= 32
    assert asked["redirect_uri"] == f"{server.url}/login/callback"


def test_a_session_s_cookie_is_kept_from_scripts_and_other_sites(
    page: Page, keycloak: Provider, server: Guarded
) -> None:
    log_in(page, server, keycloak, "ben")
    found = cookies(page, server)
    assert found.keys() == {SESSION}, "the login's own cookie has gone"
    session = found[SESSION]
    assert session["httpOnly"] is True
    assert session["secure"] is True
    assert session["sameSite"] == "Lax"
    assert (session["path"], session["domain"]) == ("/", "127.0.0.1")
    assert page.evaluate("document.cookie") == ""


def test_a_wrong_password_makes_no_session(page: Page, keycloak: Provider, server: Guarded) -> None:
    begin(page, server, keycloak)
    fill_in(page, "ana", "not-the-password")
    expect(page.get_by_text("Invalid username or password")).to_be_visible()
    assert cookies(page, server).keys() == {LOGIN}


def test_an_answer_works_once_and_in_the_browser_that_asked(
    page: Page, keycloak: Provider, server: Guarded
) -> None:
    begin(page, server, keycloak)
    answers: list[str] = []
    page.on("request", lambda asked: answers.append(asked.url))
    fill_in(page, "ana", password_of("ana"))
    page.wait_for_url(f"{server.url}{WHO}")
    (callback,) = [url for url in answers if "/login/callback?" in url]
    # Somebody who saw the address has no login under way.
    elsewhere = httpx.get(callback)
    assert elsewhere.status_code == 400, elsewhere.text
    assert "set-cookie" not in elsewhere.headers or SESSION not in elsewhere.headers["set-cookie"]
    again = page.goto(callback)
    assert again is not None
    assert again.status == 400
    page.goto(f"{server.url}{WHO}")
    assert who(page)["name"] == "ana"


def test_a_write_needs_the_session_s_csrf_token(
    page: Page, keycloak: Provider, server: Guarded
) -> None:
    token = log_in(page, server, keycloak, "ana")["csrf_token"]
    for wrong in (None, "", token[:-1] + ("0" if token[-1] != "0" else "1")):
        status, text = write(page, "by-nobody", wrong)
        assert status == 403, text
        assert "CSRF" in text
    status, text = write(page, "by-ana-s-browser", token)
    assert status == 200, text
    found = server.experiments(keycloak.person("ana").access)
    assert "by-ana-s-browser" in found
    assert "by-nobody" not in found


def test_a_page_of_another_origin_writes_nothing(
    page: Page, keycloak: Provider, server: Guarded
) -> None:
    log_in(page, server, keycloak, "ana")
    # Of the same site even: ports do not tell sites apart, so the cookie goes with it.
    page.goto(f"{keycloak.issuer}/.well-known/openid-configuration")
    path = f"{server.url}{MLFLOW}/experiments/create"
    with page.expect_response(path) as answered:
        page.evaluate(WRITE_FROM_AFAR, [path, "from-afar"])
    assert answered.value.status == 403
    assert "from-afar" not in server.experiments(keycloak.person("ana").access)


def test_a_person_may_as_much_in_the_browser_as_by_token(
    page: Page, keycloak: Provider, server: Guarded
) -> None:
    token = log_in(page, server, keycloak, "cleo")["csrf_token"]
    assert write(page, "cleo-s", token)[0] == 403


def test_a_logout_ends_the_session_here_and_at_keycloak(
    page: Page, keycloak: Provider, server: Guarded
) -> None:
    at_keycloak = keycloak.sessions_of("cleo")
    log_in(page, server, keycloak, "cleo")
    assert keycloak.sessions_of("cleo") == at_keycloak + 1
    kept = cookies(page, server)[SESSION]["value"]
    page.goto(f"{server.url}/logout")
    page.get_by_role("button", name="Log out").click()
    page.click("#kc-logout")
    page.wait_for_url(f"{server.url}/logout**")
    expect(page.get_by_role("heading", name="Logged out")).to_be_visible()
    assert cookies(page, server) == {}
    assert keycloak.sessions_of("cleo") == at_keycloak
    replayed = httpx.get(f"{server.url}{WHO}", headers={"cookie": f"{SESSION}={kept}"})
    assert replayed.status_code == 401, replayed.text
    # Keycloak does not let the next person in by what the last one left.
    begin(page, server, keycloak)


def test_a_second_login_ends_the_browser_s_first_session(
    page: Page, keycloak: Provider, server: Guarded
) -> None:
    log_in(page, server, keycloak, "ben")
    first = cookies(page, server)[SESSION]["value"]
    # Keycloak still knows the browser, and does not ask.
    page.goto(f"{server.url}/login")
    page.wait_for_url(f"{server.url}{WHO}")
    second = cookies(page, server)[SESSION]["value"]
    assert second != first
    replayed = httpx.get(f"{server.url}{WHO}", headers={"cookie": f"{SESSION}={first}"})
    assert replayed.status_code == 401
    assert who(page)["name"] == "ben"


def test_a_browser_is_brought_back_to_where_it_wanted(
    page: Page, keycloak: Provider, server: Guarded
) -> None:
    page.goto(f"{server.url}/login?return_to=/version")
    fill_in(page, "ben", password_of("ben"))
    page.wait_for_url(f"{server.url}/version")
    assert SESSION in cookies(page, server)

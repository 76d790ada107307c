"""Cookies, CSRF tokens, logins that are under way, and the paths that a login may lead to."""

from __future__ import annotations

import base64
import os

import pytest

from muniment_auth import sessions
from muniment_auth.sessions import (
    LOGIN_COOKIE,
    LOGIN_LIFE_MS,
    SESSION_COOKIE,
    Login,
    LoginCookies,
    local_path,
    same_origin,
)
from muniment_auth.tokens import SESSION_PREFIX, new_secret

NOW = 1_700_000_000_000
LOGIN = Login(
    issuer="corp",
    state="s" * 64,
    nonce="n" * 64,
    verifier="v" * 64,
    return_to="/a?b=c",
    expires_at_ms=NOW + LOGIN_LIFE_MS,
)

ELSEWHERE = [
    *"""
//evil.example ///evil.example /\\evil.example \\\\evil.example \\/evil.example /\\/evil.example
https://evil.example http:evil.example https:/evil.example javascript:alert(1) data:text/html,x
evil.example @evil.example .evil.example ./x ../x ?x #x x :80 //evil.example/%2f..
/%2f/evil.example /%2F%2Fevil.example /%5cevil.example /%5C%5Cevil.example /a//evil.example
/..//evil.example /.//evil.example //%65vil.example //localhost //[::1] ////evil.example
https://muniment.example@evil.example //muniment.example@evil.example
""".split(),
    "",
    " ",
    " /x",
    "/x y",
    "/\t/evil.example",
    "/\n/evil.example",
    "/\r/evil.example",
    "\t//evil.example",
    "/x\r\nSet-Cookie: a=b",
    "/x\nx",
    "/x\x00",
    "/x\x7f",
    "/é",
    "/\u2028",
    "\u2215evil.example",
    "/" + "x" * 2000,
]

HERE = """
/ /x /api/v1/whoami /x?return=https://other.example /x?a=b&c=//d /x#/y /x/%20y /a:b /@x /login
/x?next=%2f%2fy /~x /x;y=z /[x] /x?q='1' /models/a%3Ab
""".split()


@pytest.mark.parametrize("path", ELSEWHERE)
def test_a_login_leads_nowhere_else(path: str) -> None:
    assert not local_path(path)


@pytest.mark.parametrize("path", HERE)
def test_a_login_leads_to_paths_of_this_server(path: str) -> None:
    assert local_path(path)


def test_cookies_are_for_this_host_alone_and_hidden_from_scripts() -> None:
    secret = new_secret(SESSION_PREFIX, os.urandom)
    set_cookies = (
        sessions.set_session(secret, 43200),
        sessions.clear(SESSION_COOKIE),
        LoginCookies(os.urandom(32), os.urandom).set(LOGIN),
    )
    for cookie in set_cookies:
        name_value, *flags = cookie.split("; ")
        assert name_value.startswith("__Host-")
        assert {"Path=/", "Secure", "HttpOnly", "SameSite=Lax"} <= set(flags)
        assert not any(flag.startswith("Domain") for flag in flags)
    assert "Max-Age=43200" in set_cookies[0]
    assert "Max-Age=0" in set_cookies[1]
    assert "Max-Age=600" in set_cookies[2]


def test_the_session_is_found_among_other_cookies_and_two_are_none() -> None:
    assert sessions.session_cookie(f"a=b; {SESSION_COOKIE}=v=w; c=d") == "v=w"
    assert sessions.session_cookie("") is None
    assert sessions.session_cookie(f"x{SESSION_COOKIE}=v") is None
    assert sessions.session_cookie(f"{SESSION_COOKIE}=v; {SESSION_COOKIE}=w") == ""


def test_a_csrf_token_is_of_one_session_and_tells_nothing_of_it() -> None:
    one, other = (new_secret(SESSION_PREFIX, os.urandom) for _ in range(2))
    token = sessions.csrf_token(one)
    assert sessions.csrf_fits(one, token.encode())
    assert not sessions.csrf_fits(other, token.encode())
    for wrong in (b"", b"x", token[:-1].encode(), token.upper().encode(), "é".encode() * 64):
        assert not sessions.csrf_fits(one, wrong)
    assert one.secret not in token


@pytest.mark.parametrize(
    ("origin", "host", "known_as", "same"),
    [
        (b"https://muniment.example", b"muniment.example", None, True),
        (b"http://localhost:5000", b"localhost:5000", None, True),
        (b"https://MUNIMENT.example", b"muniment.example", None, True),
        (b"https://muniment.example", b"inner:5000", "https://muniment.example", True),
        (b"http://muniment.example", b"muniment.example", "https://muniment.example", False),
        (b"https://muniment.example:444", b"muniment.example", None, False),
        (b"https://evil.example", b"muniment.example", None, False),
        (b"https://muniment.example.evil.example", b"muniment.example", None, False),
        (b"https://evil.example/https://muniment.example", b"muniment.example", None, False),
        (b"null", b"muniment.example", None, False),
        (b"", b"muniment.example", None, False),
        (b"http://", b"", None, False),
        (None, b"muniment.example", None, False),
    ],
)
def test_a_write_comes_from_a_page_of_this_server(
    origin: bytes | None, host: bytes, known_as: str | None, same: bool
) -> None:
    headers = {b"host": host} | ({} if origin is None else {b"origin": origin})
    assert same_origin(headers, known_as) is same


def cookie_of(set_cookie: str) -> str:
    return set_cookie.partition(";")[0]


def test_any_replica_opens_a_login_that_another_has_begun() -> None:
    key = os.urandom(32)
    cookie = cookie_of(LoginCookies(key, os.urandom).set(LOGIN))
    assert LoginCookies(key, os.urandom).get(f"a=b; {cookie}", NOW) == LOGIN
    for secret in (LOGIN.state, LOGIN.nonce, LOGIN.verifier):
        assert secret not in cookie
        assert secret not in repr(LOGIN)


def test_a_login_is_over_after_ten_minutes() -> None:
    cookies = LoginCookies(os.urandom(32), os.urandom)
    cookie = cookie_of(cookies.set(LOGIN))
    assert cookies.get(cookie, NOW + LOGIN_LIFE_MS - 1) == LOGIN
    assert cookies.get(cookie, NOW + LOGIN_LIFE_MS) is None


def test_a_login_cookie_that_was_changed_is_none() -> None:
    cookies = LoginCookies(os.urandom(32), os.urandom)
    cookie = cookie_of(cookies.set(LOGIN))
    name, _, value = cookie.partition("=")
    sealed = bytearray(base64.urlsafe_b64decode(value + "=" * (-len(value) % 4)))
    for place in range(0, len(sealed), 7):
        changed = bytearray(sealed)
        changed[place] ^= 1
        text = base64.urlsafe_b64encode(changed).decode().rstrip("=")
        assert cookies.get(f"{name}={text}", NOW) is None


@pytest.mark.parametrize("value", ["", "x", "=", "é", "AAAA", "A" * 40, "A" * 4000, "%%%"])
def test_a_login_cookie_that_is_none_is_none(value: str) -> None:
    cookies = LoginCookies(os.urandom(32), os.urandom)
    assert cookies.get(f"{LOGIN_COOKIE}={value}", NOW) is None


def test_a_login_cookie_of_another_server_or_two_of_them_are_none() -> None:
    ours, others = (LoginCookies(os.urandom(32), os.urandom) for _ in range(2))
    cookie = cookie_of(others.set(LOGIN))
    assert ours.get(cookie, NOW) is None
    assert others.get(f"{cookie}; {cookie}", NOW) is None
    assert others.get("", NOW) is None

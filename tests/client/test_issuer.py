"""The test issuer keeps the rules that our code is tested against."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest
import requests
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import KeySet

from harness.issuer import Client, Fault, Issuer, User
from muniment_client.loopback import challenge

TIMEOUT_S = 5
VERIFIER = "v" * 43
BACK = "http://127.0.0.1:7/callback"


@pytest.fixture
def issuer() -> Iterator[Issuer]:
    users = [User("ada", "Ada", groups=("ml",)), User("bob")]
    with Issuer(users, [Client("cli"), Client("web", "s", redirects=("https://a/b",))]) as running:
        yield running


def post(issuer: Issuer, path: str, **form: str) -> dict[str, Any]:
    answer = requests.post(f"{issuer.url}{path}", data=form, timeout=TIMEOUT_S).json()
    assert isinstance(answer, dict)
    return answer


def authorize(issuer: Issuer, **changes: str) -> requests.Response:
    asked = {
        "response_type": "code",
        "client_id": "cli",
        "redirect_uri": BACK,
        "scope": "openid",
        "state": "s",
        "nonce": "n",
        "code_challenge": challenge(VERIFIER),
        "code_challenge_method": "S256",
        **changes,
    }
    return requests.get(
        f"{issuer.url}/authorize", params=asked, allow_redirects=False, timeout=TIMEOUT_S
    )


def redeem(issuer: Issuer, answer: requests.Response, verifier: str = VERIFIER) -> dict[str, Any]:
    back = dict(parse_qsl(urlsplit(answer.headers["Location"]).query))
    assert back["state"] == "s"
    return post(
        issuer,
        "/token",
        grant_type="authorization_code",
        client_id="cli",
        redirect_uri=BACK,
        code=back["code"],
        code_verifier=verifier,
    )


def verified(issuer: Issuer, token: str) -> dict[str, Any]:
    keys = requests.get(f"{issuer.url}/keys", timeout=TIMEOUT_S).json()
    return dict(jwt.decode(token, KeySet.import_key_set(keys), algorithms=["RS256"]).claims)


def test_a_code_gives_an_access_token_and_an_id_token(issuer: Issuer) -> None:
    answer = redeem(issuer, authorize(issuer))
    access = verified(issuer, answer["access_token"])
    assert (access["iss"], access["sub"], access["aud"]) == (issuer.url, "ada", "muniment")
    assert access["groups"] == ["ml"]
    assert access["client_id"] == "cli"
    assert 290 < access["exp"] - time.time() <= 301
    identity = verified(issuer, answer["id_token"])
    assert (identity["aud"], identity["nonce"]) == ("cli", "n")


def test_a_code_works_once_and_with_its_verifier_only(issuer: Issuer) -> None:
    answer = authorize(issuer)
    assert redeem(issuer, answer, "w" * 43)["error"] == "invalid_grant"
    assert redeem(issuer, answer)["error"] == "invalid_grant"


@pytest.mark.parametrize(
    "changes",
    [
        {"code_challenge_method": "plain"},
        {"code_challenge": ""},
        {"redirect_uri": "https://evil.example/callback"},
        {"client_id": "web"},
        {"response_type": "token"},
    ],
)
def test_an_unsafe_authorization_request_is_refused(
    issuer: Issuer, changes: dict[str, str]
) -> None:
    assert authorize(issuer, **changes).status_code == 400


def test_a_page_with_buttons_asks_who_signs_in(issuer: Issuer) -> None:
    issuer.sign_in_as(None)
    page = authorize(issuer)
    assert page.status_code == 200
    assert '<button name="as" value="bob">' in page.text
    answer = redeem(issuer, authorize(issuer, **{"as": "bob"}))
    assert verified(issuer, answer["access_token"])["sub"] == "bob"


def test_a_refresh_token_that_comes_twice_ends_the_login(issuer: Issuer) -> None:
    first = redeem(issuer, authorize(issuer))["refresh_token"]
    form = {"grant_type": "refresh_token", "client_id": "cli"}
    second = post(issuer, "/token", refresh_token=first, **form)["refresh_token"]
    assert second != first
    assert post(issuer, "/token", refresh_token=first, **form)["error"] == "invalid_grant"
    assert post(issuer, "/token", refresh_token=second, **form)["error"] == "invalid_grant"
    assert issuer.grants.reuses == 1


def test_introspection_knows_what_holds(issuer: Issuer) -> None:
    token = redeem(issuer, authorize(issuer))["access_token"]
    assert post(issuer, "/introspect", token=token)["sub"] == "ada"
    assert post(issuer, "/introspect", token="x") == {"active": False}
    ended = issuer.access_token("ada", exp=int(time.time()) - 1)
    assert post(issuer, "/introspect", token=ended) == {"active": False}
    post(issuer, "/revoke", token=token)
    assert post(issuer, "/introspect", token=token) == {"active": False}


def test_keys_rotate_with_the_old_one_kept_or_not(issuer: Issuer) -> None:
    before = issuer.access_token("ada")
    kid = issuer.rotate_key()
    assert verified(issuer, before)["sub"] == "ada"
    assert (
        jwt.decode(
            issuer.access_token("ada"), KeySet([*issuer.grants.keys]), algorithms=["RS256"]
        ).header["kid"]
        == kid
    )
    issuer.rotate_key(keep_old=False)
    with pytest.raises((JoseError, ValueError)):
        verified(issuer, before)


def test_a_logout_at_the_provider_ends_its_logins(issuer: Issuer) -> None:
    refresh_token = redeem(issuer, authorize(issuer))["refresh_token"]
    target = {"post_logout_redirect_uri": "https://a/b", "state": "t"}
    gone = requests.get(
        f"{issuer.url}/end_session", params=target, allow_redirects=False, timeout=TIMEOUT_S
    )
    assert gone.headers["Location"] == "https://a/b?state=t"
    form = {"grant_type": "refresh_token", "client_id": "cli", "refresh_token": refresh_token}
    assert post(issuer, "/token", **form)["error"] == "invalid_grant"
    assert authorize(issuer).status_code == 200, "the page asks who signs in"


def test_faults_come_and_go(issuer: Issuer) -> None:
    issuer.fault = Fault.ERROR
    assert requests.get(f"{issuer.url}/keys", timeout=TIMEOUT_S).status_code == 500
    issuer.fault = Fault.DOWN
    with pytest.raises(requests.exceptions.ConnectionError):
        requests.get(f"{issuer.url}/keys", timeout=TIMEOUT_S)
    issuer.fault, issuer.slow_s = Fault.SLOW, 0.2
    begun = time.monotonic()
    assert requests.get(f"{issuer.url}/keys", timeout=TIMEOUT_S).status_code == 200
    assert time.monotonic() - begun >= 0.2
    assert issuer.asked("/keys") == 3

"""A real Keycloak for tests: its tokens, its keys, and persons who sign in by hand.

It comes from what `deploy/scripts/keycloak` installs; what is not there is an error, in a person's
checkout and in continuous integration alike.
"""

from __future__ import annotations

import base64
import itertools
import json
import re
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from html import unescape
from http.cookiejar import CookieJar, DefaultCookiePolicy
from pathlib import Path
from typing import Any
from urllib.parse import urlencode
from urllib.request import HTTPCookieProcessor, build_opener

import httpx
from local_keycloak import ADMIN, ADMIN_PASSWORD, REALM, Keycloak

AUDIENCE = "muniment"
ADMINS = "ml-admins"
LOGIN_CLIENT = "muniment"
CLI_CLIENT = "muniment-cli"
JOB_CLIENT, JOB_SECRET = "trainer", "trainer-secret"
PASSWORD_CLIENT = "test-password"

CALL_S_MAX = 30.0
DEVICE_GRANT = "urn:ietf:params:oauth:grant-type:device_code"
POLLS_MAX = 20
PRIORITY_FIRST = 1000
"""Above that of the realm's first key: tokens are signed with the key of the highest."""


@dataclass(frozen=True, slots=True)
class Tokens:
    """What Keycloak gave out. id: none for a client that acts for nobody."""

    access: str
    id: str | None = None
    refresh: str | None = None


@dataclass(frozen=True, slots=True)
class Device:
    """A device's wish to sign in, which a person has to grant. interval_s: between two polls."""

    device_code: str
    url: str
    interval_s: float


class Provider:
    """A Keycloak that runs, and the realm in it as its clients and its administrator use it."""

    def __init__(self, keycloak: Keycloak) -> None:
        self.keycloak = keycloak
        self.issuer = keycloak.issuer
        self._priorities = itertools.count(PRIORITY_FIRST)
        self._http = httpx.Client(timeout=CALL_S_MAX)

    def close(self) -> None:
        """Release connections."""
        self._http.close()

    def stop(self) -> None:
        """End Keycloak; its database stays."""
        self.keycloak.stop()

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Keycloak takes connections, and answers nothing, until the end."""
        self.keycloak.freeze()
        try:
            yield
        finally:
            self.keycloak.thaw()

    def heal(self) -> None:
        """Start Keycloak again if it was stopped."""
        if not self.keycloak.is_running:
            self.keycloak.start()

    def metadata(self) -> Mapping[str, Any]:
        """The realm's discovery document."""
        found = _json(self._http.get(f"{self.issuer}/.well-known/openid-configuration"))
        assert isinstance(found, dict)
        return found

    def key_ids(self) -> set[str]:
        """The ids of the keys that are there to verify by."""
        listed = _json(self._http.get(self.metadata()["jwks_uri"]))["keys"]
        return {key["kid"] for key in listed if key["use"] == "sig"}

    def job(self) -> str:
        """An access token of the training job, by client credentials."""
        given = {"grant_type": "client_credentials"}
        return self._token(JOB_CLIENT, client_secret=JOB_SECRET, **given).access

    def person(self, name: str, client: str = PASSWORD_CLIENT) -> Tokens:
        """Tokens of a person, by password, as no real client should."""
        given = {"username": name, "password": password_of(name), "scope": "openid"}
        return self._token(client, grant_type="password", **given)

    def ask_for_device(self, client: str = CLI_CLIENT, **more: str) -> Device:
        """Begin a sign-in of a device without a browser. more: as the challenge of PKCE."""
        url = self.metadata()["device_authorization_endpoint"]
        form = {"client_id": client, "scope": "openid", **more}
        found = _json(self._http.post(url, data=form))
        return Device(
            found["device_code"], found["verification_uri_complete"], float(found["interval"])
        )

    def poll(self, device: Device, client: str = CLI_CLIENT, **more: str) -> Tokens | str:
        """A device's tokens; or why not (yet), in the protocol's word."""
        form = {"grant_type": DEVICE_GRANT, "device_code": device.device_code, **more}
        answer = self._ask_token(client, **form)
        if answer.status_code == 400:
            return str(answer.json()["error"])
        return _tokens(answer)

    def await_device(self, device: Device, **more: str) -> Tokens:
        """A device's tokens, once a person has approved."""
        for _ in range(POLLS_MAX):
            time.sleep(device.interval_s)
            found = self.poll(device, **more)
            if isinstance(found, Tokens):
                return found
            assert found in ("authorization_pending", "slow_down"), found
        raise AssertionError("nobody approved")

    def rotate_keys(self) -> str:
        """Sign with a new key from now on; those of before stay good. Gives the new one's id."""
        before = self.key_ids()
        component = {
            "name": f"rotated-{next(self._priorities)}",
            "providerId": "rsa-generated",
            "providerType": "org.keycloak.keys.KeyProvider",
            "config": {"priority": [str(next(self._priorities))], "keySize": ["2048"]},
        }
        url = f"{self.keycloak.url}/admin/realms/{REALM}/components"
        headers = {"authorization": f"Bearer {self.admin_token()}"}
        answer = self._http.post(url, json=component, headers=headers)
        assert answer.status_code == 201, answer.text
        (made,) = self.key_ids() - before
        return made

    def sessions_of(self, name: str) -> int:
        """How many sessions a person has at Keycloak."""
        headers = {"authorization": f"Bearer {self.admin_token()}"}
        users = f"{self.keycloak.url}/admin/realms/{REALM}/users"
        query = {"username": name, "exact": "true"}
        (user,) = _json(self._http.get(users, params=query, headers=headers))
        return len(_json(self._http.get(f"{users}/{user['id']}/sessions", headers=headers)))

    def admin_token(self) -> str:
        """An access token of Keycloak's own administrator, for Keycloak alone."""
        form = {"grant_type": "password", "client_id": "admin-cli"}
        form |= {"username": ADMIN, "password": ADMIN_PASSWORD}
        url = f"{self.keycloak.url}/realms/master/protocol/openid-connect/token"
        return str(_json(self._http.post(url, data=form))["access_token"])

    def _token(self, client: str, **form: str) -> Tokens:
        return _tokens(self._ask_token(client, **form))

    def _ask_token(self, client: str, **form: str) -> httpx.Response:
        return self._http.post(
            f"{self.issuer}/protocol/openid-connect/token", data={"client_id": client, **form}
        )


@contextmanager
def running_keycloak(folder: Path) -> Iterator[Provider]:
    """Keycloak on a copy of the baked database; stopped at the end."""
    keycloak = Keycloak(folder)
    keycloak.start()
    provider = Provider(keycloak)
    try:
        yield provider
    finally:
        provider.close()
        keycloak.stop()


def password_of(name: str) -> str:
    """As realm.json has it."""
    return f"{name}-password"


def approve(url: str, name: str) -> str:
    """A person opens a page of Keycloak, signs in, and says yes; gives the last page's text."""
    # Keycloak's cookies are Secure, which browsers let pass on loopback, and Python does not.
    jar = CookieJar(DefaultCookiePolicy(secure_protocols=("http", "https")))
    opener = build_opener(HTTPCookieProcessor(jar))
    form = {"username": name, "password": password_of(name)}
    with opener.open(url, timeout=CALL_S_MAX) as answer:
        page, at = answer.read().decode(), answer.url
    with opener.open(_action(page, at), urlencode(form).encode(), timeout=CALL_S_MAX) as answer:
        page, at = answer.read().decode(), answer.url
    hidden = re.findall(r'<input[^>]*type="hidden"[^>]*name="(\w+)"[^>]*value="([^"]*)"', page)
    form = {name: unescape(value) for name, value in hidden} | {"accept": "Yes"}
    with opener.open(_action(page, at), urlencode(form).encode(), timeout=CALL_S_MAX) as answer:
        return str(answer.read().decode())


def header_of(token: str) -> Mapping[str, Any]:
    """A token's header, unverified."""
    return _part(token, 0)


def claims_of(token: str) -> Mapping[str, Any]:
    """What a token says, unverified."""
    return _part(token, 1)


def _part(token: str, index: int) -> Mapping[str, Any]:
    text = token.split(".")[index]
    found = json.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
    assert isinstance(found, dict)
    return found


def _action(page: str, at: str) -> str:
    found = re.search(r'<form[^>]*action="([^"]+)"', page)
    assert found is not None, page[:4_000]
    return str(httpx.URL(at).join(unescape(found[1])))


def _json(answer: httpx.Response) -> Any:
    assert answer.status_code == 200, answer.text
    return answer.json()


def _tokens(answer: httpx.Response) -> Tokens:
    found = _json(answer)
    return Tokens(found["access_token"], found.get("id_token"), found.get("refresh_token"))

"""Signing in by browser and by device, what is stored for it, and signing out."""

from __future__ import annotations

import json
import os
import socket
import stat
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
import requests

from harness.guarded_server import GuardedServer
from harness.issuer import Client, Issuer
from muniment_client import command, loopback
from muniment_client.cache import Cache, SignIn
from muniment_client.device import sign_in_by_device
from muniment_client.discovery import ask_issuer
from muniment_client.errors import ClientError, LoginFailed, NotConfigured, Refused
from muniment_client.login import has_browser, sign_in, sign_out

TIMEOUT_S = 10


class Browser:
    """Goes where `webbrowser.open` sends it, in a thread, and changes the answer if told to."""

    def __init__(self, change: Callable[[str], str] = str) -> None:
        self.asked: dict[str, list[str]] = {}
        self.answers: list[requests.Response] = []
        self._change = change

    def open(self, url: str) -> bool:
        self.asked = parse_qs(urlsplit(url).query)
        threading.Thread(target=self._go, args=(url,)).start()
        return True

    def _go(self, url: str) -> None:
        page = requests.get(url, allow_redirects=False, timeout=TIMEOUT_S)
        back = self._change(page.headers["Location"])
        self.answers.append(requests.get(back, timeout=TIMEOUT_S))


@pytest.fixture
def browser(environment: pytest.MonkeyPatch) -> Browser:
    used = Browser()
    environment.setattr("webbrowser.open", used.open)
    return used


def by_browser(server: GuardedServer, cache: Cache, **options: str) -> SignIn:
    return sign_in(
        server.url, cache, lambda text: None, flow="browser", environ=os.environ, **options
    )


def test_a_browser_sign_in_uses_pkce_and_state_and_a_loopback_address(
    server: GuardedServer, browser: Browser, cache: Cache
) -> None:
    found = by_browser(server, cache)
    assert found.who == "Ada"
    assert server.subject(found.access_token) == "ada"
    assert found.refresh_token is not None
    assert browser.asked["code_challenge_method"] == ["S256"]
    assert browser.asked["scope"] == ["openid offline_access"]
    assert len(browser.asked["state"][0]) >= 32
    assert urlsplit(browser.asked["redirect_uri"][0]).hostname == "127.0.0.1"
    assert "You are signed in" in browser.answers[0].text


def test_the_stored_sign_in_is_for_its_owner_only(
    server: GuardedServer, browser: Browser, cache: Cache
) -> None:
    found = by_browser(server, cache)
    path = cache.path(server.url, found.issuer)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(cache.folder.stat().st_mode) == 0o700
    assert cache.find(server.url) == found
    assert found.access_token not in repr(found)
    assert (found.refresh_token or "") not in repr(found)
    assert {one.suffix for one in cache.folder.iterdir()} == {".json", ".lock"}


def test_an_answer_with_another_state_is_turned_away(
    server: GuardedServer, browser: Browser, cache: Cache
) -> None:
    right = []

    def forged_first(url: str) -> str:
        forged = url.replace("state=", "state=x")
        assert requests.get(forged, timeout=TIMEOUT_S).status_code == 400
        right.append(url)
        return url

    browser._change = forged_first
    assert by_browser(server, cache).who == "Ada"
    assert right


def test_a_connection_on_which_a_browser_says_nothing_holds_nobody_up(
    server: GuardedServer, browser: Browser, cache: Cache
) -> None:
    silent = []

    def connect_first(url: str) -> str:
        address = urlsplit(url)
        silent.append(socket.create_connection((str(address.hostname), address.port or 0)))
        return url

    browser._change = connect_first
    begun = time.monotonic()
    assert by_browser(server, cache).who == "Ada"
    assert time.monotonic() - begun < loopback.REQUEST_S
    silent.pop().close()


def test_an_answer_that_names_another_issuer_is_refused(
    server: GuardedServer, issuer: Issuer, browser: Browser, cache: Cache
) -> None:
    browser._change = lambda url: url.split("&iss=")[0] + "&iss=https://evil.example"
    with pytest.raises(LoginFailed, match="another identity provider"):
        by_browser(server, cache)
    assert issuer.asked("/token") == 0
    assert cache.all() == []


def test_a_denied_sign_in_says_why(server: GuardedServer, browser: Browser, cache: Cache) -> None:
    browser._change = lambda url: url.replace("code=", "error=access_denied&x=")
    with pytest.raises(LoginFailed, match="access_denied"):
        by_browser(server, cache)


def test_nobody_coming_back_ends_in_time(
    server: GuardedServer, environment: pytest.MonkeyPatch, issuer: Issuer
) -> None:
    provider = ask_issuer(issuer.url, named_by_user=True)
    with pytest.raises(LoginFailed, match="Nobody signed in within"):
        loopback.sign_in_by_browser(provider, "cli", "openid", None, lambda url: None, wait_s=0.1)


def test_a_device_sign_in_waits_as_long_as_it_is_told_to(
    environment: pytest.MonkeyPatch, issuer: Issuer
) -> None:
    slept: list[float] = []
    told: list[str] = []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        if len(slept) == 3:
            issuer.approve_device(told[0].partition("code ")[2].split()[0], "bob")

    issuer.lives.device_interval_s, issuer.lives.device_s = 1, 1
    provider = ask_issuer(issuer.url, named_by_user=True)
    # Nobody sleeps here, so the issuer says slow_down to all but the first.
    with pytest.raises(LoginFailed, match="expired"):
        sign_in_by_device(provider, "cli", "openid", None, told.append, lambda s: slept.append(s))
    assert slept[:4] == [1, 1, 6, 11]
    told.clear()
    slept.clear()
    issuer.lives.device_s, issuer.lives.device_interval_s = 60, 0
    answer = sign_in_by_device(provider, "cli", "openid", None, told.append, sleep)
    assert answer["access_token"]
    assert issuer.url in told[0]


def test_a_denied_device_sign_in_says_so(
    environment: pytest.MonkeyPatch, issuer: Issuer, server: GuardedServer, cache: Cache
) -> None:
    issuer.lives.device_interval_s = 0

    def deny(text: str) -> None:
        issuer.approve_device(text.partition("code ")[2].split()[0], None)

    with pytest.raises(LoginFailed, match="denied"):
        sign_in(server.url, cache, deny, flow="device", environ=os.environ)


def test_without_a_display_the_device_flow_is_chosen(environment: pytest.MonkeyPatch) -> None:
    assert not has_browser({})
    assert not has_browser({"DISPLAY": ":0", "SSH_CONNECTION": "1"})


def test_the_command_signs_in_shows_who_and_signs_out(
    environment: pytest.MonkeyPatch,
    server: GuardedServer,
    browser: Browser,
    issuer: Issuer,
    cache: Cache,
    capsys: pytest.CaptureFixture[str],
) -> None:
    environment.setenv("MLFLOW_TRACKING_URI", f"{server.url}/")
    assert command.main(["login", "--browser"]) == 0
    assert f"Signed in to {server.url} as Ada" in capsys.readouterr().err
    assert command.main(["token"]) == 0
    assert server.subject(capsys.readouterr().out.strip()) == "ada"
    assert command.main(["whoami"]) == 0
    told = capsys.readouterr()
    assert json.loads(told.out) == {}, "what the server said"
    assert server.requests[-1].path == "/api/v1/whoami"
    assert "sign-in of Ada" in told.err
    assert command.main(["logout"]) == 0
    assert cache.all() == []
    assert issuer.asked("/revoke") == 1
    assert command.main(["token"]) == 1
    assert "Run `muniment-client login" in capsys.readouterr().err


def test_who_one_is_where_nobody_signs_in(
    environment: pytest.MonkeyPatch, server: GuardedServer, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command.main(["whoami", server.url]) == 1
    assert "Run `muniment-client login" in capsys.readouterr().err
    server.is_open = True
    assert command.main(["whoami", server.url]) == 0
    told = capsys.readouterr()
    assert json.loads(told.out) == {}, "what the server said"
    assert "asks nobody to sign in" in told.err


def test_the_command_without_a_server_says_what_to_name(
    environment: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    environment.delenv("MLFLOW_TRACKING_URI")
    assert command.main(["login"]) == 1
    assert "MLFLOW_TRACKING_URI" in capsys.readouterr().err


def test_a_server_that_names_no_client_is_told_apart(
    server: GuardedServer, cache: Cache, browser: Browser, issuer: Issuer
) -> None:
    del server.issuers[0]["client_id"]
    with pytest.raises(NotConfigured, match="--client-id"):
        by_browser(server, cache)
    assert by_browser(server, cache, client_id="cli").who == "Ada"


def test_several_issuers_are_to_be_chosen_from(
    server: GuardedServer, cache: Cache, browser: Browser, issuer: Issuer
) -> None:
    server.issuers.append({"url": "https://other.example", "client_id": "x", "audience": "y"})
    with pytest.raises(NotConfigured, match=r"https://other\.example"):
        by_browser(server, cache)
    assert by_browser(server, cache, issuer=issuer.url).who == "Ada"


def test_a_server_without_tls_cannot_name_the_issuer(cache: Cache) -> None:
    with pytest.raises(NotConfigured, match="without TLS"):
        sign_in("http://tracking.example", cache, lambda text: None, environ={})


def test_a_server_that_calls_itself_otherwise_is_not_believed(
    server: GuardedServer, cache: Cache, browser: Browser
) -> None:
    claimed = server.metadata() | {"resource": "https://tracking.example"}
    server.metadata = lambda: claimed  # type: ignore[method-assign]
    with pytest.raises(NotConfigured, match="calls itself"):
        by_browser(server, cache)


def test_metadata_of_another_issuer_is_not_believed(
    server: GuardedServer, issuer: Issuer, cache: Cache, browser: Browser
) -> None:
    issuer.extra_metadata = {"issuer": "https://other.example"}
    with pytest.raises(NotConfigured, match=r"metadata of https://other\.example"):
        by_browser(server, cache)


def test_a_stored_file_that_is_broken_is_left_aside(
    server: GuardedServer, cache: Cache, browser: Browser
) -> None:
    found = by_browser(server, cache)
    cache.path(found.server, found.issuer).write_text("{")
    assert cache.find(server.url) is None
    assert by_browser(server, cache).who == "Ada"


def test_a_folder_that_cannot_be_written_is_an_error_that_names_the_way_out(
    server: GuardedServer, environment: pytest.MonkeyPatch, browser: Browser, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ClientError, match="MUNIMENT_CLIENT_CACHE"):
        by_browser(server, Cache(tmp_path / "file"))


def test_the_client_must_be_registered(
    server: GuardedServer, issuer: Issuer, cache: Cache, environment: pytest.MonkeyPatch
) -> None:
    issuer.grants.clients = {"other": Client("other")}
    with pytest.raises(ClientError, match="invalid_client"):
        sign_in(server.url, cache, lambda text: None, flow="device", environ=os.environ)


@pytest.mark.parametrize("endpoint", ["http://evil.example/token", "file:///etc/passwd", "x"])
def test_an_endpoint_that_is_no_protected_address_is_refused(
    server: GuardedServer, issuer: Issuer, cache: Cache, browser: Browser, endpoint: str
) -> None:
    issuer.extra_metadata = {"authorization_endpoint": endpoint}
    with pytest.raises(NotConfigured, match="endpoint without TLS"):
        by_browser(server, cache)
    assert browser.asked == {}


def test_what_others_wrote_cannot_steer_the_terminal() -> None:
    told = str(
        Refused("https://issuer.example", "denied", "\x1b[2Jplease\nrun\u202e rm " + "x" * 999)
    )
    assert told.isprintable()
    assert len(told) < 400


def test_signing_out_revokes_what_a_job_has_renewed_since(
    server: GuardedServer, issuer: Issuer, cache: Cache, browser: Browser
) -> None:
    before = by_browser(server, cache)
    now = replace(before, refresh_token="the newest", issued_at=before.issued_at + 1)
    cache.store(now)
    assert sign_out(before, cache) is None
    assert "the newest" in issuer.grants.revoked
    assert cache.all() == []

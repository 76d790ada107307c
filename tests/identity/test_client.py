"""muniment-client with a real Keycloak: people sign in, and jobs go on past their tokens' ends."""

from __future__ import annotations

import json
import time
from pathlib import Path

import httpx
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from joserfc.jwk import RSAKey
from playwright.sync_api import Page, expect

from harness import client_wheel
from harness.guarded import Guarded
from harness.keycloak import CLI_CLIENT, JOB_CLIENT, JOB_SECRET, Provider, approve, password_of
from harness.keycloak_admin import Administrator
from harness.laptop import Laptop

pytestmark = pytest.mark.slow

LIFE_S = 4
RENEWALS = 3
RENEWED_WITHIN_S = 120.0
POLL_S = 0.5


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with muniment-client."""
    folder = tmp_path_factory.mktemp("client")
    return client_wheel.unpack(client_wheel.build(folder / "dist"), folder / "site")


@pytest.fixture
def laptop(installed: Path, server: Guarded, tmp_path: Path) -> Laptop:
    """A machine on which nobody has signed in."""
    return Laptop(tmp_path, installed, server.url)


def sign_in_by_device(laptop: Laptop, name: str) -> str:
    """What the command says when a person has granted it elsewhere."""
    with laptop.signing_in("--device") as signing:
        assert "Device Login Successful" in approve(signing.page, name)
    return signing.told


def refresh(laptop: Laptop, keycloak: Provider) -> httpx.Response:
    """What Keycloak says to the sign-in's refresh token."""
    form = {"grant_type": "refresh_token", "client_id": CLI_CLIENT}
    form["refresh_token"] = laptop.stored()["refresh_token"]
    return httpx.post(keycloak.metadata()["token_endpoint"], data=form)


def test_a_person_signs_in_on_another_device(
    keycloak: Provider, server: Guarded, laptop: Laptop
) -> None:
    assert f"Signed in to {server.url} as ben" in sign_in_by_device(laptop, "ben")
    found = laptop.who()
    assert (found["name"], found["groups"]) == ("ben", ["ml-team"])
    token = keycloak.person("ben").access
    assert found["principal_id"] == server.who(token)["principal_id"]
    assert server.who(laptop.run("token", server.url).strip())["client_id"] == CLI_CLIENT


def test_a_person_signs_in_by_browser(
    page: Page, keycloak: Provider, server: Guarded, laptop: Laptop
) -> None:
    with laptop.signing_in("--browser") as signing:
        page.goto(signing.page)
        page.fill("#username", "ana")
        page.fill("#password", password_of("ana"))
        page.click("#kc-login")
        expect(page.get_by_text("You are signed in")).to_be_visible()
        assert page.url.startswith("http://127.0.0.1:")
    assert laptop.who()["groups"] == ["ml-admins"]


def test_a_sign_in_ends_at_keycloak_too(
    keycloak: Provider, server: Guarded, laptop: Laptop
) -> None:
    sign_in_by_device(laptop, "cleo")
    kept = laptop.stored()
    assert refresh(laptop, keycloak).status_code == 200
    laptop.run("logout", server.url)
    assert list(laptop.sign_ins.glob("*.json")) == []
    (laptop.sign_ins / "kept.json").write_text(json.dumps(kept), "utf-8")
    replayed = refresh(laptop, keycloak)
    assert (replayed.status_code, replayed.json()["error"]) == (400, "invalid_grant")


def await_renewals(admin: Administrator) -> None:
    """Until the person's token and the service's have each been renewed often enough."""
    deadline = time.monotonic() + RENEWED_WITHIN_S
    wanted = {("REFRESH_TOKEN", CLI_CLIENT): RENEWALS, ("CLIENT_LOGIN", JOB_CLIENT): RENEWALS + 1}
    while any(admin.happened(*what) < often for what, often in wanted.items()):
        assert time.monotonic() < deadline, {what: admin.happened(*what) for what in wanted}
        time.sleep(POLL_S)


def test_jobs_go_on_past_the_ends_of_their_tokens(
    keycloak: Provider, server: Guarded, laptop: Laptop, installed: Path, tmp_path: Path
) -> None:
    ana, admin = keycloak.person("ana").access, Administrator(keycloak)
    cluster = Laptop(tmp_path / "cluster", installed, server.url)
    for name in ("long-first", "long-second", "long-service"):
        server.experiment(ana, name)
    server.grant_group(ana, "ml-team", "editor", "long-*")
    server.grant(ana, keycloak.job(), "logger", "long-service")
    secret = {"MUNIMENT_CLIENT_ID": JOB_CLIENT, "MUNIMENT_CLIENT_SECRET": JOB_SECRET}
    with (
        admin.token_life(CLI_CLIENT, LIFE_S),
        admin.token_life(JOB_CLIENT, LIFE_S),
        # Two jobs share one sign-in: the one that is second with a token would end it for both.
        admin.refresh_tokens_work_once(),
        admin.recorded("REFRESH_TOKEN", "REFRESH_TOKEN_ERROR", "CLIENT_LOGIN"),
    ):
        sign_in_by_device(laptop, "ben")
        jobs = [laptop.jobs("long-first", "long-second"), cluster.jobs("long-service", **secret)]
        try:
            await_renewals(admin)
            logged = [found for some in jobs for found in some.finished()]
        finally:
            for some in jobs:
                some.kill()
        assert admin.happened("REFRESH_TOKEN_ERROR", CLI_CLIENT) == 0
    assert all(found["runs"] for found in logged)


def test_a_job_proves_itself_with_a_key_and_no_secret(
    keycloak: Provider, laptop: Laptop, tmp_path: Path
) -> None:
    private = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    pem = private.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    (tmp_path / "job.pem").write_bytes(pem)
    public = RSAKey.import_key(pem).as_dict(private=False, kid="job-1", use="sig", alg="RS256")
    known = {"MUNIMENT_CLIENT_ID": "signed-job", "MUNIMENT_CLIENT_KEY_ID": "job-1"}
    known["MUNIMENT_CLIENT_KEY_FILE"] = str(tmp_path / "job.pem")
    with Administrator(keycloak).job_with_key("signed-job", public):
        found = laptop.who(**known)
    assert (found["kind"], found["client_id"]) == ("service", "signed-job")

"""Personal and service tokens over the API: told once, limited, listed, revoked at once."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import structlog

from harness.begun import begun
from harness.door import Answered, Door
from muniment_auth.principal import Principal, local_principal, principal_id
from muniment_auth.tokens import TOKEN_PREFIX, is_ours, parse
from muniment_services import bootstrap
from muniment_services.api.services import Services
from muniment_services.config import Settings
from muniment_services.domain.limits import DAY_MS
from muniment_services.domain.principal import KIND as PRINCIPAL
from muniment_services.log.base import TopicPartition

TOKENS = "/api/v1/tokens"
SERVICES = "/api/v1/service-tokens"


def user(subject: str, **changes: Any) -> Principal:
    issuer = "https://id.example"
    found = Principal(
        id=principal_id(issuer, subject),
        kind="user",
        issuer=issuer,
        subject=subject,
        name=subject.title(),
        auth_method="bearer",
        groups=frozenset({"ml"}),
        claims={"department": ("risk",)},
    )
    return dataclasses.replace(found, **changes)


ANNA, BERT = user("anna"), user("bert")
LOCAL = local_principal("root")


def run(folder: Path, test: Callable[[Services], Awaitable[None]]) -> None:
    async def main() -> None:
        async with bootstrap.services(Settings(data_dir=begun(folder))) as services:
            await services.identities.register_once(ANNA)
            await test(services)

    asyncio.run(main())


async def made(door: Door, path: str = TOKENS, token: str | None = None, **body: Any) -> Answered:
    answer = await door.ask("POST", path, {"name": "laptop", **body}, token=token)
    assert answer.status == 200, answer.body
    return answer


def test_a_token_is_told_once_and_authenticates_its_maker(tmp_path: Path) -> None:
    async def test(services: Services) -> None:
        anna = Door(services, ANNA)
        answer = await made(anna, description="for the night job", life_days=7)
        secret, token = answer.json["secret"], answer.json["token"]
        assert answer.header("cache-control") == "no-store"
        assert is_ours(secret)
        assert secret.split("_")[1] == token["id"]
        assert token["expires_at_ms"] - token["issued_at_ms"] <= 7 * DAY_MS
        assert (token["kind"], token["name"], token["state"]) == ("personal", "laptop", "live")
        told = (await Door(services, None).ask("GET", "/api/v1/whoami", token=secret)).json
        assert told["principal_id"] == ANNA.id
        assert (told["name"], told["auth_method"]) == ("Anna", "token")
        assert (told["credential_id"], told["groups"]) == (token["id"], ["ml"])
        assert "csrf_token" not in told
        listed = await anna.ask("GET", TOKENS)
        assert listed.json == {"tokens": [token]}
        assert secret.split("_")[2] not in str(listed)

    run(tmp_path, test)


def test_a_token_lives_ninety_days_if_nothing_is_said(tmp_path: Path) -> None:
    async def test(services: Services) -> None:
        token = (await made(Door(services, ANNA))).json["token"]
        life_ms = token["expires_at_ms"] - token["issued_at_ms"]
        assert 90 * DAY_MS - 60_000 < life_ms <= 90 * DAY_MS

    run(tmp_path, test)


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"name": ""},
        {"name": "x", "life_days": 0},
        {"name": "x", "life_days": -1},
        {"name": "x", "life_days": 367},
        {"name": "x", "life_days": 2**62},
        {"name": "x", "life_days": "soon"},
        {"name": "x", "scopes": "run:read"},
        {"name": "x", "scopes": ["runs:read"]},
        {"name": "x", "scopes": ["run:fly"]},
        {"name": "x", "scopes": ["run:read", "nothing:*"]},
        {"name": "x", "scopes": ["run:*\n"]},
        {"name": 5},
    ],
)
def test_what_is_refused(tmp_path: Path, body: dict[str, Any]) -> None:
    async def test(services: Services) -> None:
        answer = await Door(services, ANNA).ask("POST", TOKENS, body)
        assert (answer.status, answer.json["error_code"]) == (400, "INVALID_PARAMETER_VALUE")
        assert (await Door(services, ANNA).ask("GET", TOKENS)).json == {"tokens": []}

    run(tmp_path, test)


@pytest.mark.parametrize("path", [TOKENS, SERVICES])
def test_a_request_for_a_token_cannot_be_repeated(tmp_path: Path, path: str) -> None:
    async def test(services: Services) -> None:
        door = Door(services, LOCAL if path == SERVICES else ANNA)
        answer = await door.ask("POST", path, {"name": "x"}, key="k")
        assert answer.status == 400
        assert "Idempotency-Key" in answer.json["message"]

    run(tmp_path, test)


@pytest.mark.parametrize("kind", ["local", "workload"])
def test_who_needs_no_personal_token_gets_none(tmp_path: Path, kind: str) -> None:
    async def test(services: Services) -> None:
        answer = await Door(services, user("x", kind=kind)).ask("POST", TOKENS, {"name": "x"})
        assert (answer.status, answer.json["error_code"]) == (403, "PERMISSION_DENIED")

    run(tmp_path, test)


def test_a_revoked_token_is_refused_at_once_and_over_a_restart(tmp_path: Path) -> None:
    secrets: list[str] = []

    async def test(services: Services) -> None:
        anna, nobody = Door(services, ANNA), Door(services, None)
        answer = await made(anna)
        secret, token = answer.json["secret"], answer.json["token"]
        secrets.append(secret)
        path = f"{TOKENS}/{token['id']}"
        gone = await anna.ask("DELETE", path, {"reason": "found in a repository"})
        assert gone.json["token"]["state"] == "revoked"
        assert gone.json["token"]["revoked_reason"] == "found in a repository"
        refused = await nobody.ask("GET", "/api/v1/whoami", token=secret)
        assert (refused.status, refused.json["reason"]) == (401, "revoked")
        assert (await anna.ask("DELETE", path)).json == {}
        assert (await anna.ask("GET", TOKENS)).json == {"tokens": []}
        ended = (await anna.ask("GET", TOKENS, query={"ended": "true"})).json["tokens"]
        assert [one["id"] for one in ended] == [token["id"]]
        live = await made(anna)
        secrets.append(live.json["secret"])

    async def later(services: Services) -> None:
        nobody = Door(services, None)
        old, live = [await nobody.ask("GET", "/api/v1/whoami", token=secret) for secret in secrets]
        assert (old.status, old.json["reason"]) == (401, "revoked")
        assert (live.status, live.json["name"]) == (200, "Anna")

    run(tmp_path, test)
    run(tmp_path, later)


def test_others_tokens_do_not_exist_for_one(tmp_path: Path) -> None:
    async def test(services: Services) -> None:
        token = (await made(Door(services, ANNA))).json["token"]
        bert = Door(services, BERT)
        refused = await bert.ask("DELETE", f"{TOKENS}/{token['id']}")
        unknown = await bert.ask("DELETE", f"{TOKENS}/{'x' * 16}")
        assert refused.status == unknown.status == 404
        assert refused.json["message"].replace(token["id"], "x" * 16) == unknown.json["message"]
        assert (await bert.ask("GET", TOKENS)).json == {"tokens": []}
        assert (await bert.ask("GET", TOKENS, query={"all": "true"})).status == 403
        everybody = await Door(services, LOCAL).ask("GET", TOKENS, query={"all": "true"})
        assert [one["id"] for one in everybody.json["tokens"]] == [token["id"]]
        assert (await Door(services, LOCAL).ask("DELETE", f"{TOKENS}/{token['id']}")).status == 200

    run(tmp_path, test)


def test_a_token_makes_none_that_may_do_more_or_lives_longer(tmp_path: Path) -> None:
    async def test(services: Services) -> None:
        nobody = Door(services, None)
        first = await made(Door(services, ANNA), scopes=["run:*", "*:read"], life_days=10)
        secret, token = first.json["secret"], first.json["token"]

        async def ask(**body: Any) -> Answered:
            return await nobody.ask("POST", TOKENS, {"name": "x", **body}, token=secret)

        for body in (
            {"scopes": ["*"]},
            {"scopes": ["experiment:write"]},
            {"scopes": ["run:read", "experiment:*"]},
            {"life_days": 11},
            {"scopes": ["run:read"], "life_days": 366},
        ):
            assert (await ask(**body)).status == 403, body
        same = (await ask()).json["token"]
        assert same["scopes"] == ["*:read", "run:*"]
        assert same["expires_at_ms"] == token["expires_at_ms"]
        assert same["maker_id"] == token["id"]
        less = (await ask(scopes=["experiment:read"], life_days=1)).json["token"]
        assert less["expires_at_ms"] < token["expires_at_ms"]

    run(tmp_path, test)


def test_a_limited_token_manages_itself_and_what_it_made(tmp_path: Path) -> None:
    async def test(services: Services) -> None:
        anna, nobody = Door(services, ANNA), Door(services, None)
        other = (await made(anna)).json["token"]
        limited = (await made(anna, scopes=["run:*"])).json
        secret, own = limited["secret"], limited["token"]["id"]
        child = (await made(nobody, token=secret)).json["token"]["id"]
        listed = (await nobody.ask("GET", TOKENS, token=secret)).json["tokens"]
        assert [one["id"] for one in listed] == [own, child]
        for token_id, status in ((other["id"], 404), (child, 200), (own, 200)):
            answer = await nobody.ask("DELETE", f"{TOKENS}/{token_id}", token=secret)
            assert answer.status == status
        assert (await nobody.ask("GET", TOKENS, token=secret)).status == 401

    run(tmp_path, test)


def test_a_service_has_a_principal_of_its_own_and_several_tokens(tmp_path: Path) -> None:
    async def test(services: Services) -> None:
        admin, nobody = Door(services, LOCAL), Door(services, None)
        one = (await made(admin, SERVICES, name="nightly", scopes=["run:*"])).json
        two = (await made(admin, SERVICES, name="nightly")).json
        service = principal_id("muniment:service", "nightly")
        assert one["token"]["principal_id"] == two["token"]["principal_id"] == service
        assert services.fold.state.get(PRINCIPAL, service) is not None
        told = (await nobody.ask("GET", "/api/v1/whoami", token=two["secret"])).json
        assert (told["kind"], told["name"]) == ("service", "nightly")
        assert (told["issuer"], told["groups"]) == ("muniment:service", [])
        listed = (await admin.ask("GET", TOKENS)).json["tokens"]
        assert [t["id"] for t in listed] == [one["token"]["id"], two["token"]["id"]]
        assert (await admin.ask("DELETE", f"{TOKENS}/{one['token']['id']}")).status == 200
        assert (await nobody.ask("GET", "/api/v1/whoami", token=one["secret"])).status == 401
        assert (await nobody.ask("GET", "/api/v1/whoami", token=two["secret"])).status == 200

    run(tmp_path, test)


@pytest.mark.parametrize("name", ["", "a b", "-a", "a/b", "ä", "a\n", "x" * 101])
def test_what_no_service_is_called(tmp_path: Path, name: str) -> None:
    async def test(services: Services) -> None:
        answer = await Door(services, LOCAL).ask("POST", SERVICES, {"name": name})
        assert answer.status == 400
        kinds = {state.version for state in services.fold.state.of_kind("credential")}
        assert kinds == set()

    run(tmp_path, test)


def test_only_who_may_grant_makes_service_tokens(tmp_path: Path) -> None:
    async def test(services: Services) -> None:
        answer = await Door(services, ANNA).ask("POST", SERVICES, {"name": "nightly"})
        assert (answer.status, answer.json["error_code"]) == (403, "PERMISSION_DENIED")

    run(tmp_path, test)


def test_no_secret_is_in_the_log_the_projections_or_what_is_printed(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    texts: list[str] = []

    async def test(services: Services) -> None:
        caplog.set_level(logging.DEBUG)
        anna, nobody = Door(services, ANNA), Door(services, None)
        with structlog.testing.capture_logs() as lines:
            for scopes in ([], ["run:*"]):
                texts.append((await made(anna, scopes=scopes)).json["secret"])
            secret = parse(texts[0], TOKEN_PREFIX)
            assert secret is not None
            await anna.ask("DELETE", f"{TOKENS}/{secret.id}")
            refusals = [
                await nobody.ask("GET", "/api/v1/whoami", token=text)
                for text in (texts[0], texts[0][:-1], texts[1][:-7] + texts[0][-7:])
            ]
        values = [
            record.value
            for partition in [TopicPartition("catalog", 0)]
            for record in services.fold.log.read(partition, 0, 100_000)  # type: ignore[arg-type]
        ]
        assert any(b"laptop" in value for value in values)
        everything = b"".join(values).decode("latin-1") + str(lines) + str(refusals) + caplog.text
        for text in texts:
            assert text.split("_")[2][:43] not in everything

    run(tmp_path, test)
    printed = "".join(capfd.readouterr())
    kept = b"".join(p.read_bytes() for p in tmp_path.rglob("*") if p.is_file())
    for text in texts:
        assert text.split("_")[2][:43] not in printed
        assert text.split("_")[2][:43].encode() not in kept
        assert text.split("_")[1].encode() in kept

"""Erasing a person: the order is an event, the key goes, and nothing else of the log changes."""

from __future__ import annotations

import asyncio
import dataclasses
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from muniment_auth.identity import KeysUnavailable
from muniment_auth.principal import Principal, local_principal, principal_id
from muniment_schemas.events import PrincipalErased
from muniment_services import bootstrap
from muniment_services.api import privacy as api
from muniment_services.api.callers import LocalCallers
from muniment_services.api.errors import expected
from muniment_services.api.routes import Call, RouteTable
from muniment_services.api.services import Services
from muniment_services.authority import Authority
from muniment_services.clock import now_ms
from muniment_services.config import Settings
from muniment_services.domain.credential import IssueCredential, of_principal
from muniment_services.domain.errors import Held
from muniment_services.domain.hold import PlaceHold
from muniment_services.domain.principal import KIND, ErasePrincipal, PrincipalState
from muniment_services.log.base import Record, TopicPartition
from muniment_services.metrics import Metrics
from muniment_services.startup import Startup
from muniment_services.write import Caller

ISSUER, SUBJECT, NAME = "https://id.example", "subject-4711", "Anna Example"
ANNA = dataclasses.replace(
    local_principal("x"),
    id=principal_id(ISSUER, SUBJECT),
    kind="user",
    issuer=ISSUER,
    subject=SUBJECT,
    name=NAME,
)
ORDER = ErasePrincipal(principal_id=ANNA.id, reason="request 17")
PERSONAL = (SUBJECT.encode(), NAME.encode())


def run(folder: Path, test: Callable[[Services], Awaitable[None]]) -> None:
    async def main() -> None:
        async with bootstrap.services(Settings(data_dir=folder)) as services:
            await test(services)

    asyncio.run(main())


async def submit(services: Services, command: Any, who: Principal = ANNA) -> None:
    caller = Caller(actor=who.actor, request_id="r", workspace="default")
    await services.writer.submit(caller, command, lambda _: b"{}")


async def issue(services: Services, kind: str, number: int) -> None:
    await submit(
        services,
        IssueCredential(
            credential_id=f"{number:016}",
            credential_kind=kind,
            principal_id=ANNA.id,
            principal_kind="user",
            issuer=ISSUER,
            secret_sha256=b"s" * 32,
            name="laptop",
            expires_at_ms=now_ms() + 60_000,
        ),
    )


def state_of(services: Services) -> PrincipalState:
    found = services.fold.state.get(KIND, ANNA.id)
    assert isinstance(found, PrincipalState)
    return found


async def records(services: Services) -> dict[TopicPartition, list[Record]]:
    log = services.fold.log
    return {
        at: list(log.read(at, 0, 1_000))  # type: ignore[arg-type]
        for at in await log.end_offsets()
    }


def test_erasing_destroys_the_key_and_changes_no_record(tmp_path: Path) -> None:
    async def test(services: Services) -> None:
        await services.identities.register_once(ANNA)
        await issue(services, "personal", 1)
        await issue(services, "session", 2)
        key = tmp_path / "keys" / state_of(services).key_id
        assert key.exists()
        before = await records(services)
        await submit(services, ORDER, bootstrap.local_user())
        # From the event on nobody is told any more, whatever is done with the key.
        identity = await services.identities.identity(ANNA.id)
        assert identity is not None
        assert (identity.issuer, identity.subject, identity.name) == ("", "", "erased")
        assert await services.erasures.finish() == 1
        assert not key.exists()
        assert not [c for c in of_principal(services.fold.state, ANNA.id) if c.is_live(now_ms())]
        after = await records(services)
        assert all(after[at][: len(had)] == had for at, had in before.items())
        assert await services.erasures.finish() == 0
        assert await records(services) == after

    run(tmp_path, test)
    left = b"".join(p.read_bytes() for p in tmp_path.rglob("*") if p.is_file())
    assert not any(personal in left for personal in PERSONAL)


def test_a_crash_after_the_order_is_made_good_by_the_next_start(tmp_path: Path) -> None:
    keys: list[Path] = []

    async def order(services: Services) -> None:
        await services.identities.register_once(ANNA)
        await issue(services, "personal", 1)
        keys.append(tmp_path / "keys" / state_of(services).key_id)
        await submit(services, ORDER, bootstrap.local_user())

    async def again(services: Services) -> None:
        assert not [c for c in of_principal(services.fold.state, ANNA.id) if c.is_live(now_ms())]

    run(tmp_path, order)
    assert keys[0].exists()
    run(tmp_path, again)
    assert not keys[0].exists()


def test_a_key_that_an_old_backup_brings_back_is_destroyed_at_the_start(tmp_path: Path) -> None:
    saved: list[tuple[Path, bytes]] = []

    async def order(services: Services) -> None:
        await services.identities.register_once(ANNA)
        key = tmp_path / "keys" / state_of(services).key_id
        saved.append((key, key.read_bytes()))
        await submit(services, ORDER, bootstrap.local_user())
        await services.erasures.finish()

    async def nothing(_: Services) -> None:
        return

    run(tmp_path, order)
    (key, content) = saved[0]
    key.write_bytes(content)
    run(tmp_path, nothing)
    assert not key.exists()


def test_keys_that_are_down_are_told_and_the_order_stands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def test(services: Services) -> None:
        await services.identities.register_once(ANNA)
        key = tmp_path / "keys" / state_of(services).key_id

        def down(_: object) -> list[str]:
            raise KeysUnavailable("down")

        with monkeypatch.context() as patch:
            patch.setattr("muniment_auth.identity.FolderKeys.names", down)
            status, _ = await send(services, "POST", f"{ANNA.id}/erasure", b'{"reason": "r"}')
            assert status == 503
        assert key.exists()
        assert state_of(services).erased_at_ms is not None
        status, told = await send(services, "POST", f"{ANNA.id}/erasure", b'{"reason": "r"}')
        assert (status, told["state"], told["identity"]) == (200, "erased", None)
        assert not key.exists()

    run(tmp_path, test)


def test_a_token_does_not_bring_a_person_back_and_a_login_does(tmp_path: Path) -> None:
    async def test(services: Services) -> None:
        await services.identities.register_once(ANNA)
        first = state_of(services).key_id
        await submit(services, ORDER, bootstrap.local_user())
        await services.erasures.finish()
        await services.identities.register_once(ANNA)
        assert state_of(services).erased_at_ms is not None
        await services.identities.register_once(ANNA, anew=True)
        known = state_of(services)
        assert (known.erased_at_ms, known.principal_id) == (None, ANNA.id)
        assert known.key_id != first
        identity = await services.identities.identity(ANNA.id)
        assert identity is not None
        assert identity.name == NAME
        await services.erasures.finish()
        assert (tmp_path / "keys" / known.key_id).exists()

    run(tmp_path, test)


def test_a_legal_hold_refuses_it(tmp_path: Path) -> None:
    async def test(services: Services) -> None:
        await services.identities.register_once(ANNA)
        hold = PlaceHold(hold="case", reason="r", workspace="*", principal_id=ANNA.id)
        await submit(services, hold)
        with pytest.raises(Held, match="legal hold case"):
            await submit(services, ORDER)
        assert (tmp_path / "keys" / state_of(services).key_id).exists()
        status, told = await send(services, "POST", f"{ANNA.id}/erasure", b'{"reason": "r"}')
        assert (status, "legal hold case" in told["message"]) == (409, True)
        status, told = await send(services, "GET", ANNA.id)
        assert (told["state"], told["identity"]["name"], told["holds"]) == ("known", NAME, ["case"])

    run(tmp_path, test)


def test_nobody_erases_themselves_or_a_stranger(tmp_path: Path) -> None:
    async def test(services: Services) -> None:
        me = bootstrap.local_user().id
        assert (await send(services, "POST", f"{me}/erasure", b'{"reason": "r"}'))[0] == 400
        assert (await send(services, "POST", "nobody/erasure", b'{"reason": "r"}'))[0] == 404
        await services.identities.register_once(ANNA)
        assert (await send(services, "POST", f"{ANNA.id}/erasure", b'{"reason": ""}'))[0] == 400

    run(tmp_path, test)


def test_the_order_holds_no_personal_data(tmp_path: Path) -> None:
    async def test(services: Services) -> None:
        await services.identities.register_once(ANNA)
        await submit(services, ORDER, bootstrap.local_user())
        catalog = (await records(services))[TopicPartition("catalog", 0)]
        last = bootstrap.codec(services.fold.log).decode(catalog[-1].value)
        assert isinstance(last, PrincipalErased)
        assert not any(p in catalog[-1].value + catalog[-1].key for p in PERSONAL)

    run(tmp_path, test)


TABLE = RouteTable(api.ROUTES)


async def send(
    services: Services, method: str, path: str, body: bytes = b""
) -> tuple[int, dict[str, Any]]:
    """A call of the privacy routes by the local user, who is an admin."""
    found = TABLE.find(method, f"/api/v1/privacy/principals/{path}")
    assert found is not None
    route, path_params = found
    principal = bootstrap.local_user()
    authority = Authority(lambda: services.accesses.of(principal), route.permission, now_ms)
    call = Call(
        started=services,
        startup=Startup(),
        metrics=Metrics(),
        callers=LocalCallers(principal),
        principal=principal,
        caller=Caller(
            actor=principal.actor, request_id="r", workspace="default", authority=authority
        ),
        authority=authority,
        method=method,
        path_params=path_params,
        query=b"",
        headers={b"content-type": b"application/json"},
        body=body,
    )
    try:
        answer: Any = await route.handler(call)
    except Exception as error:
        refusal = expected(error)
        if refusal is None:
            raise
        return refusal.status, json.loads(refusal.body)
    return 200, json.loads(answer.body)

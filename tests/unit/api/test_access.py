"""Grants over HTTP: who may give what to whom, and who is told why."""

from __future__ import annotations

import asyncio
import dataclasses
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest

from harness.begun import begun
from muniment_auth.principal import Principal
from muniment_schemas.ids import PrincipalId
from muniment_services import bootstrap
from muniment_services.accesses import Accesses
from muniment_services.api import access as api
from muniment_services.api import access_explain
from muniment_services.api.callers import LocalCallers
from muniment_services.api.errors import expected
from muniment_services.api.routes import Call, RouteTable
from muniment_services.api.services import Services
from muniment_services.authority import Authority
from muniment_services.clock import now_ms
from muniment_services.config import Settings
from muniment_services.domain.experiment import CreateExperiment
from muniment_services.metrics import Metrics
from muniment_services.startup import Startup
from muniment_services.write import Caller

ISSUER = "https://idp.example"
TABLE = RouteTable((*api.ROUTES, *access_explain.ROUTES))
GRANTS = "/api/v1/access/grants"
EXPLAIN = "/api/v1/access/explain"
ADMIN = {"role": "admin", "resource_kind": "*", "pattern": "*", "workspace": "*"}


def person(name: str, *groups: str) -> Principal:
    return Principal(
        id=PrincipalId(name),
        kind="user",
        issuer=ISSUER,
        subject=name,
        name=name,
        auth_method="bearer",
        groups=frozenset(groups),
    )


class Door:
    """Sends requests to the access routes as one person or another."""

    def __init__(self, services: Services) -> None:
        self.services = services

    async def send(
        self, who: Principal | None, method: str, path: str, body: Any = None, **query: Any
    ) -> tuple[int, Any]:
        """Status and JSON. who: None for the local user."""
        found = TABLE.find(method, path)
        assert found is not None
        route, path_params = found
        principal = who or bootstrap.local_user()
        authority = Authority(
            lambda: self.services.accesses.of(principal), route.permission, now_ms
        )
        call = Call(
            started=self.services,
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
            query=urlencode(query, doseq=True).encode(),
            headers={b"content-type": b"application/json"},
            body=b"" if body is None else json.dumps(body).encode(),
        )
        try:
            answer = await route.handler(call)
        except Exception as error:
            refusal = expected(error)
            if refusal is None:
                raise
            return refusal.status, json.loads(refusal.body)
        assert isinstance(answer, bytes)
        return 200, json.loads(answer)

    async def grant(self, who: Principal | None, **fields: Any) -> tuple[int, Any]:
        """Make a grant; to anna, as an editor of all experiments, if not said otherwise."""
        chosen = {
            "subject_kind": "principal",
            "subject": "anna",
            "role": "editor",
            "resource_kind": "experiment",
            "pattern": "*",
        }
        return await self.send(who, "POST", GRANTS, chosen | fields)


def run(folder: Path, test: Callable[[Door], Awaitable[None]]) -> None:
    async def main() -> None:
        async with bootstrap.services(Settings(data_dir=begun(folder))) as services:
            await test(Door(services))

    asyncio.run(main())


ANNA, EVA = person("anna"), person("eva", "science")


def test_a_grant_is_made_once_listed_and_taken_back(tmp_path: Path) -> None:
    async def test(door: Door) -> None:
        status, made = await door.grant(None, comment="hello")
        assert status == 200
        grant = made["grant"]
        assert (grant["workspace"], grant["expired"]) == ("default", False)
        assert (await door.grant(None, comment="again"))[1]["grant"] == grant
        _, listed = await door.send(None, "GET", GRANTS)
        assert listed["grants"] == [grant]
        path = f"{GRANTS}/{grant['grant_id']}"
        assert (await door.send(None, "DELETE", path, reason="left"))[0] == 200
        assert (await door.send(None, "DELETE", path))[0] == 404
        assert (await door.send(None, "GET", GRANTS))[1] == {"grants": []}

    run(tmp_path, test)


def test_grants_survive_a_restart(tmp_path: Path) -> None:
    async def first(door: Door) -> None:
        assert (await door.grant(None))[0] == 200

    async def second(door: Door) -> None:
        _, listed = await door.send(None, "GET", GRANTS)
        assert [g["subject"] for g in listed["grants"]] == ["anna"]

    run(tmp_path, first)
    run(tmp_path, second)


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ({"subject_kind": "everyone"}, "role"),
        ({"sbject": "anna"}, "sbject"),
        ({"stages": "Staging"}, "stages"),
        ([], "read"),
        ({"expires_at_ms": "tomorrow"}, "expires_at_ms"),
    ],
)
def test_a_body_that_is_no_grant_is_refused_with_the_reason(
    tmp_path: Path, body: Any, says: str
) -> None:
    full = {"subject_kind": "everyone", "role": "viewer", "resource_kind": "model", "pattern": "*"}
    sent = body if body == {"subject_kind": "everyone"} or isinstance(body, list) else full | body

    async def test(door: Door) -> None:
        status, error = await door.send(None, "POST", GRANTS, sent)
        assert (status, error["error_code"]) == (400, "INVALID_PARAMETER_VALUE")
        assert says in error["message"]

    run(tmp_path, test)


def test_nobody_grants_themselves_what_they_lack(tmp_path: Path) -> None:
    async def test(door: Door) -> None:
        for who in (ANNA, EVA):
            for fields in ({}, ADMIN, {"role": "viewer", "subject": who.id}):
                assert (await door.grant(who, **fields))[0] == 403
        await door.grant(None, role="manager", pattern="team-*")
        assert (await door.grant(ANNA, subject="eva", pattern="team-a"))[0] == 200
        assert (await door.grant(ANNA, subject="eva", pattern="*"))[0] == 403
        assert (await door.grant(ANNA, role="admin", pattern="team-*"))[0] == 403
        assert (await door.grant(ANNA, **ADMIN))[0] == 403
        role = {"permissions": ["server:admin"]}
        assert (await door.send(ANNA, "PUT", "/api/v1/access/roles/mine", role))[0] == 403

    run(tmp_path, test)


def test_a_right_that_was_taken_away_meanwhile_is_not_used(tmp_path: Path) -> None:
    async def test(door: Door) -> None:
        _, made = await door.grant(None, role="manager")
        revoked = door.send(None, "DELETE", f"{GRANTS}/{made['grant']['grant_id']}")
        results = await asyncio.gather(revoked, *(door.grant(ANNA, subject="eva") for _ in "ab"))
        assert results[0][0] == 200
        _, listed = await door.send(None, "GET", GRANTS)
        late = [g for g in listed["grants"] if g["granted_by"] == "anna"]
        # Either before the revocation, which the log's order shows, or not at all.
        assert len(late) <= 1
        assert (await door.grant(ANNA, subject="eva", pattern="x"))[0] == 403

    run(tmp_path, test)


def test_many_grants_at_once_are_all_made(tmp_path: Path) -> None:
    async def test(door: Door) -> None:
        await door.grant(None, **ADMIN)
        many = [door.grant(ANNA, subject=f"p{number}") for number in range(30)]
        results = await asyncio.gather(*many)
        assert {status for status, _ in results} == {200}

    run(tmp_path, test)


def test_what_one_may_not_know_of_is_not_there(tmp_path: Path) -> None:
    async def test(door: Door) -> None:
        _, made = await door.grant(None, role="auditor", subject="carl", **{"pattern": "secret"})
        await door.grant(None, role="manager", pattern="team-*")
        await door.grant(None, role="viewer", pattern="team-*")
        secret = f"{GRANTS}/{made['grant']['grant_id']}"
        assert (await door.send(ANNA, "DELETE", secret))[0] == 404
        _, listed = await door.send(ANNA, "GET", GRANTS)
        assert {g["pattern"] for g in listed["grants"]} == {"team-*"}
        _, one = await door.send(ANNA, "GET", GRANTS, max_results=1)
        _, two = await door.send(ANNA, "GET", GRANTS, page_token=one["next_page_token"])
        assert one["grants"] + two["grants"] == listed["grants"]
        assert "next_page_token" not in two
        _, there = await door.send(ANNA, "GET", GRANTS, resource="experiment:team-x", role="viewer")
        assert [g["role"] for g in there["grants"]] == ["viewer"]

    run(tmp_path, test)


def test_the_last_admin_is_kept_unless_a_group_is_configured(tmp_path: Path) -> None:
    async def test(door: Door) -> None:
        _, made = await door.grant(None, **ADMIN)
        path = f"{GRANTS}/{made['grant']['grant_id']}"
        status, error = await door.send(ANNA, "DELETE", path)
        assert (status, error["error_code"]) == (409, "RESOURCE_CONFLICT")
        groups = ((ISSUER, "ops"),)
        accesses = Accesses(door.services.fold, groups)
        door.services = dataclasses.replace(door.services, admin_groups=groups, accesses=accesses)
        assert (await door.send(person("olga", "ops"), "DELETE", path))[0] == 200
        assert (await door.grant(ANNA))[0] == 403

    run(tmp_path, test)


def test_roles_of_ones_own(tmp_path: Path) -> None:
    path = "/api/v1/access/roles/promoter"

    async def test(door: Door) -> None:
        body = {"permissions": ["model:promote", "model:read"], "description": "d"}
        assert (await door.send(None, "PUT", path, body))[0] == 200
        _, listed = await door.send(None, "GET", "/api/v1/access/roles")
        assert [r["name"] for r in listed["roles"] if not r["built_in"]] == ["promoter"]
        assert len(listed["roles"]) == 8
        wrong = {"permissions": ["model:promoet"]}
        status, error = await door.send(None, "PUT", path, wrong)
        assert status == 400
        assert "model:promote" in error["message"]
        own = {"permissions": ["self:use"]}
        assert (await door.send(None, "PUT", path, own))[0] == 400
        await door.grant(None, role="promoter", resource_kind="model")
        assert (await door.send(None, "DELETE", path))[0] == 409
        viewer = "/api/v1/access/roles/viewer"
        assert (await door.send(None, "PUT", viewer, body))[0] == 400

    run(tmp_path, test)


def test_anybody_is_told_about_themselves_and_only_about_themselves(tmp_path: Path) -> None:
    async def test(door: Door) -> None:
        await door.grant(None, subject="carl")
        await door.grant(None, subject="eva", role="viewer")
        asked = {"permission": "run:write", "resource": "experiment:Default"}
        status, told = await door.send(EVA, "GET", EXPLAIN, **asked)
        assert (status, told["allowed"]) == (200, False)
        assert [g["lacks"] for g in told["grants"]] == [["role: viewer does not hold run:write"]]
        assert (await door.send(EVA, "GET", EXPLAIN, **asked, principal="carl"))[0] == 403
        _, told = await door.send(None, "GET", EXPLAIN, **asked, principal="carl")
        assert (told["allowed"], told["because"][1]) == (True, "role:editor")
        assert "tokens" in told["notes"][0]
        _, local = await door.send(None, "GET", EXPLAIN, **asked)
        assert local["because"] == ["local"]

    run(tmp_path, test)


def test_what_a_group_or_a_workload_may_is_told_by_issuer(tmp_path: Path) -> None:
    claims = [{"name": "repository", "pattern": "org/*"}]
    kinds = {"role": "approver", "resource_kind": "model", "subject": "", "issuer": ISSUER}

    async def test(door: Door) -> None:
        await door.grant(None, subject_kind="group", **kinds | {"subject": "science"})
        await door.grant(None, subject_kind="claims", claims=claims, stages=["production"], **kinds)
        asked = {"permission": "model:promote", "resource": "model:m", "stage": "production"}
        _, group = await door.send(None, "GET", EXPLAIN, **asked, issuer=ISSUER, groups="science")
        assert group["allowed"]
        there = {"issuer": ISSUER, "claims": "repository=org/app"}
        _, job = await door.send(None, "GET", EXPLAIN, **asked, **there)
        assert job["allowed"]
        _, staging = await door.send(None, "GET", EXPLAIN, **asked | {"stage": "Staging"}, **there)
        assert staging["reason"] == "model:promote is granted, for stage Production only"
        other = asked | {"issuer": "https://other.example", "groups": "science"}
        assert not (await door.send(None, "GET", EXPLAIN, **other))[1]["allowed"]

    run(tmp_path, test)


@pytest.mark.parametrize(
    "query",
    [
        {"permission": "run:write"},
        {"permission": "run:wirte", "resource": "experiment:a"},
        {"permission": "run:write", "resource": "run:a"},
        {"permission": "run:write", "resource": "experiment:"},
        {"permission": "run:write", "resource": "*:a"},
        {"permission": "run:write", "resource": "experiment:a", "groups": "x"},
        {"permission": "run:write", "resource": "experiment:a", "stage": "Nowhere"},
    ],
)
def test_a_question_that_is_none_is_refused(tmp_path: Path, query: dict[str, str]) -> None:
    async def test(door: Door) -> None:
        status, error = await door.send(None, "GET", EXPLAIN, **query)
        assert (status, error["error_code"]) == (400, "INVALID_PARAMETER_VALUE")

    run(tmp_path, test)


def test_a_creator_grants_on_the_thing_and_not_on_its_name(tmp_path: Path) -> None:
    asked = {"permission": "run:write", "resource": "experiment:hers"}
    create = CreateExperiment(
        name="hers", artifact_location=None, artifact_root="mlflow-artifacts:"
    )
    anna = Caller(actor=ANNA.actor, request_id="r", workspace="default")

    async def test(door: Door) -> None:
        await door.services.writer.submit(anna, create, lambda _: b"")
        status, made = await door.grant(ANNA, subject="eva", pattern="hers")
        assert (status, made["grant"]["pattern"]) == (200, "id:1")
        assert (await door.grant(ANNA, subject="eva", pattern="hers"))[1] == made
        assert (await door.grant(ANNA, subject="eva", pattern="hers", role="admin"))[0] == 403
        assert (await door.grant(ANNA, subject="eva", pattern="Other"))[0] == 403
        _, listed = await door.send(ANNA, "GET", GRANTS, resource="experiment:hers")
        assert listed == {"grants": [made["grant"]], "owner": "anna"}
        assert (await door.send(ANNA, "GET", EXPLAIN, **asked))[1]["because"][0] == "owner"
        assert (await door.send(ANNA, "DELETE", f"{GRANTS}/owner:experiment:1"))[0] == 200
        _, told = await door.send(ANNA, "GET", EXPLAIN, **asked)
        assert (told["allowed"], "not its manager any more" in told["notes"][0]) == (False, True)
        assert (await door.grant(ANNA, subject="carl", pattern="hers"))[0] == 403

    run(tmp_path, test)


def test_an_ownership_is_ended_by_who_may_grant_on_the_thing(tmp_path: Path) -> None:
    async def test(door: Door) -> None:
        create = CreateExperiment(
            name="team-x", artifact_location=None, artifact_root="mlflow-artifacts:"
        )
        caller = Caller(actor=ANNA.actor, request_id="r", workspace="default")
        await door.services.writer.submit(caller, create, lambda _: b"")
        path = f"{GRANTS}/owner:experiment:1"
        assert (await door.send(EVA, "DELETE", path))[0] == 404
        await door.grant(None, subject="eva", role="viewer")
        assert (await door.send(EVA, "DELETE", path))[0] == 403
        await door.grant(None, subject="eva", role="manager", pattern="id:1")
        assert (await door.send(EVA, "DELETE", path))[0] == 200
        assert (await door.send(EVA, "DELETE", f"{GRANTS}/owner:experiment:7"))[0] == 404
        assert (await door.send(EVA, "DELETE", f"{GRANTS}/owner:server:"))[0] == 400

    run(tmp_path, test)

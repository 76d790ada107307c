"""The policy equals its plain reading and its SQL; nobody gives more than they have."""

from __future__ import annotations

import random
from collections.abc import Sequence

import duckdb
import msgspec
import pytest

from harness.policy_model import (
    World,
    a_grant,
    a_principal,
    a_thing,
    a_world,
    allowed,
    is_made_to,
    some_attributes,
    without_scopes,
)
from muniment_auth.explain import explain
from muniment_auth.granting import may_grant
from muniment_auth.permissions import Permission
from muniment_auth.policy import Access, compile_access
from muniment_auth.principal import Principal
from muniment_auth.resources import NO_ATTRIBUTES, Attributes, Resource
from muniment_auth.subjects import BySubject
from muniment_auth.visibility import Columns, visible

REQUESTS = [3_000, pytest.param(100_000, marks=pytest.mark.slow)]
REQUESTS_PER_WORLD = 250
EXPLAINED_EVERY = 25
TIMES_MS = (0, 49, 50, 75, 100, 1000)
PERMISSIONS = tuple(Permission)
GRANTED = tuple(p for p in PERMISSIONS if p not in ("self:use", "public:read"))
STRONG = ("manager", "manager", "admin", "editor", "approver")


def compiled(world: World, who: Principal) -> Access:
    return compile_access(who, world.roles, world.grants, 1, world.admin_groups, world.ended)


@pytest.mark.parametrize("requests", REQUESTS)
def test_requests_are_decided_as_the_plain_reading_says(requests: int) -> None:
    chance = random.Random(5)
    yes = 0
    for number in range(requests):
        if number % REQUESTS_PER_WORLD == 0:
            world = a_world(chance, chance.randint(0, 8))
            people = [a_principal(chance) for _ in range(6)]
            accesses = [compiled(world, who) for who in people]
        place = chance.randrange(len(people))
        permission, thing = chance.choice(PERMISSIONS), a_thing(chance)
        attributes, now_ms = some_attributes(chance), chance.choice(TIMES_MS)
        asked = (permission, thing, attributes, now_ms)
        decision = accesses[place].decide(*asked)
        expected = allowed(world, people[place], *asked)
        assert decision.allowed == expected, (number, people[place], asked, world)
        assert bool(decision.because) == decision.allowed
        yes += expected
        if number % EXPLAINED_EVERY == 0:
            check_explained(world, people[place], *asked)
    assert requests * 0.1 < yes < requests * 0.6


def check_explained(
    world: World,
    who: Principal,
    permission: Permission,
    thing: Resource,
    attributes: Attributes,
    now_ms: int,
) -> None:
    found = explain(
        who,
        permission,
        thing,
        attributes,
        world.roles,
        world.grants,
        now_ms,
        world.admin_groups,
        world.ended,
    )
    assert found.allowed == allowed(world, who, permission, thing, attributes, now_ms)
    assert len(found.verdicts) == len(world.grants)
    if any(verdict.matched for verdict in found.verdicts):
        assert found.allowed
    if found.because and found.because[0].startswith("grant:"):
        ids = {verdict.grant.grant_id for verdict in found.verdicts if verdict.matched}
        assert found.because[0].removeprefix("grant:") in ids


def test_the_grants_of_a_principal_are_found_among_all() -> None:
    chance = random.Random(7)
    for _ in range(300):
        world, who = a_world(chance, 30), a_principal(chance)
        found = {grant.grant_id for grant in BySubject(world.grants).of(who)}
        assert found == {grant.grant_id for grant in world.grants if is_made_to(grant, who)}


def test_any_means_at_least_one_permission() -> None:
    chance = random.Random(6)
    every = [Attributes(), *(Attributes(s, None) for s in ("Staging", "Production"))]
    every += [Attributes(None, a) for a in ("champion", "shadow")]
    for _ in range(400):
        world = a_world(chance, chance.randint(0, 5))
        who, thing, now_ms = a_principal(chance), a_thing(chance), chance.choice(TIMES_MS)
        expected = any(allowed(world, who, p, thing, a, now_ms) for p in GRANTED for a in every)
        access = compiled(world, who)
        assert access.any(thing, now_ms) == expected, (who, thing, world)
        for permission in GRANTED:
            if any(allowed(world, who, permission, thing, a, now_ms) for a in every):
                assert access.may_ever(permission)


TABLE = """
CREATE TABLE things (
    place INTEGER, kind VARCHAR, id VARCHAR, name VARCHAR, owner VARCHAR, workspace VARCHAR,
    is_prompt BOOLEAN
)
"""
SHARED = Columns("t.name", "t.id", "t.owner", "t.workspace", "t.is_prompt")
ALONE = Columns("t.name", "t.id", "t.owner", "t.workspace")


def kept(things: Sequence[Resource]) -> duckdb.DuckDBPyConnection:
    connection = duckdb.connect(config={"threads": 1})
    connection.execute(TABLE)
    rows = [
        [n, t.kind, t.id, t.name, t.owner, t.workspace, t.kind == "prompt"]
        for n, t in enumerate(things)
    ]
    connection.executemany("INSERT INTO things VALUES (?, ?, ?, ?, ?, ?, ?)", rows)
    return connection


@pytest.mark.parametrize(
    ("seed", "worlds"), [(9, 12), *(pytest.param(n, 120, marks=pytest.mark.slow) for n in range(4))]
)
def test_the_sql_shows_what_the_policy_allows(seed: int, worlds: int) -> None:
    chance = random.Random(seed)
    # What is kept has an id: one that is about to be made is in no list.
    things = [thing for _ in range(1200) if (thing := a_thing(chance)).id]
    connection = kept(things)
    for _ in range(worlds):
        world = a_world(chance, chance.randint(0, 8))
        if chance.random() < 0.1:
            world.grants += [a_grant(chance, number) for number in range(150)]
        who, permission = a_principal(chance), chance.choice(GRANTED)
        access, now_ms = compiled(world, who), chance.choice(TIMES_MS)
        for kinds, columns in (
            (("experiment",), ALONE),
            (("model",), SHARED),
            (("prompt",), SHARED),
            (("model", "prompt"), SHARED),
        ):
            sql, values = visible(access, permission, kinds, columns, now_ms)
            marks = ", ".join("?" * len(kinds))
            query = f"SELECT place FROM things t WHERE kind IN ({marks}) AND ({sql}) ORDER BY place"
            rows = connection.execute(query, [*kinds, *values]).fetchall()
            expected = [
                (n,)
                for n, thing in enumerate(things)
                if thing.kind in kinds
                and access.decide(permission, thing, NO_ATTRIBUTES, now_ms).allowed
            ]
            assert rows == expected, (sql, values, who, world)


@pytest.mark.parametrize("share", [0.1, pytest.param(1, marks=pytest.mark.slow)])
def test_a_grant_that_may_be_made_gives_nothing_that_its_maker_lacks(share: float) -> None:
    chance = random.Random(8)
    made = used = 0
    for number in range(int(5000 * share)):
        world = a_world(chance, chance.randint(0, 3))
        strong = [a_grant(chance, 100 + place) for place in range(chance.randint(1, 3))]
        world.grants += [
            msgspec.structs.replace(g, subject_kind="everyone", role=chance.choice(STRONG))
            for g in strong
        ]
        maker, now_ms = a_principal(chance), chance.choice(TIMES_MS)
        access = compiled(world, maker)
        # One of the maker's own, some fields of it changed, so that it is often nearly allowed.
        other = msgspec.structs.asdict(a_grant(chance, 1000))
        fields = ("role", "workspace", "pattern", "stages", "aliases", "tag_keys", "expires_at_ms")
        changes = {field: other[field] for field in chance.sample(fields, chance.randint(0, 3))}
        own = chance.choice(world.grants[-len(strong) :])
        grant = msgspec.structs.replace(own, **changes)
        if maker.kind == "local" or not may_grant(access, grant, world.roles, now_ms).allowed:
            continue
        made += 1
        alone, taker = World(grants=[grant], roles=world.roles), without_scopes(maker)
        for _ in range(150):
            thing = msgspec.structs.replace(a_thing(chance), owner=None)
            attributes, permission = some_attributes(chance), chance.choice(GRANTED)
            later_ms = max(now_ms, chance.choice(TIMES_MS))
            asked = (permission, thing, attributes, later_ms)
            if allowed(alone, taker, *asked):
                used += 1
                assert allowed(world, maker, *asked), (number, maker, grant, asked, world)
    assert (made > 300 * share, used > 1000 * share) == (True, True), (made, used)

"""Roles as a table, and what the policy says in the cases that people argue about."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import msgspec
import pytest

from muniment_auth.explain import explain
from muniment_auth.granting import may_grant, may_see
from muniment_auth.permissions import ROLES, UNGRANTED, Permission
from muniment_auth.policy import EVERYTHING, NOBODY, Access, compile_access
from muniment_auth.principal import Principal, local_principal
from muniment_auth.resources import NO_ATTRIBUTES, SERVER, Attributes, Resource, subsumes
from muniment_schemas.access_events import ClaimPattern, Grant
from muniment_schemas.ids import PrincipalId
from muniment_schemas.patterns import matches

P = Permission
ISSUER = "https://idp.example"
ANNA = Principal(
    id=PrincipalId("anna"),
    kind="user",
    issuer=ISSUER,
    subject="sub-anna",
    name="Anna",
    auth_method="bearer",
    groups=frozenset({"science"}),
    claims={"repository": ("org/app",)},
)

# v viewer, l logger, e editor, p approver, m manager, u auditor, a admin
TABLE = """
access:grant         . . . . m . a
access:read          . . . . m u a
artifact:delete      . . e . m . a
artifact:read        v l e p m u a
artifact:write       . l e . m . a
audit:read           . . . . . u a
experiment:create    . . e . m . a
experiment:delete    . . . . m . a
experiment:read      v l e p m u a
experiment:write     . . e . m . a
logged_model:delete  . . e . m . a
logged_model:read    v l e p m u a
logged_model:write   . l e . m . a
model:approve        . . . p m . a
model:create         . . e . m . a
model:delete         . . . . m . a
model:promote        . . . p m . a
model:read           v . e p m u a
model:request        . . e p m . a
model:write          . . e . m . a
run:delete           . . e . m . a
run:read             v l e p m u a
run:write            . l e . m . a
server:admin         . . . . . . a
server:read          . . . . . u a
trace:delete         . . e . m . a
trace:read           v . e p m u a
trace:write          . l e . m . a
"""
ROLE_NAMES = ("viewer", "logger", "editor", "approver", "manager", "auditor", "admin")
ROWS = {row[0]: row[1:] for line in TABLE.split("\n") if (row := re.split(r" +", line.strip()))[1:]}
THINGS = (
    Resource("experiment", "1", "e"),
    Resource("model", "m", "m"),
    Resource("prompt", "p", "p"),
    SERVER,
)


def grant(grant_id: str = "g", **fields: Any) -> Grant:
    chosen: dict[str, Any] = {
        "subject_kind": "principal",
        "subject": "anna",
        "role": "editor",
        "resource_kind": "experiment",
        "pattern": "*",
    }
    return Grant(grant_id=grant_id, **chosen | fields)


def access(*grants: Grant, who: Principal = ANNA, **more: Any) -> Access:
    return compile_access(who, more.pop("roles", {}), grants, 1, **more)


@pytest.mark.parametrize("role", ROLE_NAMES)
def test_a_role_holds_what_the_table_says_and_nothing_else(role: str) -> None:
    place = ROLE_NAMES.index(role)
    held = access(grant(role=role, resource_kind="*", workspace="*"))
    for permission in set(Permission) - UNGRANTED:
        expected = ROWS[permission][place] != "."
        assert (permission in ROLES[role]) == expected, permission
        asked = [held.decide(permission, thing).allowed for thing in THINGS]
        assert any(asked) == expected, permission


def test_the_table_is_whole() -> None:
    assert tuple(ROLES) == ROLE_NAMES
    assert set(ROWS) == set(Permission) - UNGRANTED


def test_self_and_public_need_no_grant() -> None:
    scoped = replace(ANNA, scopes=frozenset({"run:read"}))
    for who in (ANNA, scoped):
        assert access(who=who).decide(P.SELF_USE, SERVER).allowed
    assert NOBODY.decide(P.PUBLIC, SERVER).allowed
    assert not NOBODY.decide(P.SELF_USE, SERVER).allowed
    assert not NOBODY.decide(P.RUN_READ, THINGS[0]).allowed


def test_the_local_user_may_everything_and_a_token_of_its_only_what_it_is_for() -> None:
    local = local_principal("me")
    for permission in Permission:
        for thing in THINGS:
            assert access(who=local).decide(permission, thing).allowed
            assert EVERYTHING.decide(permission, thing).allowed
    limited = access(who=replace(local, scopes=frozenset({"run:*"})))
    assert limited.decide(P.RUN_WRITE, THINGS[0]).because[0] == "local"
    assert not limited.decide(P.EXPERIMENT_WRITE, THINGS[0]).allowed


def test_a_group_of_another_issuer_is_another_group() -> None:
    made = grant(subject_kind="group", subject="science", issuer="https://other.example")
    assert not access(made).decide(P.RUN_READ, THINGS[0]).allowed
    same = grant(subject_kind="group", subject="science", issuer=ISSUER)
    assert access(same).decide(P.RUN_READ, THINGS[0]).because == ("grant:g", "role:editor")


def test_admin_groups_of_the_configuration_are_told_as_such() -> None:
    held = access(admin_groups=[(ISSUER, "science")])
    decision = held.decide(P.SERVER_ADMIN, SERVER)
    assert decision.because == ("admin-group:science", "role:admin")
    other = access(admin_groups=[("https://other.example", "science")])
    assert not other.decide(P.SERVER_ADMIN, SERVER).allowed


def test_claims_must_all_hold() -> None:
    pattern = ClaimPattern(name="repository", pattern="org/*")
    main = ClaimPattern(name="ref", pattern="refs/heads/main")
    one = grant(subject_kind="claims", subject="", issuer=ISSUER, claims=(pattern,))
    two = grant(subject_kind="claims", subject="", issuer=ISSUER, claims=(pattern, main))
    assert access(one).decide(P.RUN_READ, THINGS[0]).allowed
    assert not access(two).decide(P.RUN_READ, THINGS[0]).allowed
    # A grant without any claim, as no decision makes one, is nobody's.
    none = grant(subject_kind="claims", subject="", issuer=ISSUER)
    assert not access(none).decide(P.RUN_READ, THINGS[0]).allowed


def test_the_claim_sub_is_the_subject_and_cannot_be_given_otherwise() -> None:
    wanted = (ClaimPattern(name="sub", pattern="sub-root"),)
    made = grant(subject_kind="claims", subject="", issuer=ISSUER, claims=wanted)
    liar = replace(ANNA, claims={"sub": ("sub-root",)})
    assert not access(made, who=liar).decide(P.RUN_READ, THINGS[0]).allowed


def test_unknown_groups_are_told_when_something_is_refused() -> None:
    who = replace(ANNA, groups_unknown="the token says to ask elsewhere (overage)")
    assert "overage" in access(who=who).decide(P.RUN_READ, THINGS[0]).reason
    assert access(grant(), who=who).decide(P.RUN_READ, THINGS[0]).allowed


PROMOTE = (P.MODEL_PROMOTE, P.MODEL_APPROVE, P.MODEL_REQUEST)
MODEL = THINGS[1]


@pytest.mark.parametrize("permission", PROMOTE)
@pytest.mark.parametrize(
    ("conditions", "attributes", "allowed"),
    [
        ({}, NO_ATTRIBUTES, True),
        ({}, Attributes(stage="Production"), True),
        ({"stages": ("Staging",)}, Attributes(stage="Staging"), True),
        ({"stages": ("Staging",)}, Attributes(stage="Production"), False),
        ({"stages": ("Staging",)}, Attributes(alias="champion"), False),
        ({"aliases": ("champion",)}, Attributes(alias="champion"), True),
        ({"aliases": ("champion",)}, Attributes(stage="Staging"), False),
        ({"stages": ("Staging",), "aliases": ("champion",)}, Attributes(alias="champion"), True),
        ({"tag_keys": ("team",)}, Attributes(stage="Production"), True),
    ],
)
def test_conditions_narrow_promotions(
    permission: Permission, conditions: dict[str, Any], attributes: Attributes, allowed: bool
) -> None:
    held = access(grant(role="manager", resource_kind="model", **conditions))
    assert held.decide(permission, MODEL, attributes).allowed == allowed
    assert held.decide(P.MODEL_WRITE, MODEL).allowed
    assert held.any(MODEL)


@pytest.mark.parametrize("permission", PROMOTE)
def test_a_condition_on_stages_leaves_comments_which_are_about_none(permission: Permission) -> None:
    held = access(grant(role="manager", resource_kind="model", stages=("Staging",)))
    assert held.decide(permission, MODEL).allowed == (permission == P.MODEL_REQUEST)


def test_a_condition_on_tag_keys_narrows_changes_of_tags_and_nothing_else() -> None:
    held = access(grant(resource_kind="model", tag_keys=("team",)))
    assert held.decide(P.MODEL_WRITE, MODEL, Attributes(tag_key="team")).allowed
    refused = held.decide(P.MODEL_WRITE, MODEL, Attributes(tag_key="approved"))
    assert refused.reason == "model:write is granted, for tag team only"
    assert held.decide(P.MODEL_WRITE, MODEL).allowed


def test_the_creator_is_manager_until_that_is_ended() -> None:
    own = Resource("prompt", "p1", "p", owner="anna")
    assert access().decide(P.MODEL_DELETE, own).because == ("owner", "role:manager")
    assert access().any(own)
    ended = access(ended={("model", "p1")})
    assert not ended.decide(P.MODEL_READ, own).allowed
    assert not ended.any(own)
    assert not access().decide(P.SERVER_ADMIN, Resource("server", owner="anna")).allowed


def test_a_grant_ends_at_its_time() -> None:
    held = access(grant(expires_at_ms=100))
    assert held.decide(P.RUN_READ, THINGS[0], now_ms=99).allowed
    assert not held.decide(P.RUN_READ, THINGS[0], now_ms=100).allowed
    assert not held.any(THINGS[0], now_ms=100)


def test_the_server_is_above_workspaces() -> None:
    here = access(grant(role="admin", resource_kind="*"))
    assert here.decide(P.EXPERIMENT_DELETE, THINGS[0]).allowed
    assert not here.decide(P.SERVER_ADMIN, SERVER).allowed
    assert not here.decide(P.EXPERIMENT_DELETE, Resource("experiment", "1", "e", None, "x")).allowed


def test_a_refusal_names_nothing_that_the_caller_may_not_know() -> None:
    reason = access().decide(P.RUN_READ, Resource("experiment", "1", "secret", "bob")).reason
    assert reason == "no grant gives run:read to this principal"


@pytest.mark.parametrize(
    ("pattern", "name", "fits"),
    [
        ("a", "a", True), ("a", "ab", False), ("a*", "a", True), ("*", "", True),
        ("a*a", "a", False), ("a*a", "aa", True), ("*a*a*", "aba", True), ("a*b*c", "acb", False),
        ("*\\*", "x\\y", True), ("a*", "a\nb", True), ("a.c", "abc", False), ("A", "a", False),
    ],
)  # fmt: skip
def test_patterns(pattern: str, name: str, fits: bool) -> None:
    assert matches(pattern, name) == fits


@pytest.mark.parametrize(
    ("wide", "narrow", "covers"),
    [
        ("*", "a*", True), ("a*", "*", False), ("a*", "ab", True), ("a*", "ab*", True),
        ("a*b", "a*x*b", True), ("a*b", "a*", False), ("id:1", "id:1", True), ("id:1", "x", False),
        ("*", "id:1", True), ("i*", "id:1", False), ("id:1", "*", False), ("ab", "a*", False),
    ],
)  # fmt: skip
def test_patterns_that_cover_others(wide: str, narrow: str, covers: bool) -> None:
    assert subsumes(wide, narrow) == covers


def test_explain_says_of_each_grant_why_not() -> None:
    grants = [
        grant("good"),
        grant("late", expires_at_ms=1),
        grant("there", workspace="x"),
        grant("other", pattern="team-*"),
        grant("hers", subject="eva"),
        grant("weak", role="viewer"),
        grant("model", resource_kind="model"),
    ]
    found = explain(ANNA, P.RUN_WRITE, THINGS[0], NO_ATTRIBUTES, {}, grants, 5)
    assert (found.allowed, found.because) == (True, ("grant:good", "role:editor"))
    lacks = {v.grant.grant_id: [t.partition(":")[0] for t in v.lacks] for v in found.verdicts}
    assert lacks == {
        "good": [],
        "late": ["expired"],
        "there": ["workspace"],
        "other": ["pattern"],
        "hers": ["subject"],
        "weak": ["role"],
        "model": ["kind"],
    }
    staged = grant("staged", role="approver", resource_kind="model", stages=("Staging",))
    found = explain(ANNA, P.MODEL_PROMOTE, MODEL, Attributes("Production"), {}, [staged], 5)
    assert found.verdicts[0].lacks == ("condition: it is for stage Staging only",)
    scoped = replace(ANNA, scopes=frozenset({"run:read"}))
    found = explain(scoped, P.RUN_WRITE, THINGS[0], NO_ATTRIBUTES, {}, [grant()], 5)
    assert found.verdicts[0].lacks[0].startswith("scope")
    assert found.reason == "this credential is not made for run:write"


MANAGER = grant(role="manager", pattern="team-*")


@pytest.mark.parametrize(
    ("fields", "allowed"),
    [
        ({"pattern": "team-a"}, True),
        ({"pattern": "team-*", "role": "manager"}, True),
        ({"pattern": "*"}, False),
        ({"pattern": "team-a", "role": "auditor"}, False),
        ({"pattern": "team-a", "role": "admin"}, False),
        ({"pattern": "team-a", "workspace": "*"}, False),
        ({"pattern": "team-a", "resource_kind": "model"}, False),
        ({"pattern": "team-a", "resource_kind": "*"}, False),
        ({"pattern": "*", "resource_kind": "server", "workspace": "*"}, False),
        ({"pattern": "id:7"}, False),
    ],
)
def test_nobody_gives_more_than_they_hold(fields: dict[str, Any], allowed: bool) -> None:
    made = grant(**{"subject": "eva", **fields})
    assert may_grant(access(MANAGER), made, {}, 0).allowed == allowed
    assert not may_grant(access(grant()), made, {}, 0).allowed


def test_what_ends_gives_nothing_that_stays_but_takes_back() -> None:
    held = access(grant(role="manager", expires_at_ms=100))
    assert not may_grant(held, grant(), {}, 0).allowed
    assert may_grant(held, grant(), {}, 0, revoking=True).allowed
    assert may_grant(held, grant(expires_at_ms=100), {}, 0).allowed
    assert not may_grant(held, grant(expires_at_ms=90), {}, 100).allowed


def test_the_creator_grants_on_the_thing_by_its_id_and_not_by_its_name() -> None:
    own = Resource("experiment", "7", "team-x", owner="anna")
    assert may_grant(access(), grant(pattern="id:7"), {}, 0, target=own).allowed
    assert not may_grant(access(), grant(pattern="team-x"), {}, 0, target=own).allowed
    assert not may_grant(access(), grant(pattern="id:8"), {}, 0, target=own).allowed
    assert not may_grant(access(), grant(pattern="id:7", role="admin"), {}, 0, target=own).allowed
    ended = access(ended={("experiment", "7")})
    assert not may_grant(ended, grant(pattern="id:7"), {}, 0, target=own).allowed
    assert may_grant(access(MANAGER), grant(pattern="id:7"), {}, 0, target=own).allowed


def test_a_workspace_admin_grants_within_the_workspace_but_not_on_all_kinds() -> None:
    held = access(grant(role="admin", resource_kind="*", workspace="lab"))
    assert may_grant(held, grant(workspace="lab"), {}, 0).allowed
    assert not may_grant(held, grant(workspace="default"), {}, 0).allowed
    assert not may_grant(held, grant(resource_kind="*", workspace="lab"), {}, 0).allowed
    everywhere = access(grant(role="admin", resource_kind="*", workspace="*"))
    assert may_grant(everywhere, grant(resource_kind="*", workspace="*"), {}, 0).allowed


def test_a_role_that_another_release_made_is_granted_by_admins_only() -> None:
    made, roles = grant(role="new", pattern="team-a"), {"new": ("run:read", "gadget:turn")}
    assert not may_grant(access(MANAGER), made, roles, 0).allowed
    admin = access(grant(role="admin", resource_kind="*", workspace="*"))
    assert may_grant(admin, made, roles, 0).allowed
    assert not access(made, roles=roles).decide(P.RUN_WRITE, THINGS[0]).allowed


def test_a_credential_for_granting_alone_grants_nothing() -> None:
    scoped = replace(ANNA, scopes=frozenset({"access:grant"}))
    assert not may_grant(access(MANAGER, who=scoped), grant(pattern="team-a"), {}, 0).allowed


def test_grants_are_seen_by_those_who_may_read_access_on_all_of_them() -> None:
    assert may_see(access(MANAGER), grant(pattern="team-a"), 0)
    assert not may_see(access(MANAGER), grant(pattern="*"), 0)
    auditor = access(grant(role="auditor", resource_kind="*", workspace="*"))
    assert may_see(auditor, grant(resource_kind="server", pattern="*", workspace="*"), 0)


def test_may_ever_is_false_for_what_nothing_can_give() -> None:
    assert not access(grant()).may_ever(P.SERVER_ADMIN)
    assert not access().may_ever(P.AUDIT_READ)
    assert access().may_ever(P.MODEL_DELETE), "one's own things may be deleted"
    assert access(grant(role="auditor")).may_ever(P.AUDIT_READ)
    assert access().may_ever(P.SELF_USE)
    assert not NOBODY.may_ever(P.RUN_READ)


def test_all_that_a_permission_is_held_by_is_told() -> None:
    made = Resource("model", id="1", name="m", owner=ANNA.id)
    grants = [
        Grant(
            grant_id=grant_id, subject_kind="principal", subject=ANNA.id, role=role,
            resource_kind="model", pattern="m", stages=stages, expires_at_ms=expires_at_ms,
        )
        for grant_id, role, stages, expires_at_ms in (
            ("a", "approver", (), None), ("b", "approver", ("Staging",), None),
            ("c", "viewer", (), None), ("d", "manager", (), 10),
        )
    ]  # fmt: skip
    access = compile_access(ANNA, {}, grants, 1, [(ISSUER, "science")])
    production = Attributes(stage="Production")
    held = access.rights(P.MODEL_APPROVE, made, production, now_ms=5)
    assert held == ("admin-group:science", "grant:a", "grant:d", "owner")
    held = access.rights(P.MODEL_APPROVE, made, production, now_ms=10)
    assert held == ("admin-group:science", "grant:a", "owner")
    assert access.rights(P.MODEL_APPROVE, Resource("experiment", name="m")) == ()
    assert EVERYTHING.rights(P.MODEL_APPROVE, made) == ("local",)
    assert NOBODY.rights(P.MODEL_APPROVE, made) == ()


def test_who_may_grant_is_told_by_what() -> None:
    made = Resource("model", id="1", name="m", owner=ANNA.id)
    wished = Grant(
        grant_id="", subject_kind="everyone", role="approver", resource_kind="model", pattern="id:1"
    )
    manager = Grant(
        grant_id="a", subject_kind="principal", subject=ANNA.id, role="manager",
        resource_kind="model", pattern="m",
    )  # fmt: skip
    own = {"granter": ("access:grant",)}
    granter = msgspec.structs.replace(manager, role="granter")
    for grants, because in (
        ([], ("owner",)),
        ([manager], ("grant:a", "owner")),
        ([granter], ("owner",)),
    ):
        access = compile_access(ANNA, own, grants, 1)
        assert may_grant(access, wished, own, 0, target=made).because == because

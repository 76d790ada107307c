"""Sign-ins as the domain sees them: only what is news, and never what is older."""

from __future__ import annotations

import msgspec
import pytest

from harness.world import TestWorld
from muniment_services.domain.credential import KIND as CREDENTIAL
from muniment_services.domain.credential import Credential, RenewSession
from muniment_services.domain.errors import NotFound
from muniment_services.domain.limits import SIGN_IN_NOTED_MS
from muniment_services.domain.principal import (
    KIND,
    NoteSignIn,
    PrincipalState,
    RegisterPrincipal,
    SignIn,
)
from unit.domain.test_credential import wish

FIRST = SignIn(groups=("ml",), groups_unknown=None, claims={"team": ("x",)}, vouched_at_ms=10_000)


def known() -> TestWorld:
    world = TestWorld()
    world.do(
        RegisterPrincipal(
            principal_id="anna", principal_kind="user", key_id="k", identity_sealed=b"sealed"
        )
    )
    return world


def note(world: TestWorld, sign_in: SignIn) -> SignIn | None:
    """What is known after noting a sign-in."""
    world.do(NoteSignIn(principal_id="anna", sign_in=sign_in))
    found = world.state.get(KIND, "anna")
    assert isinstance(found, PrincipalState)
    assert found.identity_sealed == b"sealed"
    return found.sign_in


@pytest.mark.parametrize(
    ("changes", "is_noted"),
    [
        ({"vouched_at_ms": 10_001}, False),
        ({"vouched_at_ms": 10_001, "groups": ()}, True),
        ({"vouched_at_ms": 10_001, "claims": {}}, True),
        ({"vouched_at_ms": 10_001, "groups_unknown": "too many"}, True),
        ({"vouched_at_ms": 10_000, "groups": ("admins",)}, False),
        ({"vouched_at_ms": 9_999, "groups": ("admins",)}, False),
        ({"vouched_at_ms": 10_000 + SIGN_IN_NOTED_MS - 1}, False),
        ({"vouched_at_ms": 10_000 + SIGN_IN_NOTED_MS}, True),
    ],
    ids=str,
)
def test_what_is_news(changes: dict[str, object], is_noted: bool) -> None:
    world = known()
    assert note(world, FIRST) == FIRST
    later = msgspec.structs.replace(FIRST, **changes)
    assert note(world, later) == (later if is_noted else FIRST)


def test_nothing_is_noted_of_who_has_never_acted() -> None:
    world = TestWorld()
    assert world.do(NoteSignIn(principal_id="anna", sign_in=FIRST)) is None


def test_a_session_says_what_it_was_renewed_with_unless_that_is_older() -> None:
    world = TestWorld()
    made = world.do(wish(world, credential_kind="session", vouched_at_ms=10_000))
    assert isinstance(made, Credential)
    for vouched_at_ms, expected in ((20_000, FIRST.groups), (15_000, FIRST.groups)):
        said = msgspec.structs.replace(
            FIRST, vouched_at_ms=vouched_at_ms, groups=("ml",) if vouched_at_ms > 15_000 else ()
        )
        world.do(RenewSession(credential_id=made.credential_id, sign_in=said, renewal_sealed=b"s"))
        found = world.state.get(CREDENTIAL, made.credential_id)
        assert isinstance(found, Credential)
        assert (found.said.groups, found.said.vouched_at_ms) == (expected, 20_000)


def test_a_token_is_not_renewed_nor_is_what_has_ended() -> None:
    world = TestWorld()
    token = world.do(wish(world))
    assert isinstance(token, Credential)
    for credential_id in (token.credential_id, "f" * 16):
        command = RenewSession(credential_id=credential_id, sign_in=FIRST, renewal_sealed=None)
        with pytest.raises(NotFound):
            world.do(command)

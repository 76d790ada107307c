"""Credentials as the domain sees them: limits, revocation, what stays and what goes."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest

from harness.world import TestWorld
from muniment_schemas import events as e
from muniment_services.domain.credential import (
    KIND,
    Credential,
    IssueCredential,
    RevokeCredential,
    of_principal,
)
from muniment_services.domain.errors import AlreadyExists, Invalid, NotFound
from muniment_services.domain.limits import (
    CREDENTIALS_LIVE_MAX,
    DAY_MS,
    SESSION_LIFE_MS,
    TOKEN_LIFE_DAYS_MAX,
)

SHA = hashlib.sha256(b"secret").digest()


def wish(world: TestWorld, number: int = 0, **changes: Any) -> IssueCredential:
    given: dict[str, Any] = {
        "credential_id": f"{number:016}",
        "credential_kind": "personal",
        "principal_id": "anna",
        "principal_kind": "user",
        "issuer": "https://id.example",
        "secret_sha256": SHA,
        "name": "laptop",
        "expires_at_ms": world.now_ms + SESSION_LIFE_MS,
    }
    return IssueCredential(**given | changes)


def test_what_is_issued_is_kept_as_it_was_asked_for() -> None:
    world = TestWorld()
    command = wish(
        world,
        description="for the night job",
        scopes=("run:*", "experiment:read"),
        groups=("ml",),
        groups_unknown="overage",
        claims={"department": ("risk", "ml")},
        client_id="cli",
        maker_id="m" * 16,
    )
    made = world.do(command)
    assert isinstance(made, Credential)
    assert made.is_live(world.now_ms)
    for name in command.__struct_fields__:
        assert getattr(made, name) == getattr(command, name), name
    assert (made.issued_by, made.issued_at_ms) == ("tester", world.now_ms)


def test_a_revoked_token_is_kept_and_revoking_it_again_does_nothing() -> None:
    world = TestWorld()
    world.do(wish(world))
    revoke = RevokeCredential(credential_id="0" * 16, reason="leaked")
    revoked = world.do(revoke)
    assert isinstance(revoked, Credential)
    assert not revoked.is_live(world.now_ms)
    assert (revoked.revoked_by, revoked.revoked_reason) == ("tester", "leaked")
    assert world.decide(revoke) is None


def test_a_session_leaves_memory_when_it_ends() -> None:
    world = TestWorld()
    world.do(wish(world, credential_kind="session"))
    assert world.do(RevokeCredential(credential_id="0" * 16, reason="logout")) is None
    assert world.state.get(KIND, "0" * 16) is None
    with pytest.raises(NotFound):
        world.decide(RevokeCredential(credential_id="0" * 16, reason="logout"))


def test_two_racing_revocations_of_a_session_are_one_and_a_void_one() -> None:
    world = TestWorld()
    world.do(wish(world, credential_kind="session"))
    command = RevokeCredential(credential_id="0" * 16, reason="logout")
    first, second = world.decide(command), world.decide(command)
    assert isinstance(first, e.CredentialRevoked)
    assert isinstance(second, e.CredentialRevoked)
    assert world.fold(first) is None
    assert world.state.fold(world.record(second), second).void is not None


def test_tokens_and_sessions_of_a_principal_are_counted_apart_and_only_live_ones() -> None:
    world = TestWorld()
    for number in range(CREDENTIALS_LIVE_MAX):
        world.do(wish(world, number))
    with pytest.raises(AlreadyExists, match="100 tokens"):
        world.decide(wish(world, 500))
    assert world.decide(wish(world, 500, credential_kind="session")) is not None
    assert world.decide(wish(world, 500, principal_id="bert")) is not None
    world.do(RevokeCredential(credential_id=f"{7:016}", reason=""))
    world.do(wish(world, 500))
    with pytest.raises(AlreadyExists):
        world.decide(wish(world, 501))
    world.now_ms += 2 * DAY_MS
    assert world.decide(wish(world, 501)) is not None
    assert len(of_principal(world.state, "anna")) == CREDENTIALS_LIVE_MAX + 1


@pytest.mark.parametrize(
    "changes",
    [
        {"name": ""},
        {"name": "  "},
        {"name": "x" * 101},
        {"name": "a\nb"},
        {"name": "a\x1b[31m"},
        {"description": "x" * 1001},
        {"scopes": ("run",)},
        {"scopes": ("run:write;",)},
        {"scopes": ("Run:write",)},
        {"scopes": ("run:wr*",)},
        {"scopes": ("",)},
        {"scopes": ("run:read",) * 51},
    ],
)
def test_what_a_token_cannot_be_called_or_be_for(changes: dict[str, Any]) -> None:
    world = TestWorld()
    with pytest.raises(Invalid):
        world.decide(wish(world, **changes))


@pytest.mark.parametrize(
    ("life_ms", "allowed"),
    [
        (0, False),
        (-1, False),
        (1000, True),
        (TOKEN_LIFE_DAYS_MAX * DAY_MS, True),
        (TOKEN_LIFE_DAYS_MAX * DAY_MS + 2, False),
        (2**62, False),
    ],
)
def test_how_long_a_token_may_live(life_ms: int, allowed: bool) -> None:
    world = TestWorld()
    command = wish(world, expires_at_ms=world.now_ms + life_ms)
    if allowed:
        assert world.decide(command) is not None
    else:
        with pytest.raises(Invalid, match="366 days"):
            world.decide(command)


def test_a_session_longer_than_its_limit_is_a_fault_of_ours() -> None:
    world = TestWorld()
    end_ms = world.now_ms + SESSION_LIFE_MS + 1000
    with pytest.raises(AssertionError):
        world.decide(wish(world, credential_kind="session", expires_at_ms=end_ms))


def test_replay_leads_to_the_same_credentials() -> None:
    world, again = TestWorld(), TestWorld()
    world.do(wish(world, 1))
    world.do(wish(world, 2, credential_kind="session"))
    world.do(RevokeCredential(credential_id=f"{1:016}", reason="r"))
    world.do(RevokeCredential(credential_id=f"{2:016}", reason="r"))
    for record, event in zip(world.records, world.events, strict=True):
        again.state.fold(record, world.codec.decode(record.value))
        assert event.envelope.type.startswith("Credential")
    assert again.state.catalog == world.state.catalog

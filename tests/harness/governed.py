"""Random commands about who may do what, and about reviewed promotion.

Ids that are chosen when a command is decided (of grants, tokens and comments) stand in the drawn
commands as places, "0" for the oldest, "-1" for the newest; `with_ids` puts in what the world has
given out.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
from hypothesis import strategies as st

from harness.world import TestWorld
from muniment_schemas.access_events import ClaimPattern, Grant
from muniment_schemas.credential_events import PERSONAL, SERVICE, SESSION
from muniment_services.domain import access, credential, principal, promotion, promotion_policy
from muniment_services.domain.commands import Command
from muniment_services.domain.limits import DAY_MS, SESSION_LIFE_MS
from muniment_services.domain.promotion_evidence import FileDigests

ISSUER = "https://idp.example"
FILES = FileDigests(
    location="s3://b/x", by_path={"m/MLmodel": "00" * 32}, total=1, sha256=b"s" * 32
)
PEOPLE = ("ana", "bob", "cid")
GROUPS = ("risk", "audit")
MODELS = ("a", "b", "c")
TARGETS = ("Staging", "Production", "Archived", "@x")
ID_OF: dict[str, tuple[str, Callable[[Any], str]]] = {
    "grant_id": ("GrantMade", lambda event: event.grant.grant_id),
    "credential_id": ("CredentialIssued", lambda event: event.envelope.aggregate_id),
    "comment_id": ("VersionCommentAdded", lambda event: event.comment_id),
}

people = st.sampled_from(PEOPLE)
models = st.sampled_from(MODELS)
versions = st.sampled_from(["1", "2", "3"])
targets = st.sampled_from(TARGETS)
places = st.sampled_from(["0", "1", "2"])
comments = st.sampled_from([None, "c"])
groups = st.lists(st.sampled_from(GROUPS), unique=True).map(tuple)
roles = st.sampled_from(["editor", "admin", "own"])


def grant(subject: dict[str, Any], role: str, pattern: str, expires: int | None) -> Grant:
    """A grant on models whose id is not given yet."""
    return Grant(
        grant_id="",
        role=role,
        workspace="*",
        resource_kind="model" if pattern != "*" else "*",
        pattern=pattern,
        stages=("Production",) if pattern == "a*" else (),
        expires_at_ms=expires,
        **subject,
    )


subjects: st.SearchStrategy[dict[str, Any]] = st.sampled_from(
    [
        *({"subject_kind": "principal", "subject": who} for who in PEOPLE),
        {"subject_kind": "group", "subject": "risk", "issuer": ISSUER},
        {"subject_kind": "everyone"},
        {
            "subject_kind": "claims",
            "issuer": ISSUER,
            "claims": (ClaimPattern(name="azp", pattern="ci"),),
        },
    ]
)


def issue(kind: str, who: str, life_ms: int) -> credential.IssueCredential:
    """A token or session; `with_ids` gives it an id and makes its end a time."""
    return credential.IssueCredential(
        credential_id="",
        credential_kind=kind,
        principal_id=who,
        principal_kind="person",
        issuer=ISSUER,
        secret_sha256=b"s" * 32,
        name=f"of {who}",
        expires_at_ms=life_ms,
        scopes=("run:*",) if kind == SERVICE else (),
        groups=("risk",),
        claims={"azp": ("ci",)},
    )


access_commands: st.SearchStrategy[Command] = st.one_of(
    st.builds(
        principal.RegisterPrincipal,
        principal_id=people,
        principal_kind=st.just("person"),
        key_id=st.just("k"),
        identity_sealed=st.just(b"sealed"),
    ),
    st.builds(
        access.DefineRole,
        name=st.just("own"),
        permissions=st.sampled_from([("run:read",), ("run:read", "model:promote")]),
    ),
    st.builds(access.RemoveRole, name=st.just("own")),
    st.builds(
        access.MakeGrant,
        grant=st.builds(
            grant,
            subjects,
            roles,
            st.sampled_from(["*", "a*", "b"]),
            st.none() | st.just(2_000_000_000_000),
        ),
    ),
    st.builds(access.RevokeGrant, grant_id=places, admins_elsewhere=st.booleans()),
    st.builds(
        access.EndOwnership,
        resource_kind=st.just("experiment"),
        resource_id=st.sampled_from(["1", "2"]),
    ),
    st.builds(
        issue,
        st.sampled_from([PERSONAL, SERVICE, SESSION]),
        people,
        st.sampled_from([DAY_MS // 4, SESSION_LIFE_MS]),
    ),
    st.builds(credential.RevokeCredential, credential_id=places, reason=st.just("r")),
)

review_commands: st.SearchStrategy[Command] = st.one_of(
    *(
        st.builds(kind, name=models, version=versions, stage=targets, comment=comments)
        for kind in (
            *(promotion.RequestTransition,) * 3,
            promotion.CancelRequest,
            promotion.RejectRequest,
        )
    ),
    *(
        st.builds(
            promotion.ApproveRequest,
            name=models,
            version=versions,
            stage=targets,
            archive_others=st.booleans(),
            comment=comments,
            files=st.sampled_from([None, FILES]),
        )
        for _ in range(4)
    ),
    st.builds(promotion.AddComment, name=models, version=versions, text=st.just("t")),
    st.builds(promotion.UpdateComment, comment_id=places, text=st.sampled_from(["t", "u"])),
    st.builds(promotion.DeleteComment, comment_id=places),
)

policy_commands: st.SearchStrategy[Command] = st.one_of(
    st.builds(
        promotion_policy.SetPromotionPolicy,
        policy=st.sampled_from(["p", "q"]),
        workspace=st.sampled_from(["default", "*"]),
        pattern=st.sampled_from(["*", "a", "b*"]),
        stages=st.sampled_from([("Production",), ("Staging", "Archived")]),
        aliases=st.sampled_from([(), ("x",)]),
        approvals=st.integers(0, 2),
        approver_groups=groups,
        exclude_requester=st.booleans(),
        exclude_author=st.booleans(),
        required_comment=st.booleans(),
    ),
    st.builds(promotion_policy.RemovePromotionPolicy, policy=st.sampled_from(["p", "q"])),
)

commands = st.one_of(access_commands, review_commands, review_commands, policy_commands)


def with_ids(world: TestWorld, command: Command) -> Command:
    """The command with ids that the world has given out, and times from now on."""
    if isinstance(command, credential.IssueCredential):
        return msgspec.structs.replace(
            command,
            credential_id=world.chance.randbytes(8).hex(),
            expires_at_ms=world.now_ms + command.expires_at_ms,
        )
    for field, (event_type, id_of) in ID_OF.items():
        place = getattr(command, field, None)
        if place is not None:
            given = [id_of(event) for event in world.events if event.envelope.type == event_type]
            chosen = given[int(place)] if given and int(place) < len(given) else "none"
            return msgspec.structs.replace(command, **{field: chosen})
    return command


Caller = tuple[str, tuple[str, ...]]
"""Who asks, and its groups."""
Script = list[tuple[Command, Caller]]
"""Commands one after the other, so that histories get further than chance alone would."""
ANA: Caller = ("ana", ())
BOB: Caller = ("bob", GROUPS)
CID: Caller = ("cid", GROUPS)
NEWEST = "-1"


def promoted(version: str, stage: str, archive_others: bool, ending: str) -> Script:
    """A request and how it ends, on the model a."""
    about: dict[str, Any] = {"name": "a", "version": version, "stage": stage, "comment": "c"}
    archiving = archive_others and stage in ("Staging", "Production")
    approval = promotion.ApproveRequest(**about, archive_others=archiving)
    endings: dict[str, Script] = {
        "approved": [(approval, BOB), (approval, CID)],
        "approved once": [(approval, BOB)],
        "rejected": [(approval, BOB), (promotion.RejectRequest(**about), CID)],
        "cancelled": [(promotion.CancelRequest(**about), ANA)],
    }
    return [(promotion.RequestTransition(**about), ANA), *endings[ending]]


def guarded(approvals: int, asked: tuple[str, ...], removed: bool) -> Script:
    """A policy for all models, and its end."""
    policy = promotion_policy.SetPromotionPolicy(
        policy="p",
        workspace="*",
        pattern="*",
        stages=("Production",),
        aliases=("x",),
        approvals=approvals,
        approver_groups=asked,
    )
    removal = promotion_policy.RemovePromotionPolicy(policy="p", reason="r")
    return [(policy, ANA), *([(removal, ANA)] if removed else [])]


def commented(text: str, deleted: bool) -> Script:
    """A comment that is changed, and its end."""
    delete = promotion.DeleteComment(comment_id=NEWEST)
    return [
        (promotion.AddComment(name="a", version="1", text="t"), BOB),
        (promotion.UpdateComment(comment_id=NEWEST, text=text), BOB),
        *([(delete, BOB)] if deleted else []),
    ]


def granted(subject: dict[str, Any], pattern: str, revoked: bool) -> Script:
    """A role of one's own that somebody gets, and its end."""
    revocation = access.RevokeGrant(grant_id=NEWEST, admins_elsewhere=True)
    return [
        (access.DefineRole(name="own", permissions=("run:read",)), ANA),
        (access.MakeGrant(grant=grant(subject, "own", pattern, None)), ANA),
        *([(revocation, BOB)] if revoked else []),
    ]


def tokens(kind: str, who: str, revoked: bool) -> Script:
    """A token or session, and its end."""
    revocation = credential.RevokeCredential(credential_id=NEWEST, reason="r")
    return [(issue(kind, who, DAY_MS // 4), ANA), *([(revocation, BOB)] if revoked else [])]


reviews: st.SearchStrategy[Script] = st.one_of(
    st.builds(
        promoted,
        st.sampled_from(["1", "2"]),
        targets,
        st.booleans(),
        st.sampled_from(["approved", "approved", "approved once", "rejected", "cancelled"]),
    ),
    st.builds(commented, st.sampled_from(["t", "u"]), st.booleans()),
)
scripts: st.SearchStrategy[Script] = st.one_of(
    reviews,
    st.builds(guarded, st.integers(0, 2), groups, st.booleans()),
    st.builds(granted, subjects, st.sampled_from(["*", "a*"]), st.booleans()),
    st.builds(tokens, st.sampled_from([PERSONAL, SERVICE, SESSION]), people, st.booleans()),
)

"""What a role and a grant may be: shapes, lengths, and what would open too wide a door.

Whether their maker may make them is the policy's to say (`muniment_auth.granting`).
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from muniment_schemas.access_events import (
    ANYTHING,
    BUILT_IN_ROLES,
    ID_PREFIX,
    RESOURCE_KINDS,
    SUBJECT_KINDS,
    Grant,
)
from muniment_services.domain import limits
from muniment_services.domain.errors import Invalid
from muniment_services.domain.limits import check_length, shown
from muniment_services.domain.registry_names import check_new_alias, stage_of

_ROLE_NAME = re.compile(r"[a-z][a-z0-9_-]*")
_PERMISSION = re.compile(r"[a-z_]+:[a-z_]+")
_URL = re.compile(r"https?://\S+")
_PRINCIPAL_ID = re.compile(r"[0-9a-f]{32}")
_PROMOTED_KINDS = ("model", "prompt", ANYTHING)


def check_role(name: str, permissions: Sequence[str], description: str) -> None:
    """Raise Invalid unless a role of one's own may look like this."""
    if name in BUILT_IN_ROLES:
        raise Invalid(f"The role {name} is built in and cannot be changed; choose another name.")
    check_length("name", name, limits.ROLE_NAME_CHARS_MAX)
    if _ROLE_NAME.fullmatch(name) is None:
        raise Invalid(
            f"Invalid role name {shown(name)}. It begins with a letter and has small letters, "
            "digits, '-' and '_'."
        )
    if not permissions:
        raise Invalid("'permissions' must name at least one permission.")
    wrong = [text for text in permissions if _PERMISSION.fullmatch(text) is None]
    if wrong:
        raise Invalid(f"{shown(wrong[0])} is no permission; one looks like run:read.")
    check_length("description", description, limits.ROLE_DESCRIPTION_CHARS_MAX)


def checked_grant(grant: Grant, now_ms: int) -> Grant:
    """The grant in its one form (sorted conditions, stages as they are written). Raises Invalid."""
    _check_subject(grant)
    _check_resource(grant)
    check_length("comment", grant.comment, limits.GRANT_COMMENT_CHARS_MAX)
    if grant.expires_at_ms is not None and not now_ms < grant.expires_at_ms <= limits.INT64_MAX:
        raise Invalid("'expires_at_ms' must be in the future; without it, the grant never ends.")
    for path in ("claims", "stages", "aliases", "tag_keys"):
        most = limits.GRANT_CLAIMS_MAX if path == "claims" else limits.GRANT_CONDITIONS_MAX
        if len(getattr(grant, path)) > most:
            raise Invalid(f"'{path}' may have {most} items.")
    return _with_conditions(grant)


def _check_subject(grant: Grant) -> None:
    kind = grant.subject_kind
    if kind not in SUBJECT_KINDS:
        raise Invalid(f"'subject_kind' must be one of {', '.join(SUBJECT_KINDS)}.")
    check_length("subject", grant.subject, limits.GRANT_SUBJECT_CHARS_MAX)
    check_length("issuer", grant.issuer, limits.GRANT_ISSUER_CHARS_MAX)
    if (kind in ("principal", "group")) != bool(grant.subject):
        needs = "needs" if not grant.subject else "has no"
        raise Invalid(f"A grant to {kind} {needs} 'subject' (a principal's id, a group's name).")
    if (kind in ("group", "claims")) != bool(grant.issuer):
        needs = "needs" if not grant.issuer else "has no"
        raise Invalid(
            f"A grant to {kind} {needs} 'issuer': a name means the group, or the claim, of one "
            "issuer only."
        )
    if grant.issuer and _URL.fullmatch(grant.issuer) is None:
        raise Invalid(f"'issuer' must be the issuer's URL, not {shown(grant.issuer)}.")
    if (kind == "claims") != bool(grant.claims):
        needs = "needs" if not grant.claims else "has no"
        raise Invalid(f"A grant to {kind} {needs} 'claims'.")
    _check_claims(grant)


def _check_claims(grant: Grant) -> None:
    for claim in grant.claims:
        check_length("claims.name", claim.name, limits.GRANT_CLAIM_CHARS_MAX)
        check_length("claims.pattern", claim.pattern, limits.GRANT_CLAIM_CHARS_MAX)
        _check_wildcards("claims.pattern", claim.pattern)
        if not claim.name or not claim.pattern:
            raise Invalid("Each of 'claims' has a name and a pattern.")
        if claim.name == "sub" and _says_nothing(claim.pattern):
            raise Invalid("A pattern for the claim sub must say more than '*'.")
    if grant.claims and all(_says_nothing(claim.pattern) for claim in grant.claims):
        raise Invalid(
            "All claims have the pattern '*': that is anybody whom the issuer knows. Say of at "
            "least one what it must be."
        )


def _says_nothing(pattern: str) -> bool:
    return not pattern.strip(ANYTHING)


def _check_resource(grant: Grant) -> None:
    kind, pattern = grant.resource_kind, grant.pattern
    if kind not in RESOURCE_KINDS:
        raise Invalid(f"'resource_kind' must be one of {', '.join(RESOURCE_KINDS)}.")
    if not pattern:
        raise Invalid("'pattern' must say which things: a name, '*' for all, or id:ID for one.")
    check_length("pattern", pattern, limits.GRANT_PATTERN_CHARS_MAX)
    _check_wildcards("pattern", pattern)
    if kind == "server" and (pattern, grant.workspace) != (ANYTHING, ANYTHING):
        raise Invalid("A grant on the server has the pattern '*' and the workspace '*'.")
    no_id = kind == ANYTHING or ANYTHING in pattern or pattern == ID_PREFIX
    if pattern.startswith(ID_PREFIX) and no_id:
        raise Invalid("A pattern id:ID means one thing: name its kind and its whole id, no '*'.")
    if not grant.workspace or (grant.workspace != ANYTHING and ANYTHING in grant.workspace):
        raise Invalid("'workspace' must be the name of a workspace, or '*' for all.")
    check_length("workspace", grant.workspace, limits.WORKSPACE_CHARS_MAX)


def _check_wildcards(path: str, pattern: str) -> None:
    if pattern.count(ANYTHING) > limits.GRANT_PATTERN_WILDCARDS_MAX:
        raise Invalid(f"'{path}' may have {limits.GRANT_PATTERN_WILDCARDS_MAX} times '*'.")


def _with_conditions(grant: Grant) -> Grant:
    if (grant.stages or grant.aliases) and grant.resource_kind not in _PROMOTED_KINDS:
        raise Invalid("Conditions on 'stages' and 'aliases' are for grants on models and prompts.")
    for alias in grant.aliases:
        check_new_alias(alias)
    for key in grant.tag_keys:
        check_length("tag_keys", key, limits.KEY_CHARS_MAX)
        if not key:
            raise Invalid("'tag_keys' must not be empty texts.")
    return Grant(
        grant_id=grant.grant_id,
        subject_kind=grant.subject_kind,
        subject=grant.subject,
        issuer=grant.issuer,
        claims=tuple(sorted(set(grant.claims), key=lambda claim: (claim.name, claim.pattern))),
        role=grant.role,
        workspace=grant.workspace,
        resource_kind=grant.resource_kind,
        pattern=grant.pattern,
        stages=tuple(sorted({stage_of(stage) for stage in grant.stages})),
        aliases=tuple(sorted(set(grant.aliases))),
        tag_keys=tuple(sorted(set(grant.tag_keys))),
        expires_at_ms=grant.expires_at_ms,
        comment=grant.comment,
    )


def check_holder(grant: Grant, issuers: Sequence[str]) -> None:
    """Raise Invalid for a grant that nobody who signs in here could ever hold.

    issuers: this server's. Without any nobody signs in, and grants may be made ready for one that
    comes.
    """
    if not issuers:
        return
    if grant.issuer and grant.issuer not in issuers:
        raise Invalid(
            f"'issuer' {shown(grant.issuer)} is none of this server's, so nobody would hold this "
            f"grant. Those are, exactly as written: {', '.join(issuers)}."
        )
    if grant.subject_kind == "principal" and _PRINCIPAL_ID.fullmatch(grant.subject) is None:
        raise Invalid(
            f"{shown(grant.subject)} is no principal's id: 32 hex digits, as whoami and events "
            "show it."
        )

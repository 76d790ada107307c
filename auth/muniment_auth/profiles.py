"""What the tokens of well-known identity providers look like, as far as we rely on it.

Every profile says which algorithms it takes, which claim is the subject, which tells the client,
which one the groups, which claims are kept for grants to be bound to, and how an access token is
told from an ID token. Each claim that a provider is known to write is required, optional, kept or
ignored; `unlisted` tells those that are none of it. Sources: the vendors' token references; RFC
9068.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

ALGORITHMS = ("RS256", "PS256", "ES256", "ES384", "EdDSA", "Ed25519")
"""All that any profile takes unless an issuer's settings name others. Never a shared secret."""

BASE_REQUIRED = ("iss", "sub", "aud", "exp", "iat")
BASE_OPTIONAL = frozenset(
    {"nbf", "jti", "typ", "act", "cnf", "scope", "scp", "client_id", "azp"}
    | {"preferred_username", "name", "email", "upn", "acr", "amr"}
)

_IGNORED_OF_PEOPLE = frozenset(
    {"email_verified", "given_name", "family_name", "locale", "picture", "auth_time", "sid"}
)
"""Who somebody is to people. Nothing is decided by it, and events do not keep it."""

PERSONAL = (
    _IGNORED_OF_PEOPLE
    | {"sub", "oid", "uid", "name", "email", "upn", "preferred_username", "unique_name"}
    | {"nickname", "phone_number", "user_login", "user_email", "actor"}
)
"""Claims that say which person it is. None is ever kept: events would have it in clear."""


@dataclass(frozen=True, slots=True)
class Profile:
    """How one kind of provider writes its tokens. Dots in claim names lead into objects.

    groups: the claim with the caller's groups; None: there are none. client: claims that tell the
    OAuth client, the first that is there. subject: claims that tell who it is, the first that is
    there. required: what an access token must have besides BASE_REQUIRED. kept: claims that grants
    can be bound to. ignored: claims that are known and not looked at. kind: what the callers are;
    users may be found to be services. marks: an access token has at least one of these claims;
    empty: none is asked for. bearer_types, id_types: values that the claim `typ` of an access
    token, of an ID token, must be one of. id_tokens: the provider's ID tokens are what callers
    present. service_account: claims that `sub` repeats, after `system:serviceaccount`.
    """

    groups: str | None = "groups"
    client: tuple[str, ...] = ("azp", "client_id")
    subject: tuple[str, ...] = ("sub",)
    required: tuple[str, ...] = ()
    optional: frozenset[str] = frozenset()
    kept: tuple[str, ...] = ("azp", "client_id", "acr", "amr")
    ignored: frozenset[str] = frozenset()
    kind: str = "user"
    marks: tuple[str, ...] = ()
    bearer_types: tuple[str, ...] = ()
    id_types: tuple[str, ...] = ()
    id_tokens: bool = False
    algorithms: tuple[str, ...] = ALGORITHMS
    service_account: tuple[str, ...] = ()

    def unlisted(self, names: Iterable[str]) -> frozenset[str]:
        """Claims of a token that are neither required, optional, kept nor ignored."""
        read = {path.partition(".")[0] for path in (*self.kept, *self.required)}
        if self.groups is not None:
            read.add(self.groups.partition(".")[0])
        listed = {*BASE_REQUIRED, *self.client, *self.subject, *self.marks, *read, "kubernetes.io"}
        return frozenset(names) - listed - BASE_OPTIONAL - self.optional - self.ignored


PROFILES: Mapping[str, Profile] = MappingProxyType(
    {
        "generic": Profile(ignored=_IGNORED_OF_PEOPLE, optional=frozenset({"gty"})),
        "keycloak": Profile(
            # Keycloak says itself what a token is: ID, Refresh, Logout, … are none of these two.
            bearer_types=("Bearer", "DPoP"),
            id_types=("ID",),
            kept=("azp", "acr", "amr", "realm_access.roles"),
            ignored=_IGNORED_OF_PEOPLE
            | {"session_state", "allowed-origins", "resource_access", "clientHost"}
            | {"clientAddress", "clientId", "nonce"},
        ),
        "okta": Profile(
            client=("cid",),
            # `sub` of an access token is a login name, which can change hands; `uid` is for good.
            subject=("uid", "sub"),
            required=("cid",),
            kept=("cid", "acr", "amr"),
            ignored=_IGNORED_OF_PEOPLE | {"ver"},
            algorithms=("RS256", "ES256"),
        ),
        "entra": Profile(
            client=("azp", "appid"),
            # `sub` differs from application to application; `oid` is one and the same person in the
            # login and in the API, so that nobody can approve what they asked for themselves.
            subject=("oid",),
            required=("oid", "tid"),
            optional=frozenset({"idtyp", "hasgroups", "_claim_names", "uti"}),
            # Not `oid`: what is kept may stand in events, and it is the person; `sub` means it.
            kept=("azp", "appid", "roles", "tid", "idtyp", "acrs", "amr"),
            marks=("azp", "appid"),
            ignored=_IGNORED_OF_PEOPLE
            | {"ver", "aio", "rh", "xms_ftd", "azpacr", "appidacr", "_claim_sources", "unique_name"}
            | {"ipaddr", "wids", "idp", "xms_tcdt", "acct", "app_displayname"},
            algorithms=("RS256", "PS256"),
        ),
        "google": Profile(
            groups=None,
            client=("azp",),
            kept=("azp", "hd"),
            optional=frozenset({"email_verified"}),
            ignored=(_IGNORED_OF_PEOPLE - {"email_verified"}) | {"at_hash", "nonce"},
            id_tokens=True,
            algorithms=("RS256",),
        ),
        "github-actions": Profile(
            groups=None,
            client=(),
            required=("repository", "repository_id", "repository_owner_id", "ref", "sha", "run_id"),
            kept=(
                "repository", "repository_id", "repository_owner", "repository_owner_id",
                "repository_visibility", "ref", "ref_type", "ref_protected", "environment",
                "job_workflow_ref", "workflow_ref", "workflow_sha", "event_name", "actor_id",
                "sha", "run_id", "run_attempt", "runner_environment",
            ),
            ignored=frozenset(
                {"actor", "workflow", "head_ref", "base_ref", "run_number", "job_workflow_sha"}
                | {"environment_node_id", "enterprise", "enterprise_id", "check_run_id"}
            ),
            kind="workload",
            id_tokens=True,
            algorithms=("RS256",),
        ),
        "gitlab": Profile(
            groups=None,
            client=(),
            # A person who logs in gets ID tokens of the same issuer: they have no job and no
            # project.
            required=(
                "project_id", "project_path", "namespace_id", "ref", "ref_type", "ref_protected",
                "job_id",
            ),
            kept=(
                "project_id", "project_path", "namespace_id", "namespace_path", "ref", "ref_type",
                "ref_protected", "environment", "environment_protected", "deployment_tier",
                "pipeline_id", "pipeline_source", "job_id", "sha", "user_id",
                "ci_config_ref_uri", "ci_config_sha", "runner_environment",
            ),
            ignored=frozenset(
                {"user_login", "user_email", "user_access_level", "user_identities", "ref_path"}
                | {"runner_id", "project_visibility", "deployment_action", "environment_action"}
                | {"groups_direct", "job_source", "job_project_id", "job_project_path"}
                | {"job_namespace_id", "job_namespace_path"}
            ),
            kind="workload",
            id_tokens=True,
            algorithms=("RS256",),
        ),
        "kubernetes": Profile(
            groups=None,
            client=(),
            required=(
                "kubernetes.io.namespace", "kubernetes.io.serviceaccount.name",
                "kubernetes.io.serviceaccount.uid",
            ),
            kept=(
                "kubernetes.io.namespace", "kubernetes.io.serviceaccount.name",
                "kubernetes.io.serviceaccount.uid", "kubernetes.io.pod.name",
                "kubernetes.io.pod.uid", "kubernetes.io.node.name",
            ),
            kind="workload",
            id_tokens=True,
            algorithms=("RS256", "ES256"),
            service_account=("kubernetes.io.namespace", "kubernetes.io.serviceaccount.name"),
        ),
    }
)  # fmt: skip


def guess(url: str) -> str:
    """The profile that an issuer's address suggests; `generic` where it says nothing."""
    known = (
        ("https://token.actions.githubusercontent.com", "github-actions"),
        ("https://accounts.google.com", "google"),
        ("https://login.microsoftonline.com/", "entra"),
        ("https://sts.windows.net/", "entra"),
        ("https://gitlab.com", "gitlab"),
        ("https://kubernetes.default.svc", "kubernetes"),
    )
    for beginning, profile in known:
        if url.startswith(beginning):
            return profile
    if ".okta.com/" in url or ".oktapreview.com/" in url:
        return "okta"
    return "keycloak" if "/realms/" in url else "generic"

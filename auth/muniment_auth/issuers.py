"""An issuer that the operator trusts, and what is asked of its tokens."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path

from muniment_auth.profiles import PROFILES, Profile

LIFE_S_MAX = 24 * 3600
"""Longest that a token may have been made for, unless the issuer's setting says otherwise."""

_TENANT = "([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})"
_ENTRA = (
    ("https://login.microsoftonline.com/{}/v2.0", "https://sts.windows.net/{}/"),
    ("https://login.microsoftonline.us/{}/v2.0", "https://sts.windows.net/{}/"),
    ("https://login.partner.microsoftonline.cn/{}/v2.0", "https://sts.chinacloudapi.cn/{}/"),
)
"""The two forms of a tenant's issuer, in each of Entra's clouds: by tokens of version 2, and 1."""


@dataclass(frozen=True, slots=True)
class Issuer:
    """One issuer. Everything about a token is checked against the issuer that it names.

    url: exactly what tokens have as `iss`. audiences: one of these must be in `aud`. client_id,
    client_secret: of muniment itself at the provider, for logins in the browser and introspection.
    clients: OAuth clients whose tokens are taken; empty: any. jwks_url, jwks_file: keys that are
    not found by discovery. fetch_token_file: a bearer for fetching keys, read anew each time, as
    Kubernetes asks for. cli_client_id: a public client, for `muniment-client login`.
    algorithms: instead of the profile's; each one of jose.KEY_TYPES.
    """

    name: str
    url: str
    audiences: tuple[str, ...]
    profile_name: str = "generic"
    admin_group: str | None = None
    groups_claim: str | None = None
    kept_claims: tuple[str, ...] = ()
    client_id: str | None = None
    client_secret: str | None = field(default=None, repr=False)
    cli_client_id: str | None = None
    clients: frozenset[str] = frozenset()
    required_scope: str | None = None
    login_scope: str = "openid profile email"
    life_s_max: int = LIFE_S_MAX
    dpop_required: bool = False
    introspect: bool = False
    jwks_url: str | None = None
    jwks_file: Path | None = None
    ca_file: Path | None = None
    fetch_token_file: Path | None = None
    algorithms: tuple[str, ...] = ()

    @property
    def profile(self) -> Profile:
        """What its kind of provider writes."""
        return PROFILES[self.profile_name]

    @property
    def algorithms_taken(self) -> tuple[str, ...]:
        """The only algorithms that its tokens may be signed with."""
        return self.algorithms or self.profile.algorithms

    @property
    def groups(self) -> str | None:
        """The claim that has the groups."""
        return self.groups_claim or self.profile.groups

    @property
    def kept(self) -> tuple[str, ...]:
        """The claims that grants may be bound to."""
        return (*self.profile.kept, *self.kept_claims)

    @property
    def urls(self) -> tuple[str, ...]:
        """All that its tokens may have as `iss`: an Entra tenant has two forms."""
        return (_entra_forms(self.url) if self.profile_name == "entra" else None) or (self.url,)


def _entra_forms(url: str) -> tuple[str, str] | None:
    """Both exact issuers of the one tenant that an address names; None: it names none."""
    for forms in _ENTRA:
        for form in forms:
            found = re.fullmatch(re.escape(form).replace(r"\{\}", _TENANT), url)
            if found is not None:
                return forms[0].format(found[1]), forms[1].format(found[1])
    return None


def is_loopback(host: str) -> bool:
    """Whether an address can be reached from this machine only."""
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False

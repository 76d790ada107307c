"""Settings of identity providers: one by flags, any number by `[[issuers]]` in the TOML file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, SecretStr, model_validator
from pydantic_core import PydanticCustomError

from muniment_auth.issuers import LIFE_S_MAX, Issuer
from muniment_auth.jose import KEY_TYPES
from muniment_auth.keys import UntrustedDocument, check_url
from muniment_auth.profiles import PERSONAL, PROFILES, guess

ENTRA_FORM = "https://login.microsoftonline.com/<tenant id>/v2.0"
NAME_PATTERN = r"^[a-z0-9][a-z0-9_-]{0,62}$"


class IssuerSettings(BaseModel):
    """One issuer of tokens that callers may present."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    url: str
    """Exactly what its tokens have as `iss`."""
    audience: str | tuple[str, ...]
    """What its tokens have as `aud`, meant for this server; or several."""
    name: Annotated[str, Field(pattern=NAME_PATTERN)] | None = None
    """What people choose it by; made of the URL's host if not given."""
    profile: str | None = None
    """keycloak, okta, entra, google, github-actions, gitlab, kubernetes or generic."""
    admin_group: str | None = None
    """Members of this group are admins."""
    groups_claim: str | None = None
    claims: tuple[str, ...] = ()
    """More claims that grants may be bound to."""
    client_id: str | None = None
    """muniment's own client there: for logins in the browser, and for introspection."""
    client_secret: SecretStr | None = None
    cli_client_id: str | None = None
    """A public client there, for `muniment-client login`."""
    login_scope: str = "openid profile email"
    allowed_clients: tuple[str, ...] = ()
    """Clients whose tokens are taken; empty: any."""
    required_scope: str | None = None
    life_s_max: Annotated[int, Field(ge=60, le=31 * 24 * 3600)] = LIFE_S_MAX
    dpop_required: bool = False
    introspect: bool = False
    """Whether opaque tokens are asked about there."""
    jwks_url: str | None = None
    jwks_file: Path | None = None
    ca_file: Path | None = None
    fetch_token_file: Path | None = None
    """A bearer for fetching keys, read anew each time (Kubernetes: the pod's own token)."""
    algorithms: tuple[str, ...] = ()
    """Algorithms that its tokens may be signed with; empty: the profile's."""

    @model_validator(mode="after")
    def _fit_together(self) -> IssuerSettings:
        problem = self._problem()
        if problem is not None:
            raise PydanticCustomError("misfit", "{problem}", {"problem": problem})
        return self

    def _problem(self) -> str | None:
        for url in (self.url, self.jwks_url):
            try:
                if url is not None:
                    check_url(url)
            except UntrustedDocument as error:
                return error.reason
        if personal := PERSONAL.intersection(self.claims):
            return (
                f"claims: {min(personal)} says who somebody is, and would stand in the log in "
                "clear. Bind grants to groups, or to sub, which is not kept"
            )
        if self.profile is not None and self.profile not in PROFILES:
            return f"profile {self.profile} is none of {', '.join(PROFILES)}"
        if self.introspect and (self.client_id is None or self.client_secret is None):
            return f"{self.url}: introspect needs client_id and client_secret"
        if not self.audience or (not isinstance(self.audience, str) and not all(self.audience)):
            return f"{self.url}: audience must not be empty"
        unknown = sorted(set(self.algorithms) - set(KEY_TYPES))
        if unknown:
            return f"{self.url}: algorithms {', '.join(unknown)} are none of {', '.join(KEY_TYPES)}"
        return self._entra_problem()

    def _entra_problem(self) -> str | None:
        profile = self.profile or guess(self.url)
        if profile == "entra" and len(self.issuer().urls) == 1:
            return f"{self.url}: name one tenant, as {ENTRA_FORM}"
        return None

    def issuer(self) -> Issuer:
        """The issuer as the rest knows it."""
        audiences = (self.audience,) if isinstance(self.audience, str) else self.audience
        secret = self.client_secret
        return Issuer(
            name=self.name or _name_of(self.url),
            url=self.url,
            audiences=audiences,
            profile_name=self.profile or guess(self.url),
            admin_group=self.admin_group,
            groups_claim=self.groups_claim,
            kept_claims=self.claims,
            client_id=self.client_id,
            client_secret=None if secret is None else secret.get_secret_value(),
            cli_client_id=self.cli_client_id,
            clients=frozenset(self.allowed_clients),
            required_scope=self.required_scope,
            login_scope=self.login_scope,
            life_s_max=self.life_s_max,
            dpop_required=self.dpop_required,
            introspect=self.introspect,
            jwks_url=self.jwks_url,
            jwks_file=self.jwks_file,
            ca_file=self.ca_file,
            fetch_token_file=self.fetch_token_file,
            algorithms=self.algorithms,
        )


def _name_of(url: str) -> str:
    host = url.partition("://")[2].partition("/")[0].partition(":")[0]
    kept = "".join(c if c.isalnum() else "-" for c in host.lower()).strip("-")
    return kept[:63] or "issuer"


def repeated(issuers: Sequence[Issuer]) -> str | None:
    """What two issuers have in common that tells them apart, if anything."""
    urls = [url for issuer in issuers for url in issuer.urls]
    names = [issuer.name for issuer in issuers]
    return next((text for found in (urls, names) for text in found if found.count(text) > 1), None)

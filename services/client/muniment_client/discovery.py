"""From the tracking URI to the endpoints of its identity provider.

Two documents: the server's protected-resource metadata (RFC 9728) names the issuers that it
accepts and, under `muniment`, the client id and audience for each; the issuer's own metadata
(OpenID Connect Discovery, RFC 8414) names the endpoints. Over plain HTTP anybody on the way could
name an issuer of theirs, so such a server (loopback aside) is not asked.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from muniment_client.errors import NotConfigured, Unreachable, plain
from muniment_client.exchange import get_json
from muniment_client.origins import is_protected, origin

RESOURCE_PATH = "/.well-known/oauth-protected-resource"
OPENID_PATH = "/.well-known/openid-configuration"
OAUTH_PATH = "/.well-known/oauth-authorization-server"
WITHOUT_LOGIN = ("https://token.actions.githubusercontent.com",)
"""Issuers that sign in no person and no client."""


@dataclass(frozen=True, slots=True)
class Accepted:
    """One issuer that a server accepts."""

    url: str
    audience: str | None = None
    client_id: str | None = None


@dataclass(frozen=True, slots=True)
class Resource:
    """What a server says about signing in to it."""

    server: str
    issuers: tuple[Accepted, ...]
    scopes: tuple[str, ...]

    def accepted(self, url: str) -> Accepted | None:
        """The entry of an issuer; a closing slash makes no difference."""
        wanted = url.rstrip("/")
        return next((found for found in self.issuers if found.url.rstrip("/") == wanted), None)

    def for_login(self, wanted: str | None) -> Accepted:
        """The issuer for people and clients: `wanted`, or the only one that can be meant.

        Raises NotConfigured, naming those to choose from.
        """
        if wanted is not None:
            return self.accepted(wanted) or Accepted(wanted)
        named = [found for found in self.issuers if found.client_id is not None]
        found = named or [one for one in self.issuers if one.url not in WITHOUT_LOGIN]
        if len(found) == 1:
            return found[0]
        if not found:
            raise NotConfigured(f"{self.server} names no identity provider to sign in with.")
        names = ", ".join(one.url for one in found)
        raise NotConfigured(
            f"{self.server} accepts several identity providers ({names}): choose one with "
            "--issuer or MUNIMENT_ISSUER."
        )


@dataclass(frozen=True, slots=True)
class Provider:
    """The endpoints of one issuer; None for what it does not offer."""

    issuer: str
    token: str
    authorization: str | None
    device: str | None
    revocation: str | None
    scopes: frozenset[str]
    secret_in_form: bool
    names_itself: bool
    """Whether its authorization answers carry `iss` (RFC 9207)."""


def ask_server(server: str, verify: bool | str = True) -> Resource:
    """The protected-resource metadata of a server. Raises NotConfigured, Unreachable."""
    if not is_protected(server):
        raise NotConfigured(
            f"{server} is reached without TLS, so what it says about its identity provider "
            "cannot be trusted: use https, or set MUNIMENT_ISSUER (and MUNIMENT_AUDIENCE)."
        )
    root, path = origin(server), urlsplit(server).path.rstrip("/")
    places = [f"{root}{RESOURCE_PATH}{path}"]
    if path:
        places.append(f"{server}{RESOURCE_PATH}")
    for place in places:
        found = get_json(place, verify=verify)
        if found is not None:
            return _resource(server, found)
    raise NotConfigured(
        f"{server} has no sign-in: it does not answer {RESOURCE_PATH}. Either it runs without "
        "an issuer, or it is not a muniment server."
    )


def _resource(server: str, found: Mapping[str, Any]) -> Resource:
    named = found.get("resource")
    if isinstance(named, str) and origin(named) != origin(server):
        raise NotConfigured(
            f"{server} calls itself {named}: set MLFLOW_TRACKING_URI to that name, or have "
            "the server's public URL corrected."
        )
    ours = found.get("muniment")
    hints = ours.get("issuers") if isinstance(ours, dict) else None
    detailed = {
        hint["url"]: Accepted(hint["url"], _text(hint, "audience"), _text(hint, "client_id"))
        for hint in (hints if isinstance(hints, list) else [])
        if isinstance(hint, dict) and isinstance(hint.get("url"), str)
    }
    urls = [*_texts(found.get("authorization_servers")), *detailed]
    issuers = tuple(detailed.get(url, Accepted(url)) for url in dict.fromkeys(urls))
    return Resource(server, issuers, tuple(_texts(found.get("scopes_supported"))))


def ask_issuer(issuer: str, *, named_by_user: bool) -> Provider:
    """The metadata of an issuer. Raises NotConfigured, Unreachable.

    named_by_user: an issuer that the server names must be https or loopback.
    """
    if not named_by_user and not is_protected(issuer):
        raise NotConfigured(f"The server names an identity provider without TLS: {issuer}.")
    base, parts = issuer.rstrip("/"), urlsplit(issuer)
    places = (
        f"{base}{OPENID_PATH}",
        f"{parts.scheme}://{parts.netloc}{OAUTH_PATH}{parts.path.rstrip('/')}",
    )
    for place in places:
        found = get_json(place)
        if found is not None:
            provider = _provider(issuer, place, found)
            _check_endpoints(provider, named_by_user)
            return provider
    raise NotConfigured(f"{issuer} has no metadata at {places[0]}: is it the issuer's URL?")


def _check_endpoints(provider: Provider, named_by_user: bool) -> None:
    """A browser opens these, and secrets go to them: web addresses, and with TLS."""
    for url in (provider.token, provider.authorization, provider.device, provider.revocation):
        if url is not None and (not origin(url) or not (named_by_user or is_protected(url))):
            raise NotConfigured(f"{provider.issuer} names an endpoint without TLS: {plain(url)}.")


def _provider(issuer: str, place: str, found: Mapping[str, Any]) -> Provider:
    named, token = found.get("issuer"), _text(found, "token_endpoint")
    if not isinstance(named, str) or named.rstrip("/") != issuer.rstrip("/"):
        raise NotConfigured(f"{place} is the metadata of {named}, not of {issuer}.")
    if token is None:
        raise Unreachable(place, "it names no token endpoint", 1)
    methods = set(_texts(found.get("token_endpoint_auth_methods_supported")))
    return Provider(
        named,
        token,
        _text(found, "authorization_endpoint"),
        _text(found, "device_authorization_endpoint"),
        _text(found, "revocation_endpoint"),
        frozenset(_texts(found.get("scopes_supported"))),
        "client_secret_post" in methods and "client_secret_basic" not in methods,
        found.get("authorization_response_iss_parameter_supported") is True,
    )


def _text(found: Mapping[str, Any], name: str) -> str | None:
    value = found.get(name)
    return value if isinstance(value, str) and value else None


def _texts(value: object) -> Iterable[str]:
    return [text for text in value if isinstance(text, str)] if isinstance(value, list) else []

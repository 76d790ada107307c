"""Which source of tokens applies here: the environment is read once for each server.

What somebody set on purpose comes before what the surroundings offer:

1. MUNIMENT_TOKEN, then MLFLOW_TRACKING_TOKEN: a personal or service token, used as it is
2. MUNIMENT_CLIENT_ID with MUNIMENT_CLIENT_SECRET or MUNIMENT_CLIENT_KEY_FILE
3. MUNIMENT_TOKEN_FILE: a file that something keeps fresh
4. MUNIMENT_ID_TOKEN: a GitLab job's ID token
5. the sign-in of `muniment-client login`
6. /var/run/secrets/muniment/token: a Kubernetes projected token
7. GitHub Actions with `id-token: write`
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from muniment_client.cache import default_cache
from muniment_client.discovery import Provider, ask_issuer, ask_server
from muniment_client.errors import NotConfigured
from muniment_client.sources import (
    ClientIdentity,
    GivenToken,
    Login,
    Service,
    Source,
    TokenFile,
    Workflow,
)

PROJECTED_TOKEN = Path("/var/run/secrets/muniment/token")
GITHUB_ISSUERS = "https://token.actions."
GITHUB_URL, GITHUB_TOKEN = "ACTIONS_ID_TOKEN_REQUEST_URL", "ACTIONS_ID_TOKEN_REQUEST_TOKEN"
WITHOUT_SERVICE = frozenset(("openid", "offline_access", "profile", "email"))
"""Scopes about a person: a service does not ask for them."""


def find_source(
    server: str, environ: Mapping[str, str], projected: Path = PROJECTED_TOKEN
) -> Source | None:
    """The source for a server, None when nothing here can sign in. Uses no network."""
    for name in ("MUNIMENT_TOKEN", "MLFLOW_TRACKING_TOKEN"):
        if value := environ.get(name):
            return GivenToken(name, value)
    identity = _identity(environ)
    if identity is not None:
        return Service(identity, lambda: _provider(server, environ))
    if path := environ.get("MUNIMENT_TOKEN_FILE"):
        return TokenFile(Path(path))
    if value := environ.get("MUNIMENT_ID_TOKEN"):
        return GivenToken("MUNIMENT_ID_TOKEN", value)
    cache = default_cache(environ)
    sign_in = cache.find(server, environ.get("MUNIMENT_ISSUER") or None)
    if sign_in is not None:
        return Login(cache, sign_in)
    if projected.exists():
        return TokenFile(projected)
    if environ.get(GITHUB_URL) and environ.get(GITHUB_TOKEN):
        return Workflow(
            environ[GITHUB_URL], environ[GITHUB_TOKEN], lambda: _audience(server, environ)
        )
    return None


def server_verification(environ: Mapping[str, str]) -> bool | str:
    """How the server's TLS certificate is checked: as MLflow's own variables say."""
    if environ.get("MLFLOW_TRACKING_INSECURE_TLS", "").lower() in ("true", "1"):
        return False
    return environ.get("MLFLOW_TRACKING_SERVER_CERT_PATH") or True


def _identity(environ: Mapping[str, str]) -> ClientIdentity | None:
    client_id = environ.get("MUNIMENT_CLIENT_ID")
    secret, key_file = (environ.get(f"MUNIMENT_CLIENT_{n}") for n in ("SECRET", "KEY_FILE"))
    if not secret and not key_file:
        return None
    if not client_id:
        raise NotConfigured("MUNIMENT_CLIENT_ID is missing beside the client's secret or key.")
    return ClientIdentity(
        client_id,
        secret,
        Path(key_file) if key_file else None,
        environ.get("MUNIMENT_CLIENT_KEY_ID"),
        environ.get("MUNIMENT_SCOPE"),
        environ.get("MUNIMENT_AUDIENCE"),
    )


def _provider(server: str, environ: Mapping[str, str]) -> tuple[Provider, str | None]:
    if issuer := environ.get("MUNIMENT_ISSUER"):
        return ask_issuer(issuer, named_by_user=True), None
    resource = ask_server(server, server_verification(environ))
    scopes = [scope for scope in resource.scopes if scope not in WITHOUT_SERVICE]
    provider = ask_issuer(resource.for_login(None).url, named_by_user=False)
    return provider, " ".join(scopes) or None


def _audience(server: str, environ: Mapping[str, str]) -> str:
    if named := environ.get("MUNIMENT_AUDIENCE"):
        return named
    resource = ask_server(server, server_verification(environ))
    for accepted in resource.issuers:
        if accepted.url.startswith(GITHUB_ISSUERS) and accepted.audience is not None:
            return accepted.audience
    raise NotConfigured(
        f"{server} names no audience for GitHub's tokens: set MUNIMENT_AUDIENCE, or have "
        "GitHub's issuer added to the server."
    )

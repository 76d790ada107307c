"""An identity provider in memory, and tokens shaped like those of the well-known ones.

The provider answers discovery and keys as an HTTP transport, counts what is asked of it, and can be
down, slow or change its keys. Nothing leaves the process.
"""

from __future__ import annotations

import asyncio
import json
import secrets
import time
from collections.abc import Mapping
from copy import copy
from functools import cache
from typing import Any
from urllib.parse import parse_qsl

import httpx
from joserfc import jws
from joserfc.jwk import ECKey, OKPKey, RSAKey

from muniment_auth.issuers import Issuer
from muniment_auth.profiles import ALGORITHMS

AUDIENCE = "muniment"
TENANT = "11111111-2222-3333-4444-555555555555"

URLS: Mapping[str, str] = {
    "generic": "https://idp.test",
    "keycloak": "https://kc.test/realms/mlops",
    "okta": "https://corp.okta.com/oauth2/default",
    "entra": f"https://login.microsoftonline.com/{TENANT}/v2.0",
    "google": "https://accounts.google.com",
    "github-actions": "https://token.actions.githubusercontent.com",
    "gitlab": "https://gitlab.com",
    "kubernetes": "https://kubernetes.default.svc.cluster.local",
}

SHAPES: Mapping[str, Mapping[str, Any]] = {
    "generic": {"client_id": "app", "groups": ["team"]},
    "keycloak": {
        "typ": "Bearer", "azp": "app", "groups": ["team"], "scope": "profile email", "acr": "1",
        "sid": "f3a1", "allowed-origins": ["/*"], "email_verified": True,
        "realm_access": {"roles": ["offline_access", "mlops"]},
        "resource_access": {"account": {"roles": ["view-profile"]}},
    },
    "okta": {
        "ver": 1, "cid": "app", "uid": "00u1", "scp": ["openid"], "groups": ["team"],
        "sub": "ana@corp.test", "auth_time": 1_700_000_000,
    },
    "entra": {
        "ver": "2.0", "azp": "app", "azpacr": "1", "oid": "o-1", "tid": TENANT, "scp": "access",
        "groups": ["team"], "roles": ["Writer"], "name": "Ana", "preferred_username": "ana@x.test",
        "sub": "pairwise-of-the-api", "uti": "u-1", "rh": "0.A", "aio": "AXQ",
    },
    "google": {
        "azp": "app", "email": "ana@corp.test", "email_verified": True, "hd": "corp.test",
        "at_hash": "x", "name": "Ana", "picture": "https://x.test/p", "given_name": "Ana",
    },
    "github-actions": {
        "repository": "corp/models", "repository_id": "4711", "repository_owner": "corp",
        "repository_owner_id": "42", "repository_visibility": "private", "actor": "ana",
        "actor_id": "12", "ref": "refs/heads/main", "ref_type": "branch", "ref_protected": "true",
        "environment": "production", "sha": "abc", "run_id": "1", "run_number": "10",
        "run_attempt": "2", "head_ref": "", "base_ref": "", "event_name": "push",
        "workflow": "promote", "workflow_sha": "abc", "job_workflow_sha": "abc",
        "workflow_ref": "corp/models/.github/workflows/promote.yml@refs/heads/main",
        "job_workflow_ref": "corp/models/.github/workflows/promote.yml@refs/heads/main",
        "runner_environment": "github-hosted",
    },
    "gitlab": {
        "project_id": "7", "project_path": "corp/models", "namespace_id": "3",
        "namespace_path": "corp", "ref": "main", "ref_type": "branch", "ref_protected": "true",
        "ref_path": "refs/heads/main", "environment": "production", "pipeline_id": "5",
        "pipeline_source": "push", "job_id": "9", "sha": "abc", "user_id": "2",
        "user_login": "ana", "user_email": "ana@x.test", "runner_id": 1, "ci_config_sha": "abc",
        "runner_environment": "gitlab-hosted", "project_visibility": "private",
        "user_access_level": "developer",
        "ci_config_ref_uri": "gitlab.com/corp/models//.gitlab-ci.yml@refs/heads/main",
    },
    "kubernetes": {
        "kubernetes.io": {
            "namespace": "training",
            "node": {"name": "node-1", "uid": "n-1"},
            "serviceaccount": {"name": "trainer", "uid": "u-1"},
            "pod": {"name": "job-1", "uid": "p-1"},
            "warnafter": 1_700_003_607,
        }
    },
}  # fmt: skip
"""What each kind of provider puts into an access token besides the registered claims."""

ENTRA_V1: Mapping[str, Any] = {
    "iss": f"https://sts.windows.net/{TENANT}/", "aud": "api://muniment", "ver": "1.0",
    "azp": None, "azpacr": None, "appid": "app", "appidacr": "1", "acr": "1", "idp": "live.com",
    "ipaddr": "192.0.2.1", "unique_name": "ana@x.test", "upn": "ana@x.test",
}  # fmt: skip
"""What a token of Entra's first version has otherwise."""

ID_SHAPES: Mapping[str, Mapping[str, Any]] = {
    "generic": {"at_hash": "x", "auth_time": 1_700_000_000},
    "keycloak": {"typ": "ID", "azp": "web", "at_hash": "x", "sid": "f3a1"},
    "okta": {"ver": 1, "idp": "00o1", "at_hash": "x", "amr": ["pwd"], "auth_time": 1_700_000_000},
    "entra": {"ver": "2.0", "oid": "o-1", "tid": TENANT, "preferred_username": "ana", "rh": "0.A"},
    "google": {"azp": "web", "at_hash": "x", "email": "ana@corp.test", "email_verified": True},
    "gitlab": {"auth_time": 1_700_000_000, "groups_direct": ["corp"], "preferred_username": "ana"},
}
"""What each kind of provider puts into an ID token for a login of the client `web`."""

SUBJECTS: Mapping[str, str] = {
    "github-actions": "repo:corp/models:environment:production",
    "gitlab": "project_path:corp/models:ref_type:branch:ref:main",
    "kubernetes": "system:serviceaccount:training:trainer",
}


def rsa(kid: str = "rsa-1", bits: int = 2048) -> RSAKey:
    """A new signing key."""
    return RSAKey.generate_key(bits, {"kid": kid, "use": "sig"})


@cache
def first_key(profile: str) -> RSAKey:
    """What a kind of provider signs with until it rotates: made once, since that takes long."""
    return rsa()


class Provider:
    """One identity provider. `fetches` counts the documents that were asked for."""

    def __init__(self, profile: str = "generic", url: str | None = None) -> None:
        self.profile = profile
        self.url = url or URLS[profile]
        self.keys: list[RSAKey | ECKey | OKPKey] = [copy(first_key(profile))]
        self.also_listed: list[dict[str, Any]] = []
        self.fetches = 0
        self.key_fetches = 0
        self.is_down = False
        self.delay_s = 0.0
        self.opaque: dict[str, Mapping[str, Any]] = {}
        self.introspections = 0
        self.asked_as = ""

    @property
    def key(self) -> RSAKey | ECKey | OKPKey:
        """What it signs with now."""
        return self.keys[-1]

    def issuer(self, **settings: Any) -> Issuer:
        """The provider as a server would trust it."""
        given = {"name": self.profile, "url": self.url, "audiences": (AUDIENCE,)}
        return Issuer(**{**given, "profile_name": self.profile, **settings})

    def rotate(self) -> None:
        """Sign with a new key; the old ones stay published."""
        self.keys.append(rsa(f"rsa-{len(self.keys) + 1}"))

    def claims(self, **changes: Any) -> dict[str, Any]:
        """An access token's claims as of now; a change to None leaves a claim out."""
        now = int(time.time())
        subject = SUBJECTS.get(self.profile, "ana")
        made = {
            "iss": self.url, "sub": subject, "aud": AUDIENCE, "iat": now, "nbf": now,
            "exp": now + 600, "jti": secrets.token_hex(8), **SHAPES[self.profile], **changes,
        }  # fmt: skip
        return {name: value for name, value in made.items() if value is not None}

    def token(self, header: Mapping[str, Any] | None = None, **changes: Any) -> str:
        """A signed access token."""
        return signed(self.key, self.claims(**changes), header)

    def id_token(self, nonce: str | None = "n-1", **changes: Any) -> str:
        """A signed ID token for a login of the client `web`."""
        now = int(time.time())
        made = {
            "iss": self.url, "sub": "ana", "aud": "web", "iat": now, "exp": now + 600,
            "nonce": nonce, **ID_SHAPES[self.profile], **changes,
        }  # fmt: skip
        return signed(self.key, {name: v for name, v in made.items() if v is not None})

    def transport(self) -> httpx.MockTransport:
        """How the provider is reached."""
        return httpx.MockTransport(self.answer)

    async def answer(self, request: httpx.Request) -> httpx.Response:
        """Discovery, keys or introspection. Raises ConnectError while it is down."""
        if self.delay_s:
            await asyncio.sleep(self.delay_s)
        if self.is_down:
            raise httpx.ConnectError("down", request=request)
        if request.method == "POST":
            return self._introspect(request)
        self.fetches += 1
        if request.url.path.endswith("/openid-configuration"):
            document: dict[str, Any] = {
                "issuer": self.url,
                "jwks_uri": f"{self.url.rstrip('/')}/keys",
                "introspection_endpoint": f"{self.url.rstrip('/')}/introspect",
            }
        else:
            self.key_fetches += 1
            listed = [key.as_dict(private=False) for key in self.keys]
            document = {"keys": [*self.also_listed, *listed]}
        return httpx.Response(200, json=document)

    def _introspect(self, request: httpx.Request) -> httpx.Response:
        self.introspections += 1
        self.asked_as = request.headers.get("authorization", "")
        token = dict(parse_qsl(request.content.decode()))["token"]
        return httpx.Response(200, json=self.opaque.get(token, {"active": False}))


def reached(*providers: Provider) -> httpx.MockTransport:
    """How several providers are reached, each by the host of its address."""
    hosts = {httpx.URL(provider.url).host: provider for provider in providers}

    async def answer(request: httpx.Request) -> httpx.Response:
        return await hosts[request.url.host].answer(request)

    return httpx.MockTransport(answer)


def signed(
    key: RSAKey | ECKey | OKPKey, claims: object, header: Mapping[str, Any] | None = None
) -> str:
    """A compact JWS over anything. header: added to alg and kid; a None leaves one out."""
    algorithm = {"RSA": "RS256", "EC": "ES256", "OKP": "Ed25519"}[key.key_type]
    given = {"alg": algorithm, "kid": key.kid, **(header or {})}
    protected = {name: value for name, value in given.items() if value is not None}
    body = claims if isinstance(claims, str | bytes) else json.dumps(claims)
    return jws.serialize_compact(protected, body, key, algorithms=list(ALGORITHMS))

"""Whatever a token says, and whoever signed it: a caller is let in or refused, nothing else breaks.

The payloads are properly signed, which a hostile client of a trusted provider can bring about: some
providers let people choose names, groups and scopes.
"""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from harness.examples import examples
from harness.hostile_tokens import b64
from harness.tokens import AUDIENCE, URLS, Provider, reached, signed
from muniment_auth.authenticate import Authenticator
from muniment_auth.errors import AuthError
from muniment_auth.principal import Principal

NAMES = st.sampled_from(
    """iss sub aud exp nbf iat jti typ azp cid uid oid tid scope scp groups act cnf kubernetes.io
    _claim_names hasgroups roles realm_access preferred_username email name client_id
    repository_id x""".split()
)
TEXTS = st.text(max_size=20) | st.sampled_from([AUDIENCE, "muniment:run:*", "ana", "ID", "Bearer"])
SCALARS = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | TEXTS
    | st.sampled_from([10**30, -1, 2**63, time.time() + 60])
)  # fmt: skip
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(NAMES | st.sampled_from(["sub", "jkt", "namespace"]), inner, max_size=4)
    ),
    max_leaves=12,
)
PROVIDERS = {profile: Provider(profile) for profile in URLS}


def entered(token: str) -> Principal | AuthError:
    async def main() -> Principal:
        issuers = [provider.issuer(client_id="web") for provider in PROVIDERS.values()]
        made = Authenticator(issuers, reached(*PROVIDERS.values()))
        try:
            return await made.authenticate(f"Bearer {token}", None, "GET", "http://localhost/")
        finally:
            await made.close()

    try:
        return asyncio.run(main())
    except AuthError as error:
        return error


def assert_whole(found: Principal | AuthError) -> None:
    """A principal that can be written down, or a refusal that can be sent."""
    if isinstance(found, AuthError):
        assert found.status in (401, 403)
        assert found.challenge("https://ml.test/x").isprintable()
        return
    assert found.subject.isprintable()
    texts = [found.name, found.client_id or "", found.token_id or "", *found.groups]
    texts += [value for values in found.claims.values() for value in values]
    "".join([*texts, *(found.scopes or ())]).encode("utf-8")


@given(profile=st.sampled_from(list(URLS)), changes=st.dictionaries(NAMES, VALUES, max_size=4))
@settings(max_examples=examples(300))
def test_claims_of_any_shape(profile: str, changes: dict[str, Any]) -> None:
    provider = PROVIDERS[profile]
    assert_whole(entered(signed(provider.key, {**provider.claims(), **changes})))


@given(header=st.dictionaries(st.sampled_from(["alg", "kid", "typ", "jwk", "crit", "x"]), VALUES))
@settings(max_examples=examples(200))
def test_headers_of_any_shape_let_nobody_in(header: dict[str, Any]) -> None:
    provider = PROVIDERS["generic"]
    text = json.dumps({"alg": "RS256", "kid": "rsa-1", **header})
    found = entered(f"{b64(text)}.{b64(json.dumps(provider.claims()))}.AAAA")
    assert isinstance(found, AuthError)
    assert found.error == "invalid_token"


@given(place=st.integers(0, 5000), put=st.characters(max_codepoint=255), cut=st.integers(0, 3))
@settings(max_examples=examples(300))
def test_a_token_with_a_character_changed_lets_nobody_in(place: int, put: str, cut: int) -> None:
    token = PROVIDERS["keycloak"].token()
    place %= len(token)
    changed = token[:place] + put + token[place + cut :]
    found = entered(changed)
    assert changed == token or isinstance(found, AuthError)

"""Tokens that are bound to a key: a proof for each request, each proof once. RFC 9449."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import time
from typing import Any

import pytest
from joserfc import jws
from joserfc.jwk import ECKey, OKPKey, RSAKey
from joserfc.jws import JWSRegistry

from harness.tokens import Provider, rsa
from muniment_auth import dpop
from muniment_auth.authenticate import Authenticator
from muniment_auth.dpop import ALGORITHMS, PROOF_S, Proofs
from muniment_auth.errors import ProviderUnavailable, Unauthenticated
from muniment_auth.principal import Principal

URL = "http://muniment.test:5000/api/2.0/mlflow/runs/create"
KEY = ECKey.generate_key("P-256")


REGISTRY = JWSRegistry(algorithms=list(ALGORITHMS), strict_check_header=False)


def proof(
    token: str,
    key: ECKey | RSAKey | OKPKey = KEY,
    header: dict[str, Any] | None = None,
    **changes: Any,
) -> str:
    """A proof for a POST to URL."""
    digest = base64.urlsafe_b64encode(hashlib.sha256(token.encode()).digest()).rstrip(b"=")
    made = {
        "jti": str(time.perf_counter_ns()),
        "htm": "POST",
        "htu": URL,
        "iat": int(time.time()),
        "ath": digest.decode(),
        **changes,
    }
    claims = {name: value for name, value in made.items() if value is not None}
    given = {"alg": "ES256", "typ": "dpop+jwt", "jwk": key.as_dict(private=False), **(header or {})}
    protected = {name: value for name, value in given.items() if value is not None}
    return jws.serialize_compact(protected, json.dumps(claims), key, list(ALGORITHMS), REGISTRY)


class Door:
    """One server, one bound token."""

    def __init__(self, **settings: Any) -> None:
        provider = Provider()
        self.made = Authenticator([provider.issuer(**settings)], provider.transport())
        self.token = provider.token(cnf={"jkt": KEY.thumbprint()})
        self.plain = provider.token()

    def enter(
        self, given: str | None, scheme: str = "DPoP", token: str | None = None, url: str = URL
    ) -> Principal:
        async def main() -> Principal:
            header = f"{scheme} {token or self.token}"
            return await self.made.authenticate(header, given, "POST", url)

        return asyncio.run(main())


def test_a_proof_of_the_key_lets_in_and_counts_once() -> None:
    door = Door()
    given = proof(door.token)
    entered = door.enter(given, url=URL)
    assert (entered.subject, entered.auth_method) == ("ana", "dpop")
    with pytest.raises(Unauthenticated, match="before") as caught:
        door.enter(given)
    assert caught.value.error == "invalid_dpop_proof"
    assert door.enter(proof(door.token, htu=f"{URL}?x=1#y")).subject == "ana"


def test_a_bound_token_is_no_bearer_token() -> None:
    door = Door()
    with pytest.raises(Unauthenticated, match="proof"):
        door.enter(None, "Bearer")
    with pytest.raises(Unauthenticated):
        door.enter(None)
    assert door.made.known(f"Bearer {door.token}".encode()) is None


def test_an_issuer_may_ask_for_it() -> None:
    door = Door(dpop_required=True)
    with pytest.raises(Unauthenticated, match="DPoP"):
        door.enter(None, "Bearer", door.plain)
    assert door.made.known(f"Bearer {door.plain}".encode()) is None
    assert door.enter(proof(door.token)).subject == "ana"


def test_a_token_that_is_not_bound_gains_nothing_by_a_proof() -> None:
    door = Door()
    with pytest.raises(Unauthenticated):
        door.enter(proof(door.plain), token=door.plain)


OTHER = ECKey.generate_key("P-256")


@pytest.mark.parametrize(
    ("changes", "header", "key"),
    [
        ({"htm": "GET"}, {}, KEY),
        ({"htm": None}, {}, KEY),
        ({"htu": "http://evil.test:5000/api/2.0/mlflow/runs/create"}, {}, KEY),
        ({"htu": "https://muniment.test:5000/api/2.0/mlflow/runs/create"}, {}, KEY),
        ({"htu": "http://muniment.test:5000/other"}, {}, KEY),
        ({"htu": None}, {}, KEY),
        ({"htu": 1}, {}, KEY),
        ({"iat": lambda: int(time.time()) - 120}, {}, KEY),
        ({"iat": lambda: int(time.time()) + 120}, {}, KEY),
        ({"iat": None}, {}, KEY),
        ({"ath": None}, {}, KEY),
        ({"ath": "AAAA"}, {}, KEY),
        ({"jti": None}, {}, KEY),
        ({"jti": ""}, {}, KEY),
        ({"jti": "x" * 300}, {}, KEY),
        ({"jti": 1}, {}, KEY),
        ({}, {"typ": "JWT"}, KEY),
        ({}, {"typ": None}, KEY),
        ({}, {"jwk": None}, KEY),
        ({}, {"jwk": KEY.as_dict(private=True)}, KEY),
        ({}, {"jwk": OTHER.as_dict(private=False)}, KEY),
        ({}, {}, OTHER),
    ],
)
def test_a_proof_is_for_this_request_this_token_this_key_and_now(
    changes: dict[str, Any], header: dict[str, Any], key: ECKey
) -> None:
    door = Door()
    # What is told by the clock is told now: these cases were collected some minutes ago.
    claims = {name: value() if callable(value) else value for name, value in changes.items()}
    with pytest.raises(Unauthenticated) as caught:
        door.enter(proof(door.token, key, header, **claims))
    assert caught.value.error in ("invalid_dpop_proof", "invalid_token")


@pytest.mark.parametrize("text", ["", "x", "a.b.c", "..", "eyJ.eyJ.eyJ"])
def test_what_is_no_proof(text: str) -> None:
    door = Door()
    with pytest.raises(Unauthenticated):
        door.enter(text)


@pytest.mark.parametrize(
    ("key", "algorithm"),
    [
        (RSAKey.generate_key(2048), "RS256"),
        (RSAKey.generate_key(3072), "PS256"),
        (OKPKey.generate_key("Ed25519"), "Ed25519"),
        (OKPKey.generate_key("Ed25519"), "EdDSA"),
        (ECKey.generate_key("P-384"), "ES384"),
    ],
)
@pytest.mark.filterwarnings("ignore:EdDSA is deprecated")
def test_keys_of_other_types(key: RSAKey | OKPKey | ECKey, algorithm: str) -> None:
    proofs = Proofs(time.time)
    made = proof("t", key, {"alg": algorithm})
    assert proofs.check(made, key.thumbprint(), "t", "POST", URL) is None  # type: ignore[func-returns-value]
    with pytest.raises(Unauthenticated, match="another key"):
        proofs.check(proof("t", key, {"alg": algorithm}), KEY.thumbprint(), "t", "POST", URL)


@pytest.mark.parametrize(
    ("htu", "url", "same"),
    [
        ("HTTPS://ML.test/x", "https://ml.test/x", True),
        ("https://ml.test:443/x", "https://ml.test/x", True),
        ("http://ml.test:80/x", "http://ml.test/x", True),
        ("https://ml.test", "https://ml.test/", True),
        ("https://ml.test/x?a=1#b", "https://ml.test/x?c=2", True),
        ("http://ml.test:443/x", "http://ml.test/x", False),
        ("https://ml.test:8443/x", "https://ml.test/x", False),
        ("https://ml.test/X", "https://ml.test/x", False),
        ("https://ml.test/x/", "https://ml.test/x", False),
        ("https://ml.test.evil.test/x", "https://ml.test/x", False),
        ("https://ml.test@evil.test/x", "https://ml.test/x", False),
        ("https://ml.test:x/x", "https://ml.test/x", False),
        ("/x", "https://ml.test/x", False),
        ("", "", False),
    ],
)
def test_when_two_addresses_are_the_same(htu: str, url: str, same: bool) -> None:
    proofs = Proofs(time.time)
    made = proof("t", htu=htu)
    if same:
        assert proofs.check(made, KEY.thumbprint(), "t", "POST", url) is None  # type: ignore[func-returns-value]
        return
    with pytest.raises(Unauthenticated, match="another request"):
        proofs.check(made, KEY.thumbprint(), "t", "POST", url)


def test_proofs_that_were_taken_are_remembered_while_they_could_be_used_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(dpop, "PROOFS_MAX", 2)
    ahead_s = 0
    proofs = Proofs(lambda: time.time() + ahead_s)
    early = proof("t", iat=int(time.time()) + PROOF_S - 1)
    for made in (early, proof("t", iat=int(time.time()))):
        proofs.check(made, KEY.thumbprint(), "t", "POST", URL)
    with pytest.raises(ProviderUnavailable):
        proofs.check(proof("t"), KEY.thumbprint(), "t", "POST", URL)
    ahead_s = 2 * PROOF_S - 5
    with pytest.raises(Unauthenticated, match="before"):
        proofs.check(early, KEY.thumbprint(), "t", "POST", URL)
    ahead_s = 2 * PROOF_S + 1
    fresh = proof("t", iat=int(time.time()) + ahead_s)
    assert proofs.check(fresh, KEY.thumbprint(), "t", "POST", URL) is None  # type: ignore[func-returns-value]


def test_a_proof_is_no_place_for_secrets_or_small_keys() -> None:
    proofs = Proofs(time.time)
    small = RSAKey.import_key({**rsa(bits=1024).as_dict(private=True)})
    for key, header in (
        (small, {"alg": "RS256"}),
        (KEY, {"jwk": {"kty": "oct", "k": "AAAA"}}),
        (KEY, {"jwk": {**KEY.as_dict(private=False), "crv": "P-521"}}),
        (KEY, {"jwk": "x"}),
        (KEY, {"crit": ["exp"]}),
    ):
        with pytest.raises(Unauthenticated) as caught:
            proofs.check(_made(key, header), small.thumbprint(), "t", "POST", URL)
        assert caught.value.error == "invalid_dpop_proof"
        assert caught.value.challenge("https://x.test").startswith("DPoP ")


def _made(key: ECKey | RSAKey, header: dict[str, Any]) -> str:
    """A proof whose header joserfc would not sign, with the signature of one that it does."""
    good = proof("t", key, {"alg": header.get("alg", "ES256")})
    head, payload, signature = good.split(".")
    plain = json.loads(base64.urlsafe_b64decode(head + "=" * (-len(head) % 4)))
    changed = json.dumps({**plain, **header}).encode()
    return f"{base64.urlsafe_b64encode(changed).rstrip(b'=').decode()}.{payload}.{signature}"

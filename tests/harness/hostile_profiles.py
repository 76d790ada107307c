"""Hostile tokens that are hostile because of who made them, for what, or with which kind of key.

All are properly signed by some key of somebody, so that only the rule that is meant refuses them.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from joserfc import jws
from joserfc.jwk import ECKey, OKPKey, RSAKey

from harness.hostile_tokens import b64, parts_of
from harness.tokens import (
    AUDIENCE,
    ENTRA_V1,
    ID_SHAPES,
    SHAPES,
    TENANT,
    URLS,
    Provider,
    rsa,
    signed,
)

WORKLOADS = ("github-actions", "gitlab", "kubernetes")


@dataclass(frozen=True, slots=True)
class Hostile:
    """One token. error: the code that it has to be refused with."""

    name: str
    token: str
    error: str = "invalid_token"


class World:
    """All kinds of providers, and one (`generic`) that lists keys of every type, bad ones too."""

    def __init__(self) -> None:
        self.providers = {profile: Provider(profile) for profile in URLS}
        self.elliptic = ECKey.generate_key("P-256", {"kid": "ec-1", "use": "sig"})
        self.wide = ECKey.generate_key("P-384", {"kid": "ec-384", "use": "sig"})
        self.edwards = OKPKey.generate_key("Ed25519", {"kid": "ed-1", "use": "sig"})
        self.weak = rsa("weak-1", bits=1024)
        self.short = rsa("weak-2", bits=1536)
        self.encrypting = RSAKey.generate_key(2048, {"kid": "enc-1"})
        self.wrapping = RSAKey.generate_key(2048, {"kid": "ops-1"})
        self.pinned = RSAKey.generate_key(2048, {"kid": "pss-1"})
        self.koblitz = ECKey.generate_key("secp256k1", {"kid": "koblitz-1"})
        self.nameless = RSAKey.generate_key(2048)
        self.generic = self.providers["generic"]
        self.generic.keys[:0] = [self.elliptic, self.wide, self.edwards]
        off = {"x": b64(b"\1" * 32), "y": b64(b"\2" * 32)}
        self.generic.also_listed = [
            *(listed(key) for key in (self.weak, self.short, self.koblitz)),
            listed(self.encrypting, use="enc"),
            listed(self.wrapping, key_ops=["wrapKey"]),
            listed(self.pinned, alg="PS256"),
            {"kty": "oct", "kid": "oct-1", "k": b64(b"s" * 32), "alg": "HS256"},
            {"kty": "EC", "kid": "off-1", "crv": "P-256", **off},
            {"kty": "RSA", "kid": "even-1", "n": b64(b"\xff" * 256), "e": "Ag"},
            {"kty": "RSA", "kid": "huge-1", "n": b64(b"\xff" * 1100), "e": "AQAB"},
            {name: value for name, value in listed(self.nameless).items() if name != "kid"},
            {"kty": "RSA", "kid": "list-1", "n": ["x"], "e": 1},
            {"kid": "typeless-1"},
            {"kty": "AKP", "kid": "quantum-1", "alg": "ML-DSA-44", "pub": "AAAA"},
        ]  # fmt: skip


def listed(key: RSAKey | ECKey | OKPKey, **more: str | list[str]) -> dict[str, Any]:
    """A key as a provider lists it."""
    return {**key.as_dict(private=False), **more}


def corpus(world: World) -> list[Hostile]:
    """All of them."""
    kinds = (_id_tokens, _refresh_tokens, _strangers, _lacking, _shapes, _curves, _unusable_keys)
    return [item for kind in kinds for item in kind(world)]


def _id_tokens(world: World) -> Iterator[Hostile]:
    """What a login gets is no access token, whatever its audience."""
    for profile in ID_SHAPES:
        provider = world.providers[profile]
        yield Hostile(f"{profile}: the ID token of a login", provider.id_token())
        if profile == "google":
            continue
        both: list[Any] = [AUDIENCE, ["web", AUDIENCE]]
        for aud in both:
            yield Hostile(f"{profile}: an ID token for {aud}", provider.id_token(aud=aud))
        if profile in ("keycloak", "okta", "entra", "gitlab"):
            bare = provider.id_token(None, aud=AUDIENCE, at_hash=None)
            yield Hostile(f"{profile}: an ID token without nonce and at_hash", bare)
    for profile in ("okta", "entra", "generic"):
        for name in ("nonce", "at_hash", "c_hash", "s_hash"):
            token = world.providers[profile].token(None, **{name: "x"})
            yield Hostile(f"{profile}: a token with {name}", token)


def _refresh_tokens(world: World) -> Iterator[Hostile]:
    keycloak = world.providers["keycloak"]
    for typ in ("Refresh", "Offline", "ID", "Logout", "bearer", "BEARER", "", None, 1, ["Bearer"]):
        yield Hostile(f"keycloak: typ {typ!r}", keycloak.token(None, typ=typ))


def _strangers(world: World) -> Iterator[Hostile]:
    """Each provider's claims, signed by each other provider's key."""
    for one, provider in world.providers.items():
        for other, stranger in world.providers.items():
            if one != other:
                forged = signed(stranger.key, provider.claims(), {"kid": provider.key.kid})
                yield Hostile(f"{one}'s token by {other}'s key", forged)
    for profile, provider in world.providers.items():
        yield Hostile(f"{profile}: another audience", provider.token(aud="https://other.test"))
        yield Hostile(f"{profile}: a slash more", provider.token(iss=f"{provider.url}/"))
        yield Hostile(f"{profile}: expired", provider.token(exp=int(time.time()) - 90))
        text = parts_of({"alg": "HS256", "kid": provider.key.kid}, provider.claims())
        secret = provider.key.as_pem(private=False)
        mac = hmac.new(secret, text.encode(), hashlib.sha256).digest()
        yield Hostile(f"{profile}: HS256 with the public key", f"{text}.{b64(mac)}")
    entra, other = world.providers["entra"], TENANT.replace("1111", "9999", 1)
    for iss in (
        f"https://login.microsoftonline.com/{other}/v2.0",
        f"https://sts.windows.net/{other}/",
        f"https://sts.windows.net/{TENANT}",
        f"https://login.microsoftonline.com/{TENANT}/",
        "https://login.microsoftonline.com/common/v2.0",
        f"https://login.microsoftonline.us/{TENANT}/v2.0",
        "https://login.microsoftonline.com/{tenantid}/v2.0",
    ):
        yield Hostile(f"entra: iss {iss}", entra.token(iss=iss))
    yield Hostile("entra: v1 for another API", entra.token(**{**ENTRA_V1, "aud": "api://other"}))
    yield Hostile(
        "google: the short iss", world.providers["google"].token(iss="accounts.google.com")
    )


def _lacking(world: World) -> Iterator[Hostile]:
    """Tokens that lack what the provider always writes: something else made them."""
    for profile, provider in world.providers.items():
        for name in provider.issuer().profile.required:
            top = name.split(".io")[0] + (".io" if ".io" in name else "")
            if top in SHAPES[profile]:
                yield Hostile(
                    f"{profile}: no {name}", provider.token(None, **_without(provider, name))
                )
    entra = world.providers["entra"]
    yield Hostile("entra: no client", entra.token(azp=None))
    yield Hostile("okta: a person without uid", world.providers["okta"].token(uid=None))


def _without(provider: Provider, path: str) -> dict[str, Any]:
    if not path.startswith("kubernetes.io."):
        return {path: None}
    found = json.loads(json.dumps(provider.claims()["kubernetes.io"]))
    names = path.removeprefix("kubernetes.io.").split(".")
    holder = found
    for name in names[:-1]:
        holder = holder[name]
    del holder[names[-1]]
    return {"kubernetes.io": found}


def _shapes(world: World) -> Iterator[Hostile]:
    kubernetes = world.providers["kubernetes"]
    for sub in (
        "system:serviceaccount:training:root",
        "system:serviceaccount:kube-system:trainer",
        "system:node:node-1",
        "trainer",
        "system:serviceaccount:training:trainer:x",
    ):
        yield Hostile(f"kubernetes: sub {sub}", kubernetes.token(sub=sub))
    values: list[Any] = ["x", 1, [], {}, {"namespace": {}}, {"namespace": "training"}]
    for value in values:
        yield Hostile(f"kubernetes: {value!r}", kubernetes.token(None, **{"kubernetes.io": value}))
    for profile, name in (("entra", "oid"), ("okta", "uid")):
        odd: list[Any] = ["", 1, True, ["o"], {"x": 1}, "o\nx"]
        for value in odd:
            token = world.providers[profile].token(None, **{name: value})
            yield Hostile(f"{profile}: {name} {value!r}", token)


def _curves(world: World) -> Iterator[Hostile]:
    claims = world.generic.claims()
    good = signed(world.elliptic, claims)
    text, _, signature = good.rpartition(".")
    raw = base64.urlsafe_b64decode(signature + "==")
    r, s = int.from_bytes(raw[:32], "big"), int.from_bytes(raw[32:], "big")
    order = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
    for name, value in (
        ("DER", encode_dss_signature(r, s)),
        ("zeros", bytes(64)),
        ("r zero", bytes(32) + raw[32:]),
        ("s zero", raw[:32] + bytes(32)),
        ("the order", order.to_bytes(32, "big") * 2),
        ("past the order", raw[:32] + ((s + order) % 2**256).to_bytes(32, "big")),
        ("a byte short", raw[:-1]),
        ("a byte long", raw + b"\0"),
        ("of P-384's length", raw[:32].rjust(48, b"\0") + raw[32:].rjust(48, b"\0")),
        ("swapped", raw[32:] + raw[:32]),
    ):
        yield Hostile(f"ECDSA signature: {name}", f"{text}.{b64(value)}")
    edwards = signed(world.edwards, claims)
    text, _, signature = edwards.rpartition(".")
    raw = base64.urlsafe_b64decode(signature + "==")
    for name, value in (
        ("zeros", bytes(64)),
        ("short", raw[:32]),
        ("of the identity", b"\1" + bytes(63)),
        ("halves swapped", raw[32:] + raw[:32]),
    ):
        yield Hostile(f"Ed25519 signature: {name}", f"{text}.{b64(value)}")
    for name, key, header in (
        ("ES256 under an RSA key's kid", world.elliptic, {"kid": "rsa-1"}),
        ("ES256 under the kid of P-384", world.elliptic, {"kid": "ec-384"}),
        ("ES384 under the kid of P-256", world.wide, {"kid": "ec-1", "alg": "ES384"}),
        ("RS256 under an elliptic kid", world.generic.key, {"kid": "ec-1"}),
        ("EdDSA under an elliptic kid", world.edwards, {"kid": "ec-1"}),
        ("ES256 under an Edwards kid", world.elliptic, {"kid": "ed-1"}),
        ("PS256 signed as RS256 says", world.generic.key, {}),
    ):
        made = signed(key, claims, header)
        if name.startswith("PS256"):
            head = b64(json.dumps({"alg": "PS256", "kid": "rsa-1"}))
            made = ".".join((head, *made.split(".")[1:]))
        yield Hostile(name, made)


def _unusable_keys(world: World) -> Iterator[Hostile]:
    """Properly signed with keys that the provider lists, and that do not count."""
    claims = world.generic.claims()
    for name, key in (
        ("1024 bits", world.weak),
        ("1536 bits", world.short),
        ("for encryption", world.encrypting),
        ("for wrapping", world.wrapping),
        ("for PS256 only", world.pinned),
    ):
        yield Hostile(f"RS256 by a key {name}", signed(key, claims))
    yield Hostile("by a key without kid", signed(world.nameless, claims, {"kid": None}))
    thumbprint = world.nameless.thumbprint()
    yield Hostile("by a key's thumbprint", signed(world.nameless, claims, {"kid": thumbprint}))
    header = {"alg": "ES256K", "kid": "koblitz-1"}
    made = jws.serialize_compact(header, json.dumps(claims), world.koblitz, algorithms=["ES256K"])
    yield Hostile("ES256K", made)
    text = parts_of({"alg": "HS256", "kid": "oct-1"}, claims)
    mac = hmac.new(b"s" * 32, text.encode(), hashlib.sha256).digest()
    yield Hostile("HS256 by a secret that is listed", f"{text}.{b64(mac)}")
    for kid in ("off-1", "even-1", "huge-1", "list-1", "typeless-1", "quantum-1"):
        yield Hostile(f"under the kid {kid}", signed(world.generic.key, claims, {"kid": kid}))

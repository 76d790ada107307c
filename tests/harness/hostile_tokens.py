"""Tokens that must not let anybody in: what RFC 8725 warns of, and more.

Each has a name, and is made for one provider of the `generic` kind whose key the attacker does not
have, unless the name says that the token is properly signed.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from collections.abc import Iterator
from typing import Any

from joserfc.jwk import ECKey, OKPKey

from harness.tokens import Provider, rsa, signed

Named = tuple[str, str]


def b64(data: bytes | str) -> str:
    """base64url without padding."""
    raw = data.encode() if isinstance(data, str) else data
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def parts_of(header: object, payload: object) -> str:
    """The first two segments; texts are taken as they are."""
    texts = (part if isinstance(part, str) else json.dumps(part) for part in (header, payload))
    return ".".join(b64(text) for text in texts)


def corpus(provider: Provider) -> list[Named]:
    """All of them."""
    kinds = (
        _algorithms,
        _keys_in_headers,
        _key_ids,
        _headers,
        _issuers,
        _audiences,
        _times,
        _subjects,
        _id_tokens,
        _signatures,
        _forms,
        _json,
        _bindings,
        _actors,
    )
    return [item for kind in kinds for item in kind(provider)]


def _algorithms(provider: Provider) -> Iterator[Named]:
    good = provider.token()
    _, payload, signature = good.split(".")
    for name in ("none", "None", "NONE", "nOnE", "", "null", "NonE "):
        for tail in ("", signature, "AA"):
            header = b64(json.dumps({"alg": name, "kid": "rsa-1"}))
            yield f"alg {name!r}, signature {tail[:4]!r}", f"{header}.{payload}.{tail}"
    public = provider.key.as_pem(private=False)
    secrets = {
        "the public key as PEM": public,
        "the same without its last newline": public.strip(),
        "the public key as JSON": json.dumps(provider.key.as_dict(private=False)).encode(),
        "the modulus": str(provider.key.as_dict(private=False)["n"]).encode(),
        "nothing": b"",
        "the kid": b"rsa-1",
    }
    for name in ("HS256", "HS384", "HS512"):
        digest = {"HS256": hashlib.sha256, "HS384": hashlib.sha384, "HS512": hashlib.sha512}[name]
        text = f"{b64(json.dumps({'alg': name, 'kid': 'rsa-1'}))}.{payload}"
        for of, secret in secrets.items():
            mac = hmac.new(secret, text.encode(), digest).digest()
            yield f"{name} with {of} as its secret", f"{text}.{b64(mac)}"
    others = (
        "RS384",
        "RS512",
        "PS384",
        "PS512",
        "ES256",
        "ES384",
        "ES512",
        "ES256K",
        "EdDSA",
        "Ed448",
        "PS256",
        "RS1",
        "A128KW",
        "dir",
        "RSA-OAEP",
        "rs256",
        "RS256 ",
        "RS256\n",
        "HS256/RS256",
    )
    for name in others:
        header = b64(json.dumps({"alg": name, "kid": "rsa-1"}))
        yield f"alg changed to {name!r}", f"{header}.{payload}.{signature}"
    for value in (None, 5, True, ["RS256"], {"alg": "RS256"}, 1.5):
        header = b64(json.dumps({"alg": value, "kid": "rsa-1"}))
        yield f"alg of another type: {value!r}", f"{header}.{payload}.{signature}"


def _keys_in_headers(provider: Provider) -> Iterator[Named]:
    own = rsa("rsa-1")
    public = own.as_dict(private=False)
    given: dict[str, Any] = {
        "jwk": public,
        "jku": "https://evil.test/keys",
        "x5u": "https://evil.test/cert",
        "x5c": ["MIIB"],
        "x5t": "AAAA",
        "x5t#S256": "AAAA",
    }
    for name, value in given.items():
        yield f"{name} of the attacker", signed(own, provider.claims(), {name: value})
        stranger = rsa("evil-1")
        header = {name: stranger.as_dict(private=False) if name == "jwk" else value}
        yield f"{name} with a kid of its own", signed(stranger, provider.claims(), header)
    elliptic = ECKey.generate_key("P-256", {"kid": "rsa-1"})
    yield "an elliptic key under a known kid", signed(elliptic, provider.claims())
    edwards = OKPKey.generate_key("Ed25519", {"kid": "rsa-1"})
    yield "an Edwards key under a known kid", signed(edwards, provider.claims())


def _key_ids(provider: Provider) -> Iterator[Named]:
    stranger = rsa("evil-1")
    yield "a key that nobody knows", signed(stranger, provider.claims())
    for kid in (
        "../../../../dev/null",
        "/etc/passwd",
        "' OR '1'='1",
        "rsa-1' UNION SELECT 'x",
        "",
        "http://evil.test/key",
        "rsa-1\x00",
        "rsa-1 ",
        "RSA-1",
        "rsa-1\n",
        "${jndi:ldap://evil}",
        "k" * 300,
        "%72sa-1",
        "rsa-2",
        "*",
        "\u202ersa-1",
    ):
        yield f"kid {kid[:24]!r}", signed(stranger, provider.claims(), {"kid": kid})
    for value in (1, True, ["rsa-1"], {"kid": "rsa-1"}, 1.5):
        header = {"alg": "RS256", "kid": value}
        yield f"kid of another type: {value!r}", f"{parts_of(header, provider.claims())}.AAAA"
    yield "no kid, and another key", signed(stranger, provider.claims(), {"kid": None})


def _headers(provider: Provider) -> Iterator[Named]:
    for name, value in (
        ("crit", ["exp"]),
        ("crit", []),
        ("crit", ["b64"]),
        ("b64", False),
        ("b64", True),
        ("enc", "A256GCM"),
        ("zip", "DEF"),
        ("cty", "JWT"),
        ("typ", "dpop+jwt"),
        ("typ", "logout+jwt"),
        ("typ", "JOSE"),
        ("typ", 5),
    ):
        header = b64(json.dumps({"alg": "RS256", "kid": "rsa-1", name: value}))
        _, payload, signature = provider.token().split(".")
        yield f"properly signed or not, {name} {value}", f"{header}.{payload}.{signature}"
    for text in ("[]", "1", '"RS256"', "null", "true", "{}", "", "{", '{"alg"}'):
        yield f"header {text!r}", f"{parts_of(text, provider.claims())}.AAAA"
    padded = {"alg": "RS256", "kid": "rsa-1", "x": "y" * 5000}
    many = {"alg": "RS256", "kid": "rsa-1", **{f"x{n}": n for n in range(40)}}
    yield "a header of too many members", f"{parts_of(many, provider.claims())}.AAAA"
    yield "properly signed, a JWT in the JWT", provider.token({"cty": "JWT"})
    yield "properly signed, no kid", provider.token({"kid": None})
    for typ in ("dpop+jwt", "logout+jwt", "secevent+jwt", "client-authentication+jwt"):
        yield f"properly signed, typ {typ}", provider.token({"typ": typ})
    yield "a header that is too long", f"{parts_of(padded, provider.claims())}.AAAA"


def _issuers(provider: Provider) -> Iterator[Named]:
    url = provider.url
    for iss in (
        f"{url}/",
        f"{url}/.",
        url.upper(),
        url.replace("https", "http"),
        f" {url}",
        f"{url} ",
        f"{url}#x",
        f"{url}?x",
        f"{url}:443",
        "https://evil.test",
        f"https://evil.test/{url}",
        "",
        f"{url}@evil.test",
        "null",
        f"{url}\x00",
        url.removeprefix("https://"),
        f"{url}.evil.test",
    ):
        yield f"properly signed, iss {iss[:40]!r}", provider.token(iss=iss)
    for value in (1, True, [url], {"iss": url}, 1.5):
        yield f"properly signed, iss of another type: {value!r}", provider.token(iss=value)
    yield "properly signed, no iss", provider.token(iss=None)


def _audiences(provider: Provider) -> Iterator[Named]:
    for aud in ("other", "", "Muniment", "muniment ", "muniment/", "*", "muniment,other"):
        yield f"properly signed, aud {aud!r}", provider.token(aud=aud)
    for value in (
        [],
        ["other"],
        1,
        True,
        {"aud": "muniment"},
        [["muniment"]],
        ["muniment", 1],
        1.5,
    ):
        yield f"properly signed, aud {value!r}", provider.token(aud=value)
    yield "properly signed, no aud", provider.token(aud=None)


def _times(provider: Provider) -> Iterator[Named]:
    now = int(time.time())
    times: list[tuple[str, Any]] = [
        ("exp", now - 61),
        ("exp", 0),
        ("exp", -1),
        ("exp", now + 10**6),
        ("exp", 10**400),
        ("exp", str(now + 600)),
        ("exp", True),
        ("exp", [now + 600]),
        ("exp", {}),
        ("exp", "never"),
        ("nbf", now + 90),
        ("nbf", 10**12),
        ("nbf", str(now)),
        ("nbf", True),
        ("nbf", []),
        ("iat", now + 90),
        ("iat", now - 10**6),
        ("iat", str(now)),
        ("iat", False),
        ("iat", {}),
        ("exp", 10**18),
        ("nbf", 10**400),
        ("iat", 10**400),
    ]
    for name, value in times:
        shown = f"{value}"[:24]
        yield f"properly signed, {name} {shown}", provider.token(None, **{name: value})
    yield "properly signed, no exp", provider.token(exp=None)
    yield "properly signed, no iat", provider.token(iat=None)
    for name in ("exp", "nbf", "iat"):
        for constant in ("NaN", "Infinity", "-Infinity", "1e400", "null"):
            claims = provider.claims(**{name: "@"})
            text = json.dumps(claims).replace('"@"', constant)
            if not (constant == "null" and name != "exp"):
                yield f"properly signed, {name} {constant}", signed(provider.key, text)


def _subjects(provider: Provider) -> Iterator[Named]:
    for value in (
        "",
        " ",
        "\t\n",
        "ana\nroot",
        "ana\x00",
        "s" * 600,
        1,
        True,
        ["ana"],
        {"sub": "ana"},
        1.5,
    ):
        yield f"properly signed, sub {str(value)[:12]!r}", provider.token(sub=value)
    yield "properly signed, no sub", provider.token(sub=None)


def _id_tokens(provider: Provider) -> Iterator[Named]:
    for name in ("nonce", "at_hash", "c_hash", "s_hash"):
        yield f"properly signed, an ID token by its {name}", provider.token(None, **{name: "x"})
    yield "properly signed, an ID token for the login", provider.token(aud="web", nonce="n")


def _signatures(provider: Provider) -> Iterator[Named]:
    good = provider.token()
    head, payload, signature = good.split(".")
    raw = bytearray(base64.urlsafe_b64decode(signature + "=="))
    for place in (0, 1, len(raw) // 2, len(raw) - 1):
        for bit in (1, 128):
            changed = bytearray(raw)
            changed[place] ^= bit
            yield f"bit {bit} of byte {place} flipped", f"{head}.{payload}.{b64(bytes(changed))}"
    for name, whole in (
        ("empty", b""),
        ("one byte", b"\0"),
        ("zeros", bytes(len(raw))),
        ("ones", b"\xff" * len(raw)),
        ("a byte short", bytes(raw[:-1])),
        ("a byte long", bytes(raw) + b"\0"),
        ("doubled", bytes(raw) * 2),
        ("reversed", bytes(raw[::-1])),
    ):
        yield f"signature {name}", f"{head}.{payload}.{b64(whole)}"
    other = provider.token(sub="ben").split(".")
    yield "another token's payload", f"{head}.{other[1]}.{signature}"
    yield "another token's signature", f"{head}.{payload}.{other[2]}"
    raised = provider.claims(groups=["admins"])
    yield "a payload with another group", f"{head}.{b64(json.dumps(raised))}.{signature}"
    yield "signed by another key under the known kid", signed(rsa("rsa-1"), provider.claims())


def _forms(provider: Provider) -> Iterator[Named]:
    good = provider.token()
    head, payload, signature = good.split(".")
    for name, text in (
        ("no segment", "eyJ"),
        ("one", head),
        ("two", f"{head}.{payload}"),
        ("two and a dot", f"{head}.{payload}."),
        ("four", f"{good}.AAAA"),
        ("five, as a JWE", f"{good}.AAAA.AAAA"),
        ("a dot before", f".{good}"),
        ("a dot after", f"{good}."),
        ("dots", "eyJ.."),
        ("a space before", f" {good}"),
        ("a space within", f"{head}. {payload}.{signature}"),
        ("a newline after", f"{good}\n"),
        ("padding", f"{head}.{payload}.{signature}=="),
        ("padding of the payload", f"{head}.{payload}==.{signature}"),
        ("standard base64", f"{head}.{payload}.{signature.replace('-', '+').replace('_', '/')}+/"),
        ("a NUL", f"{good}\x00"),
        ("not ASCII", f"{good}ü"),
        ("commas", good.replace(".", ",")),
        ("twice", f"{good} {good}"),
        ("quoted", f'"{good}"'),
        ("of JSON", json.dumps({"payload": payload, "protected": head}) + ".."),
        ("too long", provider.token(x="y" * 20_000)),
        ("no base64", f"{head}.!!!!.{signature}"),
        ("stray bits", f"{head}.{payload}.{signature[:-1]}{'B' if signature[-1] == 'A' else 'A'}B"),
        ("a nested token", signed(provider.key, good)),
    ):
        yield f"form: {name}", text


def _json(provider: Provider) -> Iterator[Named]:
    claims = provider.claims()
    text = json.dumps(claims)
    for name, payload in (
        ("a list", "[]"),
        ("a number", "1"),
        ("a text", '"x"'),
        ("null", "null"),
        ("empty", ""),
        ("cut off", text[:-1]),
        ("twice", text + text),
        ("sub twice", text[:-1] + ', "sub": "root"}'),
        ("iss twice", text[:-1] + ', "iss": "https://evil.test"}'),
        ("exp twice", text[:-1] + ', "exp": 99999999999}'),
        ("a comment", text + "//x"),
        ("single quotes", text.replace('"', "'")),
        ("of depth 40", text[:-1] + ', "x": ' + "[" * 40 + "]" * 40 + "}"),
        ("of many lists", text[:-1] + ', "x": [' + "[]," * 2000 + "[]]}"),
        ("a lone surrogate", text[:-1] + ', "x": "\\ud800"}'),
        ("deep", text[:-1] + ', "x": ' + "[" * 5000 + "]" * 5000 + "}"),
        ("NaN within", text[:-1] + ', "x": NaN}'),
        ("UTF-16", text.encode("utf-16")),
        ("no UTF-8", text.encode()[:-1] + b', "x": "\xff"}'),
    ):
        yield f"properly signed, payload {name}", signed(provider.key, payload)


def _bindings(provider: Provider) -> Iterator[Named]:
    bound: list[Any] = [
        {"jkt": "x"},
        {"jkt": 1},
        {"x5t#S256": "x"},
        {},
        "x",
        1,
        [],
        {"jwk": {}},
        {"jkt": None},
    ]
    for cnf in bound:
        yield f"properly signed, bound to a key: {cnf!r}", provider.token(cnf=cnf)


def _actors(provider: Provider) -> Iterator[Named]:
    acts: list[Any] = [
        *("x", 1, [], {}),
        *({"sub": ""}, {"sub": 1}, {"sub": "a", "iss": 1}, {"act": {}}),
    ]
    for act in acts:
        yield f"properly signed, act {act!r}", provider.token(act=act)

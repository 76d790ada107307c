"""A client's signed assertion (RFC 7523): who it is, proven with a private key.

The algorithm follows from the key: RS256 (RSA), ES256 (P-256), EdDSA (Ed25519). `cryptography`
comes with mlflow, and with mlflow-skinny through databricks-sdk and google-auth.
"""

from __future__ import annotations

import base64
import json
import secrets
import time
from typing import Any

from muniment_client.errors import NotConfigured

ASSERTION_TYPE = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
LIFE_S = 60
P256_BYTES = 32
CERTIFICATE = b"-----BEGIN CERTIFICATE-----"


def client_assertion(client_id: str, audience: str, pem: bytes, key_id: str | None = None) -> str:
    """A signed assertion for a token endpoint.

    pem: an unencrypted private key; if a certificate stands beside it, its thumbprint goes into
    the header, as Entra asks for. Raises NotConfigured when there is no usable key.
    """
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        key = load_pem_private_key(pem, password=None)
    except (ValueError, TypeError) as error:
        raise NotConfigured(
            "MUNIMENT_CLIENT_KEY_FILE holds no unencrypted private key in PEM form."
        ) from error
    now = int(time.time())
    header: dict[str, Any] = {"typ": "JWT", "alg": _algorithm(key)}
    if key_id is not None:
        header["kid"] = key_id
    if CERTIFICATE in pem:
        header["x5t#S256"] = _thumbprint(pem)
    claims = {
        "iss": client_id,
        "sub": client_id,
        "aud": audience,
        "jti": secrets.token_urlsafe(16),
        "iat": now,
        "exp": now + LIFE_S,
    }
    signed = f"{_part(_json(header))}.{_part(_json(claims))}"
    return f"{signed}.{_part(_signature(key, signed.encode()))}"


def _algorithm(key: object) -> str:
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

    if isinstance(key, rsa.RSAPrivateKey):
        return "RS256"
    if isinstance(key, ec.EllipticCurvePrivateKey) and isinstance(key.curve, ec.SECP256R1):
        return "ES256"
    if isinstance(key, ed25519.Ed25519PrivateKey):
        return "EdDSA"
    raise NotConfigured("MUNIMENT_CLIENT_KEY_FILE: use an RSA, P-256 or Ed25519 key.")


def _signature(key: object, data: bytes) -> bytes:
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa, utils

    if isinstance(key, rsa.RSAPrivateKey):
        return key.sign(data, padding.PKCS1v15(), hashes.SHA256())
    if isinstance(key, ec.EllipticCurvePrivateKey):
        # JWS wants the two numbers side by side, not ASN.1 (RFC 7518, 3.4).
        r, s = utils.decode_dss_signature(key.sign(data, ec.ECDSA(hashes.SHA256())))
        return r.to_bytes(P256_BYTES, "big") + s.to_bytes(P256_BYTES, "big")
    assert isinstance(key, ed25519.Ed25519PrivateKey)
    return key.sign(data)


def _thumbprint(pem: bytes) -> str:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes

    certificate = x509.load_pem_x509_certificate(pem[pem.index(CERTIFICATE) :])
    return _part(certificate.fingerprint(hashes.SHA256()))


def _json(value: dict[str, Any]) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def _part(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()

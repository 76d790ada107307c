"""A Kafka broker that asks who one is: TLS, SASL of every kind, access control lists.

Everything is made for the test: an authority and certificates, users, and a small issuer of tokens
(OAuth client credentials and a JWKS) for OAUTHBEARER.
"""

from __future__ import annotations

import base64
import datetime
import http.server
import ipaddress
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID
from joserfc import jwt
from joserfc.jwk import RSAKey
from local_kafka import HOST, Cluster, free_port

from harness.brokers import awaited

USER, PASSWORD = "ledger", "ledger-pw"
CLIENT_ID, CLIENT_SECRET = "muniment", "client-secret"
AUDIENCE = "kafka"
TOKEN_LIFE_S = 120


@dataclass(frozen=True, slots=True)
class Pki:
    """PEM files: an authority, a broker's key and certificate in one, a client's, a stranger's."""

    ca: Path
    broker: Path
    client_cert: Path
    client_key: Path
    other_ca: Path


def make_pki(folder: Path) -> Pki:
    """Keys and certificates for 127.0.0.1, good for a day."""
    ca_key, ca = _authority("ours")
    _, other = _authority("somebody else's")
    broker_key, broker = _issued("broker", ca_key, ca)
    client_key, client = _issued("client", ca_key, ca)
    files = {
        "ca.pem": _pem(ca),
        "other-ca.pem": _pem(other),
        "broker.pem": _key_pem(broker_key) + _pem(broker),
        "client.pem": _pem(client),
        "client.key": _key_pem(client_key),
    }
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return Pki(
        folder / "ca.pem",
        folder / "broker.pem",
        folder / "client.pem",
        folder / "client.key",
        folder / "other-ca.pem",
    )


def _name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])


def _builder(subject: str, issuer: x509.Name, key: rsa.RSAPrivateKey) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(_name(subject))
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=1))
    )


def _authority(name: str) -> tuple[rsa.RSAPrivateKey, x509.Certificate]:
    key = rsa.generate_private_key(65537, 2048)
    builder = _builder(name, _name(name), key).add_extension(
        x509.BasicConstraints(ca=True, path_length=None), critical=True
    )
    return key, builder.sign(key, hashes.SHA256())


def _issued(
    name: str, ca_key: rsa.RSAPrivateKey, ca: x509.Certificate
) -> tuple[rsa.RSAPrivateKey, x509.Certificate]:
    key = rsa.generate_private_key(65537, 2048)
    address = x509.IPAddress(ipaddress.ip_address(HOST))
    builder = _builder(name, ca.subject, key).add_extension(
        x509.SubjectAlternativeName([address]), critical=False
    )
    return key, builder.sign(ca_key, hashes.SHA256())


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _key_pem(key: rsa.RSAPrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


class Issuer:
    """Answers POST /token (client credentials, RFC 6749 4.4) and GET /jwks."""

    def __init__(self) -> None:
        self.port = free_port()
        self.url = f"http://{HOST}:{self.port}"
        self.audience = AUDIENCE
        self.issued = 0
        self._key = RSAKey.generate_key(2048, {"kid": "k1", "use": "sig", "alg": "RS256"})
        issuer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self._answer(200, {"keys": [issuer._key.as_dict(private=False)]})

            def do_POST(self) -> None:
                form = parse_qs(self.rfile.read(int(self.headers["content-length"])).decode())
                given = self.headers.get("authorization", "").removeprefix("Basic ")
                if base64.b64decode(given).decode() != f"{CLIENT_ID}:{CLIENT_SECRET}":
                    self._answer(401, {"error": "invalid_client"})
                elif form.get("grant_type") != ["client_credentials"]:
                    self._answer(400, {"error": "unsupported_grant_type"})
                else:
                    self._answer(200, issuer._token())

            def _answer(self, status: int, body: dict[str, Any]) -> None:
                content = json.dumps(body).encode()
                self.send_response(status)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_: object) -> None:
                """Nothing."""

        self._server = http.server.ThreadingHTTPServer((HOST, self.port), Handler)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def _token(self) -> dict[str, Any]:
        self.issued += 1
        now = int(time.time())
        claims = {
            "iss": self.url,
            "sub": CLIENT_ID,
            "aud": self.audience,
            "iat": now,
            "exp": now + TOKEN_LIFE_S,
        }
        token = jwt.encode({"alg": "RS256", "kid": "k1"}, claims, self._key, algorithms=["RS256"])
        return {"access_token": token, "token_type": "Bearer", "expires_in": TOKEN_LIFE_S}

    def close(self) -> None:
        """Answer nothing more."""
        self._server.shutdown()
        self._server.server_close()


@dataclass(frozen=True, slots=True)
class SecureBroker:
    """A running broker with one SASL_SSL listener and one for mutual TLS."""

    sasl: str
    mutual_tls: str
    pki: Pki
    issuer: Issuer


@contextmanager
def secure_broker(folder: Path) -> Iterator[SecureBroker]:
    """A broker with users USER (PLAIN, SCRAM) and CLIENT_ID (OAUTHBEARER), both super users."""
    pki = make_pki(folder)
    issuer = Issuer()
    mutual = free_port()
    scram = [f"SCRAM-SHA-{bits}=[name={USER},password={PASSWORD}]" for bits in (256, 512)]
    options = [part for credential in scram for part in ("--add-scram", credential)]
    cluster = Cluster(
        folder / "kafka",
        properties=_properties(pki, issuer, mutual),
        format_options=options,
    )
    cluster.start()
    try:
        awaited(lambda: cluster.brokers[1].is_running, "the broker does not run")
        yield SecureBroker(cluster.bootstrap, f"{HOST}:{mutual}", pki, issuer)
    finally:
        cluster.stop(at_once=True)
        issuer.close()


def _properties(pki: Pki, issuer: Issuer, mutual: int) -> dict[str, str]:
    login = "org.apache.kafka.common.security"
    listener = "listener.name.sasl_ssl"
    return {
        "listeners": f"SASL_SSL://{HOST}:{{port}},SSL://{HOST}:{mutual},"
        f"CONTROLLER://{HOST}:{{controller}}",
        "advertised.listeners": f"SASL_SSL://{HOST}:{{port}},SSL://{HOST}:{mutual}",
        "listener.security.protocol.map": "SASL_SSL:SASL_SSL,SSL:SSL,CONTROLLER:PLAINTEXT",
        "inter.broker.listener.name": "SASL_SSL",
        "ssl.keystore.type": "PEM",
        "ssl.keystore.location": str(pki.broker),
        "ssl.truststore.type": "PEM",
        "ssl.truststore.location": str(pki.ca),
        "listener.name.ssl.ssl.client.auth": "required",
        "sasl.enabled.mechanisms": "PLAIN,OAUTHBEARER,SCRAM-SHA-256,SCRAM-SHA-512",
        "sasl.mechanism.inter.broker.protocol": "PLAIN",
        f"{listener}.plain.sasl.jaas.config": f"{login}.plain.PlainLoginModule required "
        f'username="admin" password="admin-pw" user_admin="admin-pw" user_{USER}="{PASSWORD}";',
        f"{listener}.scram-sha-256.sasl.jaas.config": f"{login}.scram.ScramLoginModule required;",
        f"{listener}.scram-sha-512.sasl.jaas.config": f"{login}.scram.ScramLoginModule required;",
        f"{listener}.oauthbearer.sasl.jaas.config": f"{login}.oauthbearer.OAuthBearerLoginModule "
        "required;",
        f"{listener}.oauthbearer.sasl.server.callback.handler.class": f"{login}.oauthbearer."
        "OAuthBearerValidatorCallbackHandler",
        f"{listener}.oauthbearer.sasl.oauthbearer.jwks.endpoint.url": f"{issuer.url}/jwks",
        f"{listener}.oauthbearer.sasl.oauthbearer.expected.audience": AUDIENCE,
        f"{listener}.oauthbearer.sasl.oauthbearer.expected.issuer": issuer.url,
        "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
        "super.users": f"User:admin;User:ANONYMOUS;User:{USER};User:{CLIENT_ID};User:CN=client",
    }

"""How brokers are reached: addresses, TLS, SASL, and what went wrong in words that help.

kafka-python answers a wrong password, a wrong certificate and a dead broker alike, with a time-out;
why is in its log lines only. `connected` listens to those while a client is made, and gives up at
once when they name something that waiting does not mend.
"""

from __future__ import annotations

import logging
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import httpx
from kafka.errors import KafkaConfigurationError, KafkaError, KafkaTimeoutError
from kafka.net.sasl.oauth import AbstractTokenProvider

from muniment_services.log.base import LogUnavailable

BOOTSTRAP_MS = 4_000
"""How long one try to find the cluster may take."""

REQUEST_MS = 8_000
"""How long a broker may take to answer one request."""

RECONNECT_MS_MAX = 1_000
"""A broker that was down is tried again so often: it decides how soon we notice that it is back."""

METADATA_MS_MAX = 30_000
"""Leaders and topics are asked for anew at least so often."""

TOKEN_S_LEFT_MIN = 30.0
"""A token with less life than this left is replaced before it is used."""

TOKEN_CALL_S = 5.0

SIGNS_OF_REFUSAL: Mapping[str, str] = {
    "SaslAuthenticationFailed": "the brokers refuse our user name or password (kafka_username, "
    "kafka_password)",
    "UnsupportedSaslMechanism": "the brokers do not offer kafka_sasl_mechanism",
    "CERTIFICATE_VERIFY_FAILED": "the brokers' certificate is not trusted; name the authority that "
    "signed it in kafka_ca_file",
    "Hostname mismatch": "the brokers' certificate is of another host name than kafka_bootstrap "
    "says",
    "certificate required": "the brokers want a certificate of ours (kafka_cert_file, "
    "kafka_key_file)",
    "CERTIFICATE_REQUIRED": "the brokers want a certificate of ours (kafka_cert_file, "
    "kafka_key_file)",
    "bad certificate": "the brokers refuse our certificate (kafka_cert_file)",
    "WRONG_VERSION_NUMBER": "the brokers do not speak TLS at this port; see "
    "kafka_security_protocol",
    "token endpoint": "no token can be had",
    "Invalid frame length": "the brokers speak something else than kafka_security_protocol says at "
    "this port",
    "ClusterAuthorizationFailed": "our principal may not use this cluster",
}
"""What stands in kafka-python's messages when waiting does not help, and what to tell."""

HANGING_UP_MIN = 3
"""A broker that hangs up so often in one try, after it has told its version, refuses us: what it
said is lost when it closes the connection behind it."""

HUNG_UP = "broker_version=("

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Brokers:
    """A cluster and how to speak to it; the fields are the settings of the same names."""

    bootstrap: tuple[str, ...]
    security_protocol: str = "PLAINTEXT"
    ca_file: Path | None = None
    cert_file: Path | None = None
    key_file: Path | None = None
    sasl_mechanism: str | None = None
    username: str | None = None
    password: str | None = None
    token_url: str | None = None
    token_scope: str | None = None

    def options(self) -> dict[str, Any]:
        """What every client of kafka-python is given. Raises LogUnavailable for unusable files."""
        options: dict[str, Any] = {
            "bootstrap_servers": list(self.bootstrap),
            "client_id": "muniment",
            "security_protocol": self.security_protocol,
            "bootstrap_timeout_ms": BOOTSTRAP_MS,
            "request_timeout_ms": REQUEST_MS,
            "reconnect_backoff_max_ms": RECONNECT_MS_MAX,
            "metadata_max_age_ms": METADATA_MS_MAX,
        }
        if self.security_protocol.endswith("SSL"):
            options["ssl_context"] = self._ssl_context()
        if self.security_protocol.startswith("SASL"):
            options |= self._sasl()
        return options

    def _ssl_context(self) -> ssl.SSLContext:
        try:
            context = ssl.create_default_context(
                cafile=None if self.ca_file is None else str(self.ca_file)
            )
            if self.cert_file is not None:
                context.load_cert_chain(self.cert_file, self.key_file)
        except (OSError, ssl.SSLError) as error:
            raise LogUnavailable(
                f"kafka_ca_file, kafka_cert_file or kafka_key_file cannot be used: {error}"
            ) from error
        return context

    def _sasl(self) -> dict[str, Any]:
        if self.sasl_mechanism == "OAUTHBEARER":
            return {
                "sasl_mechanism": "OAUTHBEARER",
                "sasl_oauth_token_provider": _Tokens(self),
            }
        return {
            "sasl_mechanism": self.sasl_mechanism,
            "sasl_plain_username": self.username,
            "sasl_plain_password": self.password,
        }


class _Tokens(AbstractTokenProvider):  # type: ignore[misc]
    """Access tokens by client credentials (RFC 6749, 4.4), each used until it is nearly over."""

    def __init__(self, brokers: Brokers) -> None:
        super().__init__()
        self._brokers = brokers
        self._lock = threading.Lock()
        self._token = ""
        self._good_until = 0.0

    def token(self) -> str:
        """A token that is still good. Raises KafkaError when none can be had."""
        with self._lock:
            if time.monotonic() >= self._good_until:
                self._fetch()
            return self._token

    def _fetch(self) -> None:
        brokers = self._brokers
        form = {"grant_type": "client_credentials"}
        if brokers.token_scope is not None:
            form["scope"] = brokers.token_scope
        try:
            answer = httpx.post(
                brokers.token_url or "",
                data=form,
                auth=(brokers.username or "", brokers.password or ""),
                timeout=TOKEN_CALL_S,
            )
            answer.raise_for_status()
            found = answer.json()
            self._token = found["access_token"]
            life_s = float(found.get("expires_in", 60.0))
        except (httpx.HTTPError, httpx.InvalidURL, ValueError, KeyError, TypeError) as error:
            # The secret is in the request, never in what these errors say.
            raise KafkaError(
                f"the token endpoint {brokers.token_url} gives no token: {error}"
            ) from error
        self._good_until = time.monotonic() + max(life_s - TOKEN_S_LEFT_MIN, life_s / 2)


def connected(brokers: Brokers, make: Callable[[], T], within_s: float = 10.0) -> T:
    """Make a client; try again while the brokers cannot be reached.

    Raises LogUnavailable after `within_s` seconds, or at once when waiting would not help (a wrong
    password, an untrusted certificate), in words that say what to do.
    """
    deadline = time.monotonic() + within_s
    while True:
        with _listening() as heard:
            try:
                return make()
            except KafkaConfigurationError:
                raise
            except (KafkaError, OSError) as error:
                reason = refusal("\n".join([*heard, repr(error), repr(error.__cause__)]))
                if reason is None and time.monotonic() < deadline:
                    if not isinstance(error, KafkaTimeoutError):
                        time.sleep(0.2)
                    continue
                why = reason or _guess(heard) or f"no broker answers: {error}"
                raise LogUnavailable(f"{', '.join(brokers.bootstrap)}: {why}") from error


def refusal(text: str) -> str | None:
    """What to tell when a message of kafka-python names something that waiting does not mend."""
    found = next((told for sign, told in SIGNS_OF_REFUSAL.items() if sign in text), None)
    if found is None:
        lost = [line for line in text.splitlines() if HUNG_UP in line and "Connection lost" in line]
        if len(lost) < HANGING_UP_MIN:
            return None
        return (
            "the brokers hang up when we say who we are; most likely they refuse our user name, "
            "password or token (kafka_username, kafka_password, kafka_token_url), or want none at "
            "this port (kafka_security_protocol)"
        )
    line = next((line for line in text.splitlines() if "token endpoint" in line), "")
    return f"{found}: {line}" if line else found


def _guess(heard: list[str]) -> str | None:
    hung_up = [line for line in heard if "socket disconnected" in line]
    if len(hung_up) < HANGING_UP_MIN:
        return None
    return (
        "the brokers take connections and hang up; most likely they speak something else than "
        "kafka_security_protocol says at this port"
    )


@contextmanager
def _listening() -> Iterator[list[str]]:
    """Collects what kafka-python logs meanwhile, in any thread, whatever is shown of it."""
    heard: list[str] = []

    class Listener(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            heard.append(record.getMessage())

    listener = Listener(logging.WARNING)
    logger = logging.getLogger("kafka")
    logger.addHandler(listener)
    try:
        yield heard
    finally:
        logger.removeHandler(listener)

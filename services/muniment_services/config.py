"""Settings: one typed model, read once from flags, environment, a TOML file and defaults.

Order of precedence: command line, environment (`MUNIMENT_…`), file (`--config` or MUNIMENT_CONFIG),
default. `muniment config show` prints each with its origin.
"""

from __future__ import annotations

import difflib
import json
import os
import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    model_validator,
)
from pydantic_core import PydanticCustomError

from muniment_auth.issuers import Issuer, is_loopback
from muniment_services.clients import Proxies
from muniment_services.config_audit import AuditRuleSettings
from muniment_services.config_issuers import IssuerSettings, repeated
from muniment_services.redaction import LOGGED_DEFAULT, SENSITIVE_DEFAULT

ENVIRONMENT_PREFIX = "MUNIMENT_"
CONFIG_VARIABLE = f"{ENVIRONMENT_PREFIX}CONFIG"
TOKEN_VARIABLE = f"{ENVIRONMENT_PREFIX}TOKEN"
SERVER_VARIABLE = f"{ENVIRONMENT_PREFIX}SERVER"
"""What the command line shows to servers that it talks to; no setting."""
MEMORY_PATTERN = r"^\d+(\.\d+)? ?[KMGT]i?B$"
TOPIC_PATTERN = r"^[a-zA-Z0-9_-][a-zA-Z0-9._-]{0,199}$"
ORIGIN_PATTERN = r"^[!-*,-~]{1,150}$"
BROKER_PATTERN = r"^(\[[0-9a-fA-F:.]+\]|[^:/\s]+):\d{1,5}$"

TABLES = frozenset({"audit_rules", "issuers"})
"""Settings that only the file can give."""

LISTS = frozenset(
    {"allowed_hosts", "audit_sensitive", "kafka_bootstrap", "log_sensitive", "trusted_proxies"}
)
"""Settings that the environment gives as one text, with commas between."""

URLS_WITH_CREDENTIALS = ("schema_registry",)
"""Settings whose URLs may hold a user name and a password."""

SECRETS = frozenset({"kafka_password", "login_client_secret", "signing_keys"})
"""Settings that are never shown."""


OF_CALLERS = (
    "issuer", "audience", "admin_group", "login_client", "login_client_secret", "cli_client",
    "issuers",
)  # fmt: skip
"""Settings that say who may call; no process but the server needs them."""


class ConfigError(Exception):
    """A setting is wrong; the message says which, where it came from and what to do."""


class Settings(BaseModel):
    """All settings of the server."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    host: str = Field(default="127.0.0.1", description="Address to listen on.")
    port: int = Field(
        default=5000, ge=0, le=65535, description="Port to listen on; 0 picks a free one."
    )
    data_dir: Path = Field(
        default=Path("./muniment-data"),
        description="Folder of the log, the projections and the artifacts.",
    )
    log: Literal["embedded", "kafka"] = Field(
        default="embedded",
        description="Where events are kept: embedded (a file in data_dir, one process) or kafka.",
    )
    kafka_bootstrap: tuple[Annotated[str, Field(pattern=BROKER_PATTERN)], ...] = Field(
        default=(), description="Brokers to begin with, as HOST:PORT,HOST:PORT."
    )
    kafka_prefix: str = Field(
        default="muniment",
        pattern=TOPIC_PATTERN,
        description="What the names of our topics begin with: PREFIX.catalog, PREFIX.runs, …",
    )
    kafka_replication: int | None = Field(
        default=None,
        ge=1,
        le=32,
        description="Replicas of each topic that we create; as many as there are brokers, up to 3, "
        "if not given.",
    )
    kafka_security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = Field(
        default="PLAINTEXT",
        description="How to speak to brokers: PLAINTEXT, SSL, SASL_PLAINTEXT or SASL_SSL.",
    )
    kafka_ca_file: Path | None = Field(
        default=None, description="PEM file with the authorities that brokers are trusted by."
    )
    kafka_cert_file: Path | None = Field(
        default=None, description="PEM file with our own certificate, for mutual TLS."
    )
    kafka_key_file: Path | None = Field(
        default=None, description="PEM file with the key of our own certificate."
    )
    kafka_sasl_mechanism: (
        Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER"] | None
    ) = Field(default=None, description="PLAIN, SCRAM-SHA-256, SCRAM-SHA-512 or OAUTHBEARER.")
    kafka_username: str | None = Field(
        default=None, description="User name at the brokers; for OAUTHBEARER, the client id."
    )
    kafka_password: SecretStr | None = Field(
        default=None,
        description="Password at the brokers; for OAUTHBEARER, the client secret. Not an option of "
        "the command line, where others could read it.",
    )
    kafka_token_url: str | None = Field(
        default=None, description="OAUTHBEARER: where tokens come from (client credentials)."
    )
    kafka_token_scope: str | None = Field(
        default=None, description="OAUTHBEARER: the scope to ask for."
    )
    schema_registry: str | None = Field(
        default=None,
        description="URL of a Confluent-compatible schema registry. Events are then framed as "
        "Confluent's clients expect them, and their schemas registered there.",
    )
    artifacts: str | None = Field(
        default=None,
        description="Where artifacts are kept: a folder, or s3://, gs:// or az://BUCKET/PREFIX. "
        "Replicas need one place for all. The folder artifacts in data_dir, if not given.",
    )
    keys: str | None = Field(
        default=None,
        description="Where the keys are kept that say who principals are: a folder, or s3://, "
        "gs:// or az://BUCKET/PREFIX. Replicas need one place for all. The folder keys in "
        "data_dir, if not given.",
    )
    snapshots: str | None = Field(
        default=None,
        description="Where snapshots of the projections are kept, named as artifacts are. The "
        "folder snapshots in data_dir, if not given.",
    )
    proof: bool = Field(
        default=True,
        description="Whether the log's trees are kept and their heads signed, so that what is "
        "recorded can be proved.",
    )
    proof_origin: str | None = Field(
        default=None,
        pattern=ORIGIN_PATTERN,
        description="What names this log in signed heads, as log.example/ml; /TOPIC/PARTITION "
        "follows. muniment.LOG-ID, if not given.",
    )
    signing_keys: SecretStr | None = Field(
        default=None,
        description="Keys that sign the log's heads, each 32 random bytes in base64, the newest "
        "last, with commas between. In the place of keys, if not given. Not an option of the "
        "command line, where others could read it.",
    )
    signing_ml_dsa: bool = Field(
        default=False,
        description="Whether heads are also signed with ML-DSA-44, which quantum computers do not "
        "break.",
    )
    witness_policy: Path | None = Field(
        default=None,
        description="File that says which witnesses cosign the log's heads, and how many of them "
        "it takes (C2SP tlog-policy).",
    )
    stale_reads: bool = Field(
        default=True,
        description="Whether reads are answered, and marked as stale, while the log cannot be "
        "asked what is new.",
    )
    allowed_hosts: tuple[str, ...] = Field(
        default=(),
        description="Names that the server is known by, besides loopback ones; * allows any.",
    )
    access_file: Path | None = Field(
        default=None,
        description="TOML file with roles and grants that the server makes at its start, unless "
        "they are there. What is taken out of the file is not revoked.",
    )
    allow_unauthenticated_network_access: bool = Field(
        default=False,
        description="Listen beyond loopback although nobody has to sign in. Anyone who reaches the "
        "port can then read and change everything.",
    )
    issuer: str | None = Field(
        default=None,
        description="Identity provider whose tokens callers present: exactly what they have as "
        "iss. Several are tables [[issuers]] of the TOML file.",
    )
    audience: str | None = Field(
        default=None, description="What the issuer's tokens have as aud, meant for this server."
    )
    admin_group: str | None = Field(
        default=None, description="Group of the issuer whose members are admins."
    )
    login_client: str | None = Field(
        default=None, description="This server's client id at the issuer, for logins by browser."
    )
    login_client_secret: SecretStr | None = Field(
        default=None,
        description="Secret of login_client, if it has one. Not an option of the command line, "
        "where others could read it.",
    )
    public_url: str | None = Field(
        default=None,
        description="How browsers know this server, as https://muniment.example: where logins come "
        "back to. http://HOST:PORT, if not given.",
    )
    cli_client: str | None = Field(
        default=None,
        description="A public client id at the issuer, which muniment-client logs people in with.",
    )
    token_groups_days: int = Field(
        default=30,
        ge=0,
        le=366,
        description="Days after its owner's latest sign-in for which a token of muniment's own "
        "holds what the owner's groups and claims give; what is granted to the owner itself it "
        "holds as long as it lives.",
    )
    workspaces: bool = Field(
        default=False,
        description="Whether there are workspaces: parts of the server that do not see each other, "
        "as MLflow has them.",
    )
    issuers: tuple[IssuerSettings, ...] = Field(
        default=(),
        description="Identity providers, as tables [[issuers]] with url, audience, profile, …",
    )
    audit_mode: Literal["strict", "degraded"] = Field(
        default="strict",
        description="What happens to calls that cannot be recorded: strict (they are not answered) "
        "or degraded (they are answered, counted, and the trail says how many are missing).",
    )
    audit_rules: tuple[AuditRuleSettings, ...] = Field(
        default=(),
        description="How much of which calls is recorded, as tables [[audit_rules]] with level, "
        "permissions and routes; the first that matches decides.",
    )
    audit_sensitive: tuple[str, ...] | None = Field(
        default=None,
        description="Patterns of keys whose values the trail keeps as keyed hashes only; those of "
        "passwords, secrets, tokens and keys, if not given.",
    )
    log_sensitive: tuple[str, ...] | None = Field(
        default=None,
        description="Patterns of keys of params and tags whose values are logged as keyed hashes "
        "only; those that end as passwords, secrets and keys do, if not given.",
    )
    trusted_proxies: tuple[str, ...] = Field(
        default=(),
        description="Addresses and networks of proxies that are believed about where requests come "
        "from.",
    )
    runs_partitions: int = Field(
        default=6,
        ge=1,
        le=256,
        description="Partitions of the runs topic; fixed when the log is created.",
    )
    projections_memory: str = Field(
        default="2GB",
        pattern=MEMORY_PATTERN,
        description="Memory that DuckDB may use for the projections, as 512MB or 4GB.",
    )
    shutdown_s: int = Field(
        default=4,
        ge=0,
        le=600,
        description="Seconds that requests under way get to finish on SIGTERM.",
    )
    drain_s: int = Field(
        default=0,
        ge=0,
        le=300,
        description="Seconds that /readyz says 503 on SIGTERM while requests are still served, so "
        "that a load balancer turns away first.",
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="Least level of what is logged: debug, info, warning or error."
    )

    @model_validator(mode="after")
    def _fit_together(self) -> Settings:
        problem = next(_misfits(self), None)
        if problem is not None:
            raise PydanticCustomError("misfit", "{problem}", {"problem": problem})
        return self

    def shown(self) -> dict[str, Any]:
        """All settings as they may be shown: passwords are not, nor those that stand in URLs."""
        values = self.model_dump(mode="json")
        for name in URLS_WITH_CREDENTIALS:
            if values[name] is not None:
                values[name] = re.sub(r"//[^/@]*@", "//…@", values[name])
        return values

    def for_a_process_of_ours(self) -> bytes:
        """The settings that a child process needs, secrets included, as JSON: for its stdin."""
        values = self.model_dump(mode="json", exclude=set(OF_CALLERS))
        values.pop("signing_keys")
        if self.kafka_password is not None:
            values["kafka_password"] = self.kafka_password.get_secret_value()
        return json.dumps(values).encode()

    def logged_sensitive(self) -> tuple[str, ...]:
        """Patterns of keys whose values never come into the log; none, if the setting is empty."""
        return LOGGED_DEFAULT if self.log_sensitive is None else self.log_sensitive

    def recorded_sensitive(self) -> tuple[str, ...]:
        """Patterns of keys whose values the trail of calls never has in clear: those too."""
        return (*(self.audit_sensitive or SENSITIVE_DEFAULT), *self.logged_sensitive())

    def all_issuers(self) -> tuple[Issuer, ...]:
        """The issuers that callers' tokens may come from; none: nobody has to sign in."""
        return tuple(settings.issuer() for settings in (*self._by_flags(), *self.issuers))

    def _by_flags(self) -> Iterator[IssuerSettings]:
        if self.issuer is not None:
            yield IssuerSettings(
                url=self.issuer,
                audience=self.audience or "",
                admin_group=self.admin_group,
                client_id=self.login_client,
                client_secret=self.login_client_secret,
                cli_client_id=self.cli_client,
            )


def _misfits(settings: Settings) -> Iterator[str]:
    """What is wrong with settings that are right one by one."""
    if settings.log == "kafka" and not settings.kafka_bootstrap:
        yield "log=kafka needs kafka_bootstrap, as HOST:PORT,HOST:PORT"
    if settings.log == "embedded" and settings.kafka_bootstrap:
        yield "kafka_bootstrap is given, but log=embedded; say --log kafka to keep events there"
    with_sasl = settings.kafka_security_protocol.startswith("SASL")
    if with_sasl and settings.kafka_sasl_mechanism is None:
        yield f"{settings.kafka_security_protocol} needs kafka_sasl_mechanism"
    if settings.kafka_sasl_mechanism is not None and not with_sasl:
        yield "kafka_sasl_mechanism needs kafka_security_protocol SASL_SSL or SASL_PLAINTEXT"
    if settings.kafka_username is not None and not with_sasl:
        yield "kafka_username needs kafka_security_protocol SASL_SSL or SASL_PLAINTEXT"
    if with_sasl and (settings.kafka_username is None or settings.kafka_password is None):
        yield f"{settings.kafka_sasl_mechanism} needs kafka_username and kafka_password"
    if settings.kafka_sasl_mechanism == "OAUTHBEARER" and settings.kafka_token_url is None:
        yield "OAUTHBEARER needs kafka_token_url"
    if (settings.kafka_cert_file is None) != (settings.kafka_key_file is None):
        yield "kafka_cert_file and kafka_key_file go together"
    try:
        Proxies(settings.trusted_proxies)
    except ValueError as error:
        yield f"trusted_proxies: {error}"
    yield from _misfits_of_callers(settings)


def _misfits_of_callers(settings: Settings) -> Iterator[str]:
    if settings.issuer is None:
        for name in OF_CALLERS:
            if name not in ("issuer", "issuers") and getattr(settings, name) is not None:
                there = "; in [[issuers]] each has its own" if settings.issuers else ""
                yield f"{name} needs issuer{there}"
        if not settings.issuers:
            return
    elif not settings.audience:
        yield (
            "issuer needs audience: what its tokens have as aud. Without it, a token that was made "
            "for any other service would be good here"
        )
        return
    try:
        issuers = settings.all_issuers()
    except ValidationError as error:
        yield error.errors()[0]["msg"]
        return
    if (twice := repeated(issuers)) is not None:
        yield f"two issuers have {twice} in common; each needs its own url and name"
    if sum(issuer.introspect for issuer in issuers) > 1:
        yield "introspect is for one issuer: two would be shown each other's tokens"


@dataclass(frozen=True, slots=True)
class Loaded:
    """Settings and, for each, where its value came from."""

    settings: Settings
    origins: Mapping[str, str]


def load(
    flags: Mapping[str, Any], environment: Mapping[str, str], config_file: Path | None
) -> Loaded:
    """Read all sources. flags: those given on the command line. Raises ConfigError."""
    file = config_file or _path(environment.get(CONFIG_VARIABLE))
    values: dict[str, Any] = {}
    origins = dict.fromkeys(Settings.model_fields, "default")
    sources = (
        (str(file), _from_file(file)),
        ("environment", _from_environment(environment)),
        ("command line", dict(flags)),
    )
    for origin, given in sources:
        values.update(given)
        origins.update(dict.fromkeys(given, origin))
    try:
        return Loaded(Settings(**values), origins)
    except ValidationError as error:
        first = error.errors()[0]
        if first["type"] == "misfit":
            raise ConfigError(f"{first['msg']}.") from None
        name = str(first["loc"][0])
        if name not in Settings.model_fields:
            raise ConfigError(_unknown(name, origins[name])) from None
        if first["type"] == "extra_forbidden":
            raise ConfigError(_unknown_key(name, str(first["loc"][-1]))) from None
        shown = "that" if name in SECRETS else repr(first["input"])
        wrong = f"{name} (from {origins[name]}) cannot be {shown}: {first['msg']}."
        raise ConfigError(wrong) from None


def unknown_variables(environment: Mapping[str, str]) -> list[str]:
    """Variables that look like settings and are none: most likely a slip of the pen."""
    settings = (f"{ENVIRONMENT_PREFIX}{name.upper()}" for name in Settings.model_fields)
    known = {CONFIG_VARIABLE, TOKEN_VARIABLE, SERVER_VARIABLE, *settings}
    return sorted(
        name for name in environment if name.startswith(ENVIRONMENT_PREFIX) and name not in known
    )


def _unknown(name: str, origin: str) -> str:
    close = difflib.get_close_matches(name, Settings.model_fields)
    meant = f"Did you mean {close[0]}?" if close else "`muniment config show` lists all."
    return f"{name} (from {origin}) is not a setting. {meant}"


def _unknown_key(table: str, key: str) -> str:
    (kind, *_) = get_args(Settings.model_fields[table].annotation)
    return f"[[{table}]] has no {key}. It has: {', '.join(sorted(kind.model_fields))}."


def refuse_open_network(settings: Settings) -> None:
    """Raise ConfigError for a listener beyond loopback that nobody has to sign in to."""
    if (
        settings.all_issuers()
        or is_loopback(settings.host)
        or settings.allow_unauthenticated_network_access
    ):
        return
    raise ConfigError(
        f"--host {settings.host} would let anyone on the network read and change everything, since "
        "nobody has to sign in. Name an identity provider (--issuer URL --audience NAME), listen "
        "on 127.0.0.1 behind a proxy that authenticates, or say "
        "--allow-unauthenticated-network-access."
    )


def _path(text: str | None) -> Path | None:
    return Path(text) if text else None


def _from_file(path: Path | None) -> dict[str, Any]:
    if path is None:
        return {}
    try:
        return tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path} is not valid TOML: {error}") from None


def _from_environment(environment: Mapping[str, str]) -> dict[str, Any]:
    given: dict[str, Any] = {}
    for name in Settings.model_fields:
        value = environment.get(f"{ENVIRONMENT_PREFIX}{name.upper()}")
        if value is not None and name not in TABLES:
            given[name] = tuple(value.split(",")) if name in LISTS else value
    return given


def environment() -> Mapping[str, str]:
    """The process's environment."""
    return os.environ

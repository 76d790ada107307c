"""Options that several commands have, and the settings that they lead to."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from muniment_services.cli.terminal import CliError

if TYPE_CHECKING:
    from muniment_services.config import Settings

DataDir = Annotated[
    Path | None,
    Parameter(help="Folder of the log and all that is made of it. [default: ./muniment-data]"),
]
Config = Annotated[Path | None, Parameter(help="TOML file with settings. [default: none]")]
Url = Annotated[
    str | None, Parameter(help="Server to ask. [default: the one that has the data folder, if any]")
]
AsJson = Annotated[
    bool,
    Parameter(name="--json", negative="", show_default=False, help="Print JSON instead of text."),
]

LOG_FILE = "log.sqlite"


@Parameter(name="*")
@dataclass(frozen=True, slots=True)
class LogOptions:
    """Where events are kept. The password is no option: others could read it from the process."""

    log: Annotated[
        str | None, Parameter(help="Where events are kept: embedded or kafka. [default: embedded]")
    ] = None
    kafka_bootstrap: Annotated[
        str | None, Parameter(help="Brokers to begin with: HOST:PORT,HOST:PORT.")
    ] = None
    kafka_prefix: Annotated[
        str | None, Parameter(help="What our topics' names begin with. [default: muniment]")
    ] = None
    kafka_security_protocol: Annotated[
        str | None,
        Parameter(help="PLAINTEXT, SSL, SASL_PLAINTEXT or SASL_SSL. [default: PLAINTEXT]"),
    ] = None
    kafka_ca_file: Annotated[
        Path | None, Parameter(help="PEM file with the authorities to trust brokers by.")
    ] = None
    kafka_cert_file: Annotated[
        Path | None, Parameter(help="PEM file with our own certificate, for mutual TLS.")
    ] = None
    kafka_key_file: Annotated[
        Path | None, Parameter(help="PEM file with the key of our own certificate.")
    ] = None
    kafka_sasl_mechanism: Annotated[
        str | None, Parameter(help="PLAIN, SCRAM-SHA-256, SCRAM-SHA-512 or OAUTHBEARER.")
    ] = None
    kafka_username: Annotated[
        str | None,
        Parameter(help="User name, or client id; the password is MUNIMENT_KAFKA_PASSWORD."),
    ] = None
    kafka_token_url: Annotated[
        str | None, Parameter(help="OAUTHBEARER: where tokens come from.")
    ] = None
    kafka_token_scope: Annotated[
        str | None, Parameter(help="OAUTHBEARER: the scope to ask for.")
    ] = None

    def flags(self) -> dict[str, Any]:
        """Those that were given, as settings."""
        given = {name: value for name, value in asdict(self).items() if value is not None}
        if self.kafka_bootstrap is not None:
            given["kafka_bootstrap"] = tuple(self.kafka_bootstrap.split(","))
            # Who names brokers means Kafka.
            given.setdefault("log", "kafka")
        return given


def settings_of(
    data_dir: Path | None, config: Path | None, log: LogOptions | None = None
) -> Settings:
    """The settings as the environment, a file and these options give them. Raises ConfigError."""
    from muniment_services.config import environment, load

    flags = {} if log is None else log.flags()
    if data_dir is not None:
        flags["data_dir"] = data_dir
    return load(flags, environment(), config).settings


def settings_with_log(
    data_dir: Path | None, config: Path | None, log: LogOptions | None = None
) -> Settings:
    """The settings, of a log that is there. Raises ConfigError or CliError."""
    settings = settings_of(data_dir, config, log)
    if settings.log == "embedded" and not (settings.data_dir / LOG_FILE).exists():
        raise CliError(
            f"there is no log in {settings.data_dir}. Name the server's data folder by --data-dir, "
            "or begin one by `muniment serve`."
        )
    return settings

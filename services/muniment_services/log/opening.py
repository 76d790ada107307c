"""The log as the settings say: the one place that knows all kinds of logs."""

from __future__ import annotations

from pathlib import Path

from muniment_services.config import Settings
from muniment_services.log.base import EventLog
from muniment_services.log.embedded import EmbeddedLog
from muniment_services.log.kafka import KafkaLog
from muniment_services.log.kafka_connection import Brokers

LOG_FILE = "log.sqlite"
"""Name of the embedded log in its data folder."""


def open_log(settings: Settings, read_only: bool = False) -> EventLog:
    """The log that the settings name, not yet started."""
    if settings.log == "kafka":
        return kafka_log(settings, settings.kafka_bootstrap, settings.kafka_prefix, read_only)
    return embedded_log(settings.data_dir, settings, read_only)


def embedded_log(data_dir: Path, settings: Settings, read_only: bool = False) -> EmbeddedLog:
    """The embedded log of a data folder, not yet started."""
    return EmbeddedLog(
        data_dir / LOG_FILE, runs_partitions=settings.runs_partitions, read_only=read_only
    )


def kafka_log(
    settings: Settings, bootstrap: tuple[str, ...], prefix: str, read_only: bool = False
) -> KafkaLog:
    """The log of a cluster that is reached as the settings say, not yet started."""
    password = settings.kafka_password
    brokers = Brokers(
        bootstrap=bootstrap,
        security_protocol=settings.kafka_security_protocol,
        ca_file=settings.kafka_ca_file,
        cert_file=settings.kafka_cert_file,
        key_file=settings.kafka_key_file,
        sasl_mechanism=settings.kafka_sasl_mechanism,
        username=settings.kafka_username,
        password=None if password is None else password.get_secret_value(),
        token_url=settings.kafka_token_url,
        token_scope=settings.kafka_token_scope,
    )
    return KafkaLog(
        brokers,
        prefix=prefix,
        runs_partitions=settings.runs_partitions,
        replication=settings.kafka_replication,
        read_only=read_only,
    )

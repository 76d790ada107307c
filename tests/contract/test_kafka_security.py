"""The log on a cluster that asks who one is: every way to say so, and what a wrong one is told."""

from __future__ import annotations

import asyncio
import dataclasses
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.brokers import fresh_prefix
from harness.event_log import CAT, appended, new, read_all
from harness.secure_broker import (
    CLIENT_ID,
    CLIENT_SECRET,
    PASSWORD,
    USER,
    SecureBroker,
    secure_broker,
)
from muniment_services.log.base import LogUnavailable
from muniment_services.log.kafka import KafkaLog
from muniment_services.log.kafka_connection import Brokers

pytestmark = pytest.mark.slow

TOLD_WITHIN_S = 15.0


@pytest.fixture(scope="module")
def secure(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecureBroker]:
    with secure_broker(tmp_path_factory.mktemp("secure")) as started:
        yield started


def by_password(secure: SecureBroker, mechanism: str = "PLAIN") -> Brokers:
    return Brokers(
        bootstrap=(secure.sasl,),
        security_protocol="SASL_SSL",
        ca_file=secure.pki.ca,
        sasl_mechanism=mechanism,
        username=USER,
        password=PASSWORD,
    )


def by_token(secure: SecureBroker) -> Brokers:
    return dataclasses.replace(
        by_password(secure, "OAUTHBEARER"),
        username=CLIENT_ID,
        password=CLIENT_SECRET,
        token_url=f"{secure.issuer.url}/token",
    )


def by_certificate(secure: SecureBroker) -> Brokers:
    return Brokers(
        bootstrap=(secure.mutual_tls,),
        security_protocol="SSL",
        ca_file=secure.pki.ca,
        cert_file=secure.pki.client_cert,
        key_file=secure.pki.client_key,
    )


def check_works(brokers: Brokers) -> None:
    async def run() -> None:
        log = KafkaLog(brokers, prefix=fresh_prefix())
        await log.start()
        records = await appended(log, [new(CAT, "a"), new(CAT, "b")])
        assert read_all(log, CAT) == records
        assert (await log.end_offsets())[CAT] == 2
        await log.close()

    asyncio.run(run())


def refused(brokers: Brokers) -> str:
    """What a start with these is told; within seconds."""

    async def run() -> None:
        await KafkaLog(brokers, prefix=fresh_prefix()).start()

    began = time.monotonic()
    with pytest.raises(LogUnavailable) as error:
        asyncio.run(run())
    assert time.monotonic() - began < TOLD_WITHIN_S
    message = str(error.value)
    assert PASSWORD not in message
    assert CLIENT_SECRET not in message
    return message


@pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"])
def test_a_password(secure: SecureBroker, mechanism: str) -> None:
    check_works(by_password(secure, mechanism))


def test_a_token(secure: SecureBroker) -> None:
    before = secure.issuer.issued
    check_works(by_token(secure))
    assert 1 <= secure.issuer.issued - before <= 6, "tokens are used until they are nearly over"


def test_a_certificate_of_our_own(secure: SecureBroker) -> None:
    check_works(by_certificate(secure))


@pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"])
def test_a_wrong_password_is_told(secure: SecureBroker, mechanism: str) -> None:
    wrong = dataclasses.replace(by_password(secure, mechanism), password="not-it")
    message = refused(wrong)
    assert "kafka_password" in message
    assert "not-it" not in message


def test_a_wrong_client_secret_is_told(secure: SecureBroker) -> None:
    wrong = dataclasses.replace(by_token(secure), password="not-it")
    message = refused(wrong)
    assert "token endpoint" in message
    assert "401" in message
    assert "not-it" not in message


def test_a_token_for_somebody_else_is_told(secure: SecureBroker) -> None:
    secure.issuer.audience = "another"
    try:
        assert "refuse" in refused(by_token(secure))
    finally:
        secure.issuer.audience = "kafka"


def test_an_authority_that_is_not_the_brokers_is_told(secure: SecureBroker) -> None:
    wrong = dataclasses.replace(by_password(secure), ca_file=secure.pki.other_ca)
    assert "kafka_ca_file" in refused(wrong)


def test_no_certificate_where_one_is_wanted_is_told(secure: SecureBroker) -> None:
    wrong = dataclasses.replace(by_certificate(secure), cert_file=None, key_file=None)
    assert "kafka_cert_file" in refused(wrong)


def test_plain_text_to_a_tls_port_is_told(secure: SecureBroker) -> None:
    assert "kafka_security_protocol" in refused(Brokers(bootstrap=(secure.mutual_tls,)))


def test_files_that_cannot_be_used_are_told(secure: SecureBroker, tmp_path: Path) -> None:
    nonsense = tmp_path / "ca.pem"
    nonsense.write_text("nonsense")
    assert "kafka_ca_file" in refused(dataclasses.replace(by_password(secure), ca_file=nonsense))

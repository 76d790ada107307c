"""A broker, a site of ours on it, and the readers that know nothing of us."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from harness.brokers import kafka_bootstrap
from readers.java_reader import JavaReader, compiled


@pytest.fixture(scope="session")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Bootstrap servers of a real broker."""
    with kafka_bootstrap(tmp_path_factory.mktemp("kafka")) as bootstrap:
        yield bootstrap


@pytest.fixture(scope="session")
def java_reader(kafka: str, tmp_path_factory: pytest.TempPathFactory) -> JavaReader:
    """The reader in `java/`, compiled."""
    return JavaReader(compiled(tmp_path_factory.mktemp("classes")), kafka)

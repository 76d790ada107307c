"""The scripts on a broker that asks who may: Kafka's own tools, run as they are told."""

from __future__ import annotations

import asyncio
import os
import shlex
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import local_kafka
import pytest
from kafka.admin import ConfigResource, ConfigResourceType, KafkaAdminClient
from kafka.errors import TopicAuthorizationFailedError
from local_kafka import HOST, JAVA_OPTIONS

from harness.event_log import CAT, appended, new, read_all
from house.sources import ROOT
from muniment_services.log.base import LogCorrupt, LogUnavailable
from muniment_services.log.kafka import KafkaLog
from muniment_services.log.kafka_connection import Brokers

HERE = Path(__file__).parent
TOOLS = {
    "kafka-topics.sh": "org.apache.kafka.tools.TopicCommand",
    "kafka-configs.sh": "org.apache.kafka.tools.ConfigCommand",
    "kafka-acls.sh": "org.apache.kafka.tools.AclCommand",
}
ADMIN, REPLICA = "admin", "replica"
PREFIX = "p"
RUN_S_MAX = 120

pytestmark = pytest.mark.slow


@dataclass(frozen=True, slots=True)
class Guarded:
    """A broker where only ADMIN may anything, and Kafka's tools speaking as ADMIN."""

    bootstrap: str
    tools: Path
    admin_config: Path

    def run(self, script: str, *arguments: str) -> None:
        """Run one of the scripts; its failure is the test's."""
        self._checked(
            str(ROOT / "deploy" / "kafka" / script), "--bootstrap", self.bootstrap, *arguments
        )

    def tool(self, name: str, *arguments: str) -> None:
        """Run one of Kafka's tools."""
        self._checked(str(self.tools / name), "--bootstrap-server", self.bootstrap, *arguments)

    def _checked(self, *command: str) -> None:
        done = subprocess.run(
            [*command, "--command-config", str(self.admin_config)],
            env={**os.environ, "KAFKA_BIN": str(self.tools)},
            capture_output=True,
            text=True,
            timeout=RUN_S_MAX,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr

    def log(self) -> KafkaLog:
        """The log as a replica opens it."""
        brokers = Brokers(
            bootstrap=(self.bootstrap,),
            security_protocol="SASL_PLAINTEXT",
            sasl_mechanism="PLAIN",
            username=REPLICA,
            password=f"{REPLICA}-pw",
        )
        return KafkaLog(brokers, prefix=PREFIX)


def properties() -> dict[str, str]:
    login = "org.apache.kafka.common.security.plain.PlainLoginModule required"
    return {
        "listeners": f"SASL_PLAINTEXT://{HOST}:{{port}},CONTROLLER://{HOST}:{{controller}}",
        "advertised.listeners": f"SASL_PLAINTEXT://{HOST}:{{port}}",
        "listener.security.protocol.map": "SASL_PLAINTEXT:SASL_PLAINTEXT,CONTROLLER:PLAINTEXT",
        "inter.broker.listener.name": "SASL_PLAINTEXT",
        "sasl.enabled.mechanisms": "PLAIN",
        "sasl.mechanism.inter.broker.protocol": "PLAIN",
        "listener.name.sasl_plaintext.plain.sasl.jaas.config": f'{login} username="{ADMIN}" '
        f'password="{ADMIN}-pw" user_{ADMIN}="{ADMIN}-pw" user_{REPLICA}="{REPLICA}-pw";',
        "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
        "super.users": f"User:{ADMIN};User:ANONYMOUS",
    }


def kafka_bin(folder: Path) -> Path:
    """A folder of Kafka's tools, as a distribution has one."""
    own = local_kafka.install(
        HERE / "kafka" / "pom.xml",
        HERE / "kafka" / "jars.lock",
        local_kafka.CACHE.parent / "kafka-tools" / "libs",
    )
    class_path = os.pathsep.join(map(str, [*local_kafka.install(), *own]))
    folder.mkdir()
    for name, main in TOOLS.items():
        command = shlex.join([local_kafka.java(), *JAVA_OPTIONS, "-cp", class_path, main])
        (folder / name).write_text(f'#!/bin/sh\nexec {command} "$@"\n', "utf-8")
        (folder / name).chmod(0o755)
    return folder


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    folder = tmp_path_factory.mktemp("guarded")
    config = folder / "admin.properties"
    config.write_text(
        "security.protocol=SASL_PLAINTEXT\nsasl.mechanism=PLAIN\n"
        "sasl.jaas.config=org.apache.kafka.common.security.plain.PlainLoginModule required "
        f'username="{ADMIN}" password="{ADMIN}-pw";\n',
        "utf-8",
    )
    made = local_kafka.Cluster(folder / "kafka", properties=properties())
    made.start()
    try:
        yield Guarded(made.bootstrap, kafka_bin(folder / "bin"), config)
    finally:
        made.stop(at_once=True)


async def opened_and_closed(log: KafkaLog) -> None:
    try:
        await log.start()
        records = await appended(log, [new(CAT, "a")])
        assert read_all(log, CAT)[-1:] == records
    finally:
        await log.close()


def test_a_replica_works_with_what_the_scripts_give_and_may_no_more(guarded: Guarded) -> None:
    guarded.run("topics.sh", "--prefix", PREFIX, "--replication", "1")
    with pytest.raises(LogUnavailable, match=r"acls\.sh|may not"):
        asyncio.run(opened_and_closed(guarded.log()))
    guarded.run("acls.sh", "--prefix", PREFIX, "--principal", f"User:{REPLICA}")
    asyncio.run(opened_and_closed(guarded.log()))

    topic = f"{PREFIX}.runs"
    client = KafkaAdminClient(
        bootstrap_servers=[guarded.bootstrap],
        security_protocol="SASL_PLAINTEXT",
        sasl_mechanism="PLAIN",
        sasl_plain_username=REPLICA,
        sasl_plain_password=f"{REPLICA}-pw",
    )
    try:
        with pytest.raises(TopicAuthorizationFailedError):
            client.delete_topics([topic])
        shorter = ConfigResource(ConfigResourceType.TOPIC, topic, {"retention.ms": "1"})
        told = client.alter_configs([shorter], incremental=True)
        assert "TopicAuthorizationFailedError" in told["topic"][topic]
    finally:
        client.close()

    # An operator's slip is refused at a start, and mended by the same script.
    guarded.tool(
        "kafka-configs.sh", "--alter", "--entity-type", "topics", "--entity-name", topic,
        "--add-config", "retention.ms=1",
    )  # fmt: skip
    with pytest.raises(LogCorrupt, match=r"retention\.ms"):
        asyncio.run(opened_and_closed(guarded.log()))
    guarded.run("topics.sh", "--prefix", PREFIX, "--replication", "1")
    asyncio.run(opened_and_closed(guarded.log()))

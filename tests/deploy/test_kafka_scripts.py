"""The scripts for Kafka's tools say what a start checks, and give a replica what it needs alone."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

from house.sources import ROOT
from muniment_services.log.base import topics
from muniment_services.log.kafka_topics import FIXED, MESSAGE_BYTES_MAX, TIMESTAMP_AHEAD_MS_MAX

FOLDER = ROOT / "deploy" / "kafka"
SETTINGS = {
    **FIXED,
    "min.insync.replicas": "2",
    "max.message.bytes": str(MESSAGE_BYTES_MAX),
    "message.timestamp.after.max.ms": str(TIMESTAMP_AHEAD_MS_MAX),
}


def said(script: str, *arguments: str, image: str | None = None) -> list[str]:
    command = [str(FOLDER / script), "--bootstrap", "b:9092", "--dry-run", *arguments]
    environment = {"PATH": "/usr/bin:/bin", **({} if image is None else {"KAFKA_IMAGE": image})}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    return done.stdout.splitlines()


def test_topics_are_made_as_a_start_wants_them() -> None:
    made = {}
    for line in said("topics.sh", "--prefix", "p")[::2]:
        (name,) = re.findall(r"^kafka-topics\.sh .* --topic p\.(\w+)", line)
        (partitions,) = re.findall(r"--partitions (\d+)", line)
        made[name] = int(partitions)
        assert dict(re.findall(r"--config=([\w.]+)=(\S+)", line)) == SETTINGS
    assert made == topics()
    assert all("min.insync.replicas=1" in line for line in said("topics.sh", "--replication", "1"))


def test_topics_that_are_there_are_mended() -> None:
    mended = []
    for line in said("topics.sh", "--prefix", "p")[1::2]:
        mended += re.findall(r"^kafka-configs\.sh .* --alter .* --entity-name p\.(\w+)", line)
        (given,) = re.findall(r"--add-config (\S+)", line)
        assert dict(pair.split("=") for pair in given.split(",")) == SETTINGS
    assert mended == list(topics())


def test_a_replica_may_do_what_it_needs_and_nothing_else() -> None:
    (line,) = said("acls.sh", "--principal", "User:m")
    assert re.findall(r"--topic muniment\.(\w+)", line) == list(topics())
    needed = ["Describe", "DescribeConfigs", "Read", "Write"]
    assert re.findall(r"--operation (\w+)", line) == needed
    (creating,) = said("acls.sh", "--principal", "User:m", "--may-create")
    assert re.findall(r"--operation (\w+)", creating) == [*needed, "Create"]


def test_an_image_is_given_the_settings_of_the_client(tmp_path: Path) -> None:
    config = tmp_path / "admin.properties"
    config.touch()
    (line,) = said(
        "acls.sh", "--principal", "User:m", "--command-config", str(config), image="kafka:1"
    )
    start = f"docker run --rm --network host --volume {config}:{config}:ro kafka:1 "
    assert line.startswith(f"{start}/opt/kafka/bin/kafka-acls.sh --bootstrap-server b:9092")
    assert f"--command-config {config}" in line


def test_a_call_that_lacks_something_is_refused() -> None:
    calls = [("topics.sh",), ("acls.sh", "--bootstrap", "b:1"), ("topics.sh", "--bootstrap")]
    for script, *arguments in calls:
        command = [str(FOLDER / script), *arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stdout) == (2, "")
        assert "--bootstrap HOST:PORT" in done.stderr
        assert "set -euo" not in done.stderr

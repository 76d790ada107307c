"""The scripts for Kafka's tools say what a start checks, and give a replica what it needs alone."""

from __future__ import annotations

import re
import subprocess

from house.sources import ROOT
from muniment_services.log.base import topics
from muniment_services.log.kafka_topics import FIXED, MESSAGE_BYTES_MAX, TIMESTAMP_AHEAD_MS_MAX

FOLDER = ROOT / "deploy" / "kafka"


def said(script: str, *arguments: str) -> list[str]:
    command = [str(FOLDER / script), "--bootstrap", "b:9092", "--dry-run", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()


def test_topics_are_made_as_a_start_wants_them() -> None:
    lines = said("topics.sh", "--prefix", "p")
    made = {}
    for line in lines:
        (name,) = re.findall(r"--topic p\.(\w+)", line)
        (partitions,) = re.findall(r"--partitions (\d+)", line)
        made[name] = int(partitions)
        assert dict(re.findall(r"--config ([\w.]+)=(\S+)", line)) == {
            **FIXED,
            "min.insync.replicas": "2",
            "max.message.bytes": str(MESSAGE_BYTES_MAX),
            "message.timestamp.after.max.ms": str(TIMESTAMP_AHEAD_MS_MAX),
        }
    assert made == topics()
    assert all("min.insync.replicas=1" in line for line in said("topics.sh", "--replication", "1"))


def test_a_replica_may_do_what_it_needs_and_nothing_else() -> None:
    lines = said("acls.sh", "--principal", "User:m")
    assert [re.findall(r"--topic muniment\.(\w+)", line)[0] for line in lines] == list(topics())
    for line in lines:
        assert re.findall(r"--operation (\w+)", line) == [
            "Describe", "DescribeConfigs", "Read", "Write",
        ]  # fmt: skip
    creating = said("acls.sh", "--principal", "User:m", "--may-create")
    assert all("--operation Create" in line for line in creating)


def test_a_call_that_lacks_something_is_refused() -> None:
    done = subprocess.run([str(FOLDER / "topics.sh")], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "--bootstrap" in done.stderr

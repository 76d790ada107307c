"""Compiles and runs `java/Reader.java`: Kafka's own client, Apache Avro, and nothing of ours."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import local_kafka

HERE = Path(__file__).parent
SOURCE = HERE / "java" / "Reader.java"
LIBRARIES = local_kafka.CACHE.parent / "readers" / "libs"
COMPILER = "org.eclipse.jdt.internal.compiler.batch.Main"
"""Eclipse's, a program like any other: a Java without a compiler runs it."""

RUN_S_MAX = 120.0


def class_path() -> str:
    """Kafka's jars and the reader's own, fetched if they are not there."""
    own = local_kafka.install(HERE / "pom.xml", HERE / "jars.lock", LIBRARIES)
    return os.pathsep.join(str(jar) for jar in [*local_kafka.install(), *own])


def compiled(into: Path) -> str:
    """The class path of the compiled reader."""
    path = class_path()
    _java("-cp", path, COMPILER, "-17", "-cp", path, "-d", str(into), str(SOURCE))
    return os.pathsep.join([str(into), path])


@dataclass(frozen=True, slots=True)
class JavaReader:
    """Reads topics of one cluster."""

    class_path: str
    bootstrap: str

    def read(self, topic: str, *schemas: str) -> list[dict[str, Any]]:
        """All records of a topic. schemas: where they are taken from, see Reader.java."""
        command = ("-cp", self.class_path, "Reader", self.bootstrap, topic, *schemas)
        # Not splitlines: what separates lines in Unicode may stand in a value.
        return [json.loads(line) for line in _java(*command).split("\n") if line]


def _java(*arguments: str) -> str:
    command: Sequence[str] = [local_kafka.java(), *local_kafka.JAVA_OPTIONS, *arguments]
    done = subprocess.run(command, capture_output=True, timeout=RUN_S_MAX, check=False)
    assert done.returncode == 0, done.stderr.decode(errors="replace")[-4000:]
    return done.stdout.decode()

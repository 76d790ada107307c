"""The topics of one muniment on a cluster: made if they are not there, and checked at every start.

What always holds after `prepared`: every topic has the partitions that its keys are spread over,
and no setting by which acknowledged events could go away (retention, compaction, an election of a
replica that lacks them, a single replica that acknowledges for all).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import structlog
from kafka import TopicPartition
from kafka.admin import ConfigResource, ConfigResourceType, KafkaAdminClient, OffsetSpec
from kafka.errors import (
    KafkaError,
    PolicyViolationError,
    TopicAlreadyExistsError,
    TopicAuthorizationFailedError,
)

from muniment_services.log.base import RECORD_BYTES_MAX, LogCorrupt, LogUnavailable
from muniment_services.log.kafka_reader import removed

MESSAGE_BYTES_MAX = 25 * 1024 * 1024
"""`max.message.bytes`: our largest value, its key and headers, and the frame around them."""

TIMESTAMP_AHEAD_MS_MAX = 2**63 - 1
"""A broker must not refuse an event because its clock is behind ours (by default: an hour)."""

REPLICATION_DEFAULT = 3
CREATED_MS_MAX = 15_000

FIXED: Mapping[str, str] = {
    "cleanup.policy": "delete",
    "retention.ms": "-1",
    "retention.bytes": "-1",
    "unclean.leader.election.enable": "false",
    "message.timestamp.type": "CreateTime",
}
"""Settings that a topic must have, all of them: with any other value events could be lost."""

WHY: Mapping[str, str] = {
    "cleanup.policy": "compaction would remove events",
    "retention.ms": "old events would be removed",
    "retention.bytes": "old events would be removed",
    "unclean.leader.election.enable": "a replica that lacks acknowledged events could become "
    "leader",
    "message.timestamp.type": "the broker's time would take the place of the event's",
    "min.insync.replicas": "an event would be acknowledged that only one broker has",
    "max.message.bytes": "large events would be refused",
}

assert MESSAGE_BYTES_MAX > RECORD_BYTES_MAX

_log = structlog.get_logger("muniment.log")


@dataclass(frozen=True, slots=True)
class Topic:
    """One topic as it is: partitions, replicas of each, its id (a new one if it is made anew)."""

    name: str
    partitions: int
    replication: int
    topic_id: str


def prepared(
    admin: KafkaAdminClient,
    wanted: Mapping[str, int],
    replication: int | None,
    create: bool,
    bootstrap: str,
) -> list[Topic]:
    """All topics, in the order of `wanted` (name to partitions), made as far as need be and safe.

    replication: of topics that are made; as many as there are brokers, up to REPLICATION_DEFAULT,
    when None. Raises LogUnavailable for missing topics that may not be made, LogCorrupt for ones
    that could lose events, with the command that mends it. Blocking.
    """
    found = described(admin, wanted)
    missing = {name: count for name, count in wanted.items() if name not in found}
    if missing and found and create:
        # A topic that has gone is not made anew beside the others: its events would be missing.
        raise LogCorrupt(
            f"of the log's topics {', '.join(found)} are there, but {', '.join(missing)} is not. "
            "Restore it; or, if this log never held an event, delete the others too."
        )
    if missing and not create:
        raise LogUnavailable(f"there is no topic {', '.join(missing)} at {bootstrap}")
    if missing:
        _create(admin, missing, replication)
        found = described(admin, wanted)
    else:
        _refuse_trimmed(admin, found.values())
    topics = [found[name] for name in wanted]
    for topic in topics:
        if topic.partitions != wanted[topic.name]:
            raise LogCorrupt(
                f"topic {topic.name} has {topic.partitions} partitions, and this muniment was told "
                f"{wanted[topic.name]}. The count is fixed when the log is created, since a key's "
                "partition follows from it: set runs_partitions to what it was then."
            )
    _check(admin, topics, bootstrap)
    if create and (single := [topic.name for topic in topics if topic.replication == 1]):
        _log.warning("topics have one replica each and are lost with its disk", topics=single)
    return topics


def described(admin: KafkaAdminClient, wanted: Iterable[str]) -> dict[str, Topic]:
    """Those of the topics that there are, by name. Raises LogUnavailable when we may not look."""
    found = {}
    for topic in admin.describe_topics(list(wanted)):
        if topic["error_code"] == 0:
            partitions = topic["partitions"]
            replication = min((len(p["replica_nodes"]) for p in partitions), default=0)
            found[topic["name"]] = Topic(
                topic["name"], len(partitions), replication, str(topic.get("topic_id", ""))
            )
        elif topic["error_code"] == TopicAuthorizationFailedError.errno:
            raise LogUnavailable(
                f"our principal may not describe topic {topic['name']}; see deploy/kafka/acls.sh"
            )
    return found


def _refuse_trimmed(admin: KafkaAdminClient, topics: Iterable[Topic]) -> None:
    begin = {
        TopicPartition(topic.name, number): OffsetSpec.EARLIEST
        for topic in topics
        for number in range(topic.partitions)
    }
    try:
        found = admin.list_partition_offsets(begin)
    except KafkaError as error:
        raise LogUnavailable(f"the brokers do not tell where topics begin: {error}") from error
    for at, first in found.items():
        if first.offset > 0:
            raise LogCorrupt(removed(first.offset, at))


def _create(admin: KafkaAdminClient, missing: Mapping[str, int], replication: int | None) -> None:
    brokers = len(admin.describe_cluster()["brokers"])
    copies = replication or min(REPLICATION_DEFAULT, brokers)
    configs = {
        **FIXED,
        "min.insync.replicas": str(min(2, copies)),
        "max.message.bytes": str(MESSAGE_BYTES_MAX),
        "message.timestamp.after.max.ms": str(TIMESTAMP_AHEAD_MS_MAX),
    }
    wanted = {
        name: {"num_partitions": count, "replication_factor": copies, "configs": configs}
        for name, count in missing.items()
    }
    try:
        admin.create_topics(wanted)
    except TopicAlreadyExistsError:
        pass  # Another replica made them; what counts is how they are, and that is checked.
    except (PolicyViolationError, TopicAuthorizationFailedError) as error:
        raise LogUnavailable(
            f"the topics {', '.join(missing)} cannot be made: {error}. Have them made by "
            "deploy/kafka/topics.sh"
        ) from error
    except KafkaError as error:
        raise LogUnavailable(f"the topics cannot be made: {error}") from error
    admin.wait_for_topics(list(missing), timeout_ms=CREATED_MS_MAX)


def _check(admin: KafkaAdminClient, topics: Sequence[Topic], bootstrap: str) -> None:
    resources = [ConfigResource(ConfigResourceType.TOPIC, topic.name) for topic in topics]
    found = admin.describe_configs(resources, config_filter="all")["topic"]
    for topic in topics:
        configs = {name: str(entry["value"]) for name, entry in found[topic.name].items()}
        mending = dict(_wrong(topic, configs))
        if mending:
            reasons = "; ".join(
                f"{name}={configs.get(name)}: {WHY[name]}" for name in sorted(mending)
            )
            changes = ",".join(f"{name}={value}" for name, value in sorted(mending.items()))
            raise LogCorrupt(
                f"topic {topic.name} could lose events ({reasons}). Mend it: kafka-configs.sh "
                f"--bootstrap-server {bootstrap} --alter --entity-type topics --entity-name "
                f"{topic.name} --add-config {changes}"
            )


def _wrong(topic: Topic, configs: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Settings by which events could be lost, each with the value that it should have."""
    for name, value in FIXED.items():
        if configs.get(name) != value:
            yield name, value
    needed = min(2, topic.replication)
    if int(configs.get("min.insync.replicas", 1)) < needed:
        yield "min.insync.replicas", str(needed)
    if int(configs.get("max.message.bytes", 0)) < MESSAGE_BYTES_MAX:
        yield "max.message.bytes", str(MESSAGE_BYTES_MAX)

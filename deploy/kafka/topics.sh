#!/usr/bin/env bash
# Makes muniment's topics, for clusters where a replica may not, with the settings that a start checks. Topics that are
# there get these settings too; their partitions and replicas are left as they are (name the --replication they have).
#   topics.sh --bootstrap HOST:PORT[,…] [--prefix muniment] [--replication 3] [--runs-partitions 6]
#             [--command-config FILE] [--dry-run]
# Kafka's own tools are found by KAFKA_BIN (a folder), KAFKA_IMAGE (run by docker) or PATH.
set -euo pipefail
. "$(dirname -- "${BASH_SOURCE[0]}")/tool.sh"

prefix=muniment replication=3 runs_partitions=6 bootstrap='' config='' dry_run=''
while [ $# -gt 0 ]; do
    case "$1" in
    --dry-run)
        dry_run=1
        shift
        continue
        ;;
    esac
    [ $# -ge 2 ] || usage
    case "$1" in
    --bootstrap) bootstrap=$2 ;;
    --prefix) prefix=$2 ;;
    --replication) replication=$2 ;;
    --runs-partitions) runs_partitions=$2 ;;
    --command-config) config=$(absolute "$2") ;;
    *) usage ;;
    esac
    shift 2
done
[ -n "$bootstrap" ] || usage

settings=(
    cleanup.policy=delete
    retention.ms=-1
    retention.bytes=-1
    unclean.leader.election.enable=false
    message.timestamp.type=CreateTime
    min.insync.replicas=$((replication < 2 ? replication : 2))
    max.message.bytes=26214400
    message.timestamp.after.max.ms=9223372036854775807
)
all=$(IFS=, && printf '%s' "${settings[*]}")

# arguments: name without prefix, partitions.
make() {
    kafka_tool kafka-topics.sh --create --if-not-exists --topic "$prefix.$1" \
        --partitions "$2" --replication-factor "$replication" "${settings[@]/#/--config=}"
    kafka_tool kafka-configs.sh --alter --entity-type topics --entity-name "$prefix.$1" --add-config "$all"
}

make catalog 1
make runs "$runs_partitions"
make access "$runs_partitions"
make checkpoints 1
make quarantine 1

#!/usr/bin/env bash
# Makes muniment's topics, for clusters where a replica may not, with the settings that a start checks.
# Kafka's own tools are found by KAFKA_BIN (a folder) or PATH.
#   topics.sh --bootstrap HOST:PORT[,…] [--prefix muniment] [--replication 3] [--runs-partitions 6]
#             [--command-config FILE] [--dry-run]
set -euo pipefail

prefix=muniment replication=3 runs_partitions=6 bootstrap='' dry_run='' extra=()
while [ $# -gt 0 ]; do
    case "$1" in
    --bootstrap) bootstrap=$2 ;;
    --prefix) prefix=$2 ;;
    --replication) replication=$2 ;;
    --runs-partitions) runs_partitions=$2 ;;
    --command-config) extra=(--command-config "$2") ;;
    --dry-run)
        dry_run=1
        shift
        continue
        ;;
    *)
        sed -n '2,5s/^# \{0,1\}//p' "$0" >&2
        exit 2
        ;;
    esac
    shift 2
done
[ -n "$bootstrap" ] || { echo "topics.sh: --bootstrap HOST:PORT is missing" >&2 && exit 2; }
in_sync=$((replication < 2 ? replication : 2))

run() {
    if [ -n "$dry_run" ]; then
        printf '%s' "$1" && printf ' %s' "${@:2}" && printf '\n'
    else
        "${KAFKA_BIN:+$KAFKA_BIN/}$@"
    fi
}

make() {
    run kafka-topics.sh --bootstrap-server "$bootstrap" ${extra[@]+"${extra[@]}"} --create --if-not-exists \
        --topic "$prefix.$1" --partitions "$2" --replication-factor "$replication" \
        --config cleanup.policy=delete \
        --config retention.ms=-1 \
        --config retention.bytes=-1 \
        --config unclean.leader.election.enable=false \
        --config message.timestamp.type=CreateTime \
        --config min.insync.replicas="$in_sync" \
        --config max.message.bytes=26214400 \
        --config message.timestamp.after.max.ms=9223372036854775807
}

make catalog 1
make runs "$runs_partitions"
make access "$runs_partitions"
make checkpoints 1
make quarantine 1

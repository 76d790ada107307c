#!/usr/bin/env bash
# Gives a replica's principal what it needs on muniment's topics, and nothing more: no deletion, no change of settings.
# Kafka's own tools are found by KAFKA_BIN (a folder) or PATH.
#   acls.sh --bootstrap HOST:PORT[,…] --principal User:NAME [--prefix muniment] [--may-create]
#           [--command-config FILE] [--dry-run]
set -euo pipefail

prefix=muniment bootstrap='' principal='' may_create='' dry_run='' extra=()
while [ $# -gt 0 ]; do
    case "$1" in
    --bootstrap) bootstrap=$2 ;;
    --principal) principal=$2 ;;
    --prefix) prefix=$2 ;;
    --command-config) extra=(--command-config "$2") ;;
    --may-create | --dry-run)
        [ "$1" = --dry-run ] && dry_run=1 || may_create=1
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
[ -n "$bootstrap" ] && [ -n "$principal" ] || { echo "acls.sh: --bootstrap and --principal are needed" >&2 && exit 2; }
operations=(Describe DescribeConfigs Read Write)
[ -z "$may_create" ] || operations+=(Create)

for topic in catalog runs access checkpoints quarantine; do
    command=(kafka-acls.sh --bootstrap-server "$bootstrap" ${extra[@]+"${extra[@]}"} --add --allow-principal "$principal")
    for operation in "${operations[@]}"; do
        command+=(--operation "$operation")
    done
    command+=(--topic "$prefix.$topic" --resource-pattern-type literal)
    if [ -n "$dry_run" ]; then
        printf '%s' "${command[0]}" && printf ' %s' "${command[@]:1}" && printf '\n'
    else
        "${KAFKA_BIN:+$KAFKA_BIN/}${command[@]}"
    fi
done

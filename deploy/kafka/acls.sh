#!/usr/bin/env bash
# Gives a replica's principal what it needs on muniment's topics, and nothing more: no deletion, no change of settings.
# A producer that is idempotent needs no right of its own besides (Kafka 2.8 or newer).
#   acls.sh --bootstrap HOST:PORT[,…] --principal User:NAME [--prefix muniment] [--may-create]
#           [--command-config FILE] [--dry-run]
# Kafka's own tools are found by KAFKA_BIN (a folder), KAFKA_IMAGE (run by docker) or PATH.
set -euo pipefail
. "$(dirname -- "${BASH_SOURCE[0]}")/tool.sh"

prefix=muniment bootstrap='' principal='' config='' dry_run=''
operations=(Describe DescribeConfigs Read Write)
while [ $# -gt 0 ]; do
    case "$1" in
    --dry-run | --may-create)
        [ "$1" = --dry-run ] && dry_run=1 || operations+=(Create)
        shift
        continue
        ;;
    esac
    [ $# -ge 2 ] || usage
    case "$1" in
    --bootstrap) bootstrap=$2 ;;
    --principal) principal=$2 ;;
    --prefix) prefix=$2 ;;
    --command-config) config=$(absolute "$2") ;;
    *) usage ;;
    esac
    shift 2
done
[ -n "$bootstrap" ] && [ -n "$principal" ] || usage

rights=()
for operation in "${operations[@]}"; do
    rights+=(--operation "$operation")
done
for topic in catalog runs access checkpoints quarantine; do
    rights+=(--topic "$prefix.$topic")
done
kafka_tool kafka-acls.sh --add --allow-principal "$principal" "${rights[@]}" --resource-pattern-type literal

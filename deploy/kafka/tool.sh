# Sourced by the scripts beside it: Kafka's own tools, from the folder KAFKA_BIN, from the image KAFKA_IMAGE (as
# apache/kafka:4.1.0, run by docker on this machine's network), or else from PATH.
# Before a call $config is a file of client settings or empty, and $dry_run is empty or has commands printed only.

# arguments: name of the tool, its own arguments.
kafka_tool() {
    local name=$1 command=("$1")
    shift
    if [ -n "${KAFKA_BIN:-}" ]; then
        command=("$KAFKA_BIN/$name")
    elif [ -n "${KAFKA_IMAGE:-}" ]; then
        command=(docker run --rm --network host)
        [ -z "$config" ] || command+=(--volume "$config:$config:ro")
        command+=("$KAFKA_IMAGE" "/opt/kafka/bin/$name")
    fi
    command+=(--bootstrap-server "$bootstrap")
    [ -z "$config" ] || command+=(--command-config "$config")
    command+=("$@")
    if [ -n "$dry_run" ]; then
        printf '%s\n' "${command[*]}"
    else
        "${command[@]}"
    fi
}

# argument: a path; gives it as an absolute one, as a container needs it.
absolute() { printf '%s/%s' "$(CDPATH='' cd -- "$(dirname -- "$1")" && pwd -P)" "$(basename -- "$1")"; }

# Prints the head of the calling script, which says how it is called.
usage() {
    sed -n '2,/^[^#]/s/^# \{0,1\}//p' "$0" >&2
    exit 2
}

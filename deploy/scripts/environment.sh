# Sourced by the scripts beside it: one environment, `.venv` in the checkout, filled from deploy/requirements.lock only.
# Groups contain each other: server < client (MLflow's own client) < dev. After `ensure_environment GROUP`
# $venv/bin has at least that group; a stamp per group makes the next call cost a checksum and nothing more.
# Works with bash 3.2, from any folder, under any locale.

root=$(CDPATH='' cd -- "$(dirname -- "${BASH_SOURCE[0]}")/../.." && pwd -P)
lock=$root/deploy/requirements.lock
venv=$root/.venv
stamps=$venv/.muniment

# The oldest uv whose `pip install` knows dependency groups is found by asking it, not by its version.
uv_has_groups() { "$1" pip install --help 2>/dev/null | grep -e '--group' >/dev/null; }

say() { printf '%s\n' "$*" >&2; }

fail() {
    say "error: $*"
    exit 1
}

# Of the standard input.
checksum() {
    local sum=sha256sum
    command -v sha256sum >/dev/null || sum='shasum -a 256'
    $sum | cut -d ' ' -f 1
}

# What the environment was made from. The path is part of it: console scripts name their interpreter.
fingerprint() { { cat "$lock" "$root/pyproject.toml" && printf '%s' "$root"; } | checksum; }

stamped() { [ -x "$venv/bin/python" ] && [ "$(cat "$stamps/$1" 2>/dev/null)" = "$2" ]; }

find_python() {
    local candidate candidates=(python3.11 python3.12 python3.13 python3.14 python3 python)
    if [ -n "${PYTHON:-}" ]; then candidates=("$PYTHON"); fi
    for candidate in "${candidates[@]}"; do
        if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            "$candidate" -c 'import sys; print(sys.executable)'
            return
        fi
    done
    fail "no Python 3.11 or newer among: ${candidates[*]}; install one, or name it: PYTHON=/path/to/python3.11 $0"
}

# A copied or moved checkout, or an interpreter that has gone, needs a new environment.
make_venv() {
    if [ "$(cat "$stamps/root" 2>/dev/null)" = "$root" ] && "$venv/bin/python" -c '' 2>/dev/null; then
        return
    fi
    local python
    python=$(find_python)
    say "Making $venv with $python"
    rm -rf -- "$venv"
    "$python" -m venv "$venv" >&2 ||
        fail "'$python -m venv' does not work; on Debian and Ubuntu install python3-venv"
    mkdir -p "$stamps"
    printf '%s\n' "$root" >"$stamps/root"
}

# uv does not read pip's settings; whoever reaches an index through them reaches it through uv as well.
# arguments: pip's name of a setting, uv's variable for it.
adopt_pip_setting() {
    [ -z "${!2:-}" ] || return 0
    local value
    value=$(printf '%s\n' "$pip_settings" | sed -n "s/^[^=]*\.$1='\(.*\)'\$/\1/p" | head -n 1)
    value=${value//\\n/ }
    value=${value#"${value%%[! ]*}"}
    [ -z "$value" ] || export "$2=$value"
}

adopt_pip_settings() {
    local pip_settings
    pip_settings=$("$venv/bin/python" -m pip config list 2>/dev/null) || return 0
    [ -n "${UV_INDEX_URL:-}" ] || adopt_pip_setting index-url UV_DEFAULT_INDEX
    [ -n "${UV_EXTRA_INDEX_URL:-}" ] || adopt_pip_setting extra-index-url UV_INDEX
    adopt_pip_setting trusted-host UV_INSECURE_HOST
    adopt_pip_setting cert SSL_CERT_FILE
    adopt_pip_setting proxy ALL_PROXY
    adopt_pip_setting default-timeout UV_HTTP_TIMEOUT
    adopt_pip_setting timeout UV_HTTP_TIMEOUT
    # pip asks all indexes alike; the hashes in the lock make that safe.
    export UV_INDEX_STRATEGY="${UV_INDEX_STRATEGY:-unsafe-best-match}"
}

# Sets $uv: the one on PATH if it is able, else the one that the lock pins, installed by pip.
find_uv() {
    uv=$(command -v uv || true)
    if [ -n "$uv" ] && uv_has_groups "$uv"; then return; fi
    uv=$venv/bin/uv
    if [ -x "$uv" ] && uv_has_groups "$uv"; then return; fi
    local pinned=$stamps/uv.txt
    sed -n '/^uv==/,/^[^ ]/p' "$lock" | sed '1!{/^[^ ]/d;}' >"$pinned"
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r "$pinned" >&2
}

# Hashes are demanded of every package, indirect ones included; the build of the project itself uses pinned tools.
install_group() {
    local groups=()
    [ "$1" = server ] || groups=(--group "$1")
    "$uv" pip install --quiet --python "$venv/bin/python" --require-hashes --constraints "$lock" \
        -r pyproject.toml ${groups[@]+"${groups[@]}"} >&2
    "$uv" pip install --quiet --python "$venv/bin/python" --no-deps --build-constraints "$lock" \
        --editable . >&2
}

write_stamps() {
    local group
    for group in server client dev; do
        printf '%s\n' "$2" >"$stamps/$group.new"
        mv -f "$stamps/$group.new" "$stamps/$group"
        [ "$group" != "$1" ] || return 0
    done
}

drop_stale_stamps() {
    local group
    for group in server client dev; do
        stamped "$group" "$1" || rm -f "$stamps/$group"
    done
}

# argument: server, client or dev. Two callers at once wait for each other where flock exists.
ensure_environment() {
    local wanted started=$SECONDS
    wanted=$(fingerprint)
    if stamped "$1" "$wanted"; then return; fi
    mkdir -p "$root/.cache"
    (
        cd "$root"
        if command -v flock >/dev/null; then flock 9; fi
        if stamped "$1" "$wanted"; then exit 0; fi
        say "Setting up the $1 environment from deploy/requirements.lock ..."
        make_venv
        drop_stale_stamps "$wanted"
        find_uv
        adopt_pip_settings
        install_group "$1"
        write_stamps "$1" "$wanted"
        say "Set up in $((SECONDS - started)) s."
    ) 9>"$root/.cache/setup.lock"
}

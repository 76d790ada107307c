#!/bin/sh
# What the image is made of, installed into one environment: packages from the lock alone, each by its hash, then our
# wheel. The Containerfile runs it, and so does the test that has no container engine.
#   install.sh PYTHON CHECKOUT ENVIRONMENT
set -eu
python=$1 checkout=$2 environment=$3

"$python" -m venv "$environment"
sed -n '/^uv==/,/^[^ ]/p' "$checkout/deploy/requirements.lock" | sed '1!{/^[^ ]/d;}' >"$environment/uv.txt"
"$environment/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes \
    -r "$environment/uv.txt"
cd "$checkout"
"$environment/bin/uv" pip install --quiet --python "$environment/bin/python" --require-hashes \
    --constraints deploy/requirements.lock -r pyproject.toml
"$environment/bin/uv" pip install --quiet --python "$environment/bin/python" --no-deps \
    --build-constraints deploy/requirements.lock .
# What installs is not needed to run.
"$environment/bin/uv" pip uninstall --quiet --python "$environment/bin/python" uv pip setuptools
rm -f "$environment/uv.txt"

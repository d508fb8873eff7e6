"""Fleet: several services of four workers each, every one of which can be asked by itself."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from http.client import HTTPConnection
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

from app.demo.issuer import DemoIssuer
from tests.system.processes import connections_to_every_worker, workers
from tests.system.service import Answer, Service, ask, eventually, request

WORKERS = 4  # of each service
AUDIENCE = "demo-api"
SEAL_KEY = "A" * 43


class Asked(NamedTuple):
    """What all workers answered when they were asked at the same moment. seconds: the slowest."""

    answers: list[Answer]
    seconds: float

    @property
    def statuses(self) -> list[int]:
        return sorted({answer.status for answer in self.answers})

    @property
    def reasons(self) -> list[str]:
        return sorted({answer.json().get("reason", "none") for answer in self.answers})


class Fleet:
    """One service for each of these Redis URLs, trusting these issuers; ended with the block."""

    def __init__(
        self,
        folder: Path,
        issuers: Sequence[DemoIssuer],
        redis_urls: Sequence[str],
        settings: Mapping[str, object],
    ) -> None:
        config = folder / "keycache.toml"
        config.write_text(
            f'audience = "{AUDIENCE}"\n'
            + "".join(
                # No discovery: each fetch is then one request, that for the keys.
                f'[[issuers]]\nissuer = "{issuer.url}"\njwks_url = "{issuer.jwks_url}"\n'
                for issuer in issuers
            )
        )
        self.settings: dict[str, object] = {
            "CONFIG": config,
            "SEAL_KEYS": SEAL_KEY,
            "WORKERS": WORKERS,
            **settings,
        }
        self._redis_urls = redis_urls
        self._folder = folder
        self._stack = ExitStack()
        self._connections: list[HTTPConnection] = []
        self._to_workers = ExitStack()
        self.services: list[Service] = []
        self._pool = ThreadPoolExecutor(WORKERS * len(redis_urls))

    def __enter__(self) -> Self:
        for number, url in enumerate(self._redis_urls):
            log = self._folder / f"log-{number}"
            service = Service(log, self.settings | {"REDIS_URL": url})
            self.services.append(self._stack.enter_context(service))
        for service in self.services:
            service.wait_until_ready()
        self.connect()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._to_workers.close()
        self._pool.shutdown()
        self._stack.close()

    def connect(self) -> None:
        """Open a connection to every worker: at the start, and when one was replaced."""
        self._to_workers.close()
        self._connections = [
            connection
            for service in self.services
            for connection in self._to_workers.enter_context(connections_to_every_worker(service))
        ]

    def ask(self, token: str) -> Asked:
        """Present this token to every worker of every service at the same moment."""

        def present(connection: HTTPConnection) -> tuple[Answer, float]:
            started = time.perf_counter()
            answer = ask(connection, "/protected", token)
            return answer, time.perf_counter() - started

        answered = list(self._pool.map(present, self._connections))
        return Asked([answer for answer, _ in answered], max(took for _, took in answered))

    def pids(self) -> list[int]:
        """The processes of all workers."""
        return [pid for service in self.services for pid in workers(service)]

    def metric(self, name: str, **labels: str) -> float:
        """The sum over all services."""
        return sum(service.metric(name, **labels) for service in self.services)

    def readiness(self) -> list[tuple[int, str]]:
        """What each service says of itself, by one of its workers: HTTP status and word."""
        answers = [request(service.admin, "/readyz") for service in self.services]
        return [(answer.status, answer.json()["status"]) for answer in answers]

    def redis_up(self) -> bool:
        """Whether every worker of every service reaches Redis."""
        return all(service.metric("keycache_redis_up") == 1 for service in self.services)

    def settle(self, issuer: DemoIssuer, seconds: float = 15) -> float:
        """Wait until every worker is content: Redis is there, and nobody has asked the issuer for a
        second. Returns the seconds until everything was well, without that one.
        """
        fetches, since = issuer.jwks_fetches, time.monotonic()

        def quiet() -> bool:
            nonlocal fetches, since
            if issuer.jwks_fetches != fetches or not self.redis_up():
                fetches, since = issuer.jwks_fetches, time.monotonic()
            return time.monotonic() - since > 1.0

        return eventually(quiet, seconds) - 1.0

    def keycache(self, *words: str) -> subprocess.Popen[str]:
        """Start `keycache WORDS` with the settings of the first service."""
        settings = self.settings | {"REDIS_URL": self._redis_urls[0]}
        inherited = {name: text for name, text in os.environ.items() if "KEYCACHE_" not in name}
        return subprocess.Popen(
            [sys.executable, "-m", "app.cli.main", *words],
            env=inherited | {f"KEYCACHE_{name}": str(text) for name, text in settings.items()},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )


def say(**figures: float) -> None:
    """Print measured figures; `pytest -rP` shows them."""
    print(json.dumps({name: round(value, 4) for name, value in figures.items()}))  # noqa: T201

"""Clients that notice all that a service does to them: each answer, and each failure."""

import http.client
import threading
import time
from urllib.parse import urlsplit

from tests.system.service import Service, ask


class Load(threading.Thread):
    """A client that asks on one connection, and on a new one when it is told `Connection: close`,
    or (`fresh`) on a new one for every request; until it has asked `requests` times, or `enough`.

    With `until_refused` the end of the service, refused connections, is the end of the load.
    """

    def __init__(
        self,
        service: Service,
        token: str,
        requests: int,
        *,
        until_refused: bool = False,
        fresh: bool = False,
        path: str = "/protected",
    ) -> None:
        super().__init__()
        self._path = path
        self._netloc = urlsplit(service.url).netloc
        self._token = token
        self._requests = requests
        self._until_refused = until_refused
        self._fresh = fresh
        self.enough = threading.Event()
        self.answered: list[int] = []
        self.failed: list[str] = []

    def run(self) -> None:
        connection = http.client.HTTPConnection(self._netloc, timeout=15)
        for _ in range(self._requests):
            try:
                if connection.sock is None:
                    connection.connect()
            except OSError as error:
                if not self._until_refused:
                    self.failed.append(f"connect: {error!r}")
                break
            try:
                answer = ask(connection, self._path, self._token)
            except (OSError, http.client.HTTPException) as error:
                self.failed.append(repr(error))
                connection.close()
            else:
                self.answered.append(answer.status)
            if self._fresh:
                connection.close()
            time.sleep(0.01)  # a client that is busy, yet leaves the two CPUs to the service
            if self.enough.is_set():
                break
        connection.close()


def load(
    service: Service, token: str, requests: int, *, until_refused: bool, path: str = "/protected"
) -> list[Load]:
    """Eight clients, started."""
    threads = [
        Load(service, token, requests, until_refused=until_refused, path=path) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    return threads


def outcome(threads: list[Load]) -> tuple[set[int], list[str]]:
    """Which statuses came, and what failed, when all have ended."""
    for thread in threads:
        thread.join(60)
    answered = {status for thread in threads for status in thread.answered}
    return answered, [text for thread in threads for text in thread.failed]

"""Prometheus as a process, on a loopback port, with the shipped files made thirty times faster.

What is shipped looks through windows of minutes and waits for minutes. Here each duration of the
rules, and the scrape interval, is divided by SPEED, and nothing else is changed; what a threshold
says stays as it is.
"""

import json
import re
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.error import URLError
from urllib.parse import urlencode
from urllib.request import urlopen

from tests.system.fleet.servers import free_ports

SHIPPED = Path(__file__).parents[3] / "ops" / "prometheus"
SPEED = 30
SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
DURATION = re.compile(r"(?<=\[)(\d+)([smhd])(?=\])|(?<=for: )(\d+)([smhd])$", re.MULTILINE)
SCRAPED_EVERY = re.compile(r"(scrape_interval|scrape_timeout|evaluation_interval): \d+s")


def faster(rules: str) -> str:
    """These rules with every range and every `for` divided by SPEED."""

    def shortened(match: re.Match[str]) -> str:
        number, unit = match.group(1, 2) if match[1] else match.group(3, 4)
        return f"{int(number) * SECONDS[unit] // SPEED}s"

    return DURATION.sub(shortened, rules)


def until(condition: Callable[[], bool], seconds: float) -> None:
    """Wait until the condition holds, or fail. Asked four times a second: it costs a query."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.25)


class Prometheus:
    """Alive within a block. It scrapes the targets that it was told of with `scrape`."""

    def __init__(self, binary: str, folder: Path) -> None:
        folder.mkdir()
        self._folder = folder
        self._url = f"http://127.0.0.1:{free_ports(1)[0]}"
        self._targets = folder / "targets.json"
        for name in ("rules.yml", "alerts.yml"):
            (folder / name).write_text(faster((SHIPPED / name).read_text()))
        config = (SHIPPED / "prometheus.yml").read_text()
        config = SCRAPED_EVERY.sub(r"\1: 1s", config)
        config, targets = re.subn(
            r"static_configs:\n +#.*\n +#.*\n( +)- targets: .*",
            rf"file_sd_configs:\n\1- files: [{self._targets.name}]",
            config,
        )
        assert targets == 1
        (folder / "prometheus.yml").write_text(config)
        with (folder / "log").open("wb") as log:
            self._process = subprocess.Popen(
                [
                    binary,
                    f"--config.file={folder / 'prometheus.yml'}",
                    f"--storage.tsdb.path={folder / 'data'}",
                    f"--web.listen-address={self._url.removeprefix('http://')}",
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def scrape(self, fleet: Sequence[str], others: Mapping[str, Sequence[str]]) -> None:
        """Scrape the admin listeners of a fleet, and of others under other job names."""
        jobs = [{"targets": fleet, "labels": {}}]
        jobs += [{"targets": urls, "labels": {"job": job}} for job, urls in others.items()]
        new = self._targets.with_suffix(".new")
        new.write_text(json.dumps(jobs).replace("http://", ""))
        new.replace(self._targets)  # in one step: Prometheus is watching it

    def get(self, path: str, **parameters: str) -> Any:  # noqa: ANN401 - whatever was asked for
        """The data of an answer of its HTTP API."""
        with urlopen(f"{self._url}/api/v1/{path}?{urlencode(parameters)}", timeout=10) as answer:  # noqa: S310
            return json.load(answer)["data"]

    def query(self, expression: str) -> list[dict[str, Any]]:
        """The samples of an expression now."""
        result: list[dict[str, Any]] = self.get("query", query=expression)["result"]
        return result

    def _answers(self) -> bool:
        assert self._process.poll() is None, (self._folder / "log").read_text()
        try:
            self.get("alerts")
        except URLError:
            return False
        return True

    def __enter__(self) -> Self:
        until(self._answers, 30)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._process.kill()  # nothing of it is needed again
        self._process.wait()

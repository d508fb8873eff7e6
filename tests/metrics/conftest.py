"""Processes with metrics, and a directory for them."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

import pytest

from metrics import exposition, multiproc_dir

ROOT = Path(__file__).parents[2]


class Worker:
    """A running `worker.py`: a real process, told what to count, asked for its page."""

    def __init__(self, directory: Path, identifier: str) -> None:
        self.process = subprocess.Popen(
            [
                sys.executable,
                str(Path(__file__).with_name("worker.py")),
                str(directory),
                identifier,
            ],
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._answer()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self.kill()

    def _answer(self) -> str:
        assert self.process.stdout is not None
        answer = json.loads(self.process.stdout.readline())
        assert isinstance(answer, str)
        return answer

    def tell(self, command: str, *arguments: str | float | None) -> str:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps([command, *arguments]) + "\n")
        self.process.stdin.flush()
        return self._answer()

    def page(self, now: float | None = None) -> dict[str, float]:
        """Every sample of the page by its name and labels, as Prometheus reads them."""
        return samples(self.tell("page", now))

    def kill(self) -> None:
        """End it as the out-of-memory killer does."""
        self.process.kill()
        self.process.communicate()

    def stop(self) -> None:
        """Let it end by itself."""
        self.process.communicate()


def samples(page: str) -> dict[str, float]:
    """The samples of a page by their name and labels, written without quotation marks."""
    found = {}
    for sample in exposition.parse(page):
        labels = ",".join(f"{name}={value}" for name, value in sorted(sample.labels.items()))
        found[f"{sample.name}{{{labels}}}"] = sample.value
    return found


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[Path]:
    directory = multiproc_dir.create(tmp_path)
    yield directory
    multiproc_dir.remove(directory)


@pytest.fixture
def start(directory: Path) -> Iterator[Callable[[str], Worker]]:
    """Starts a process with this identifier; all are ended after the test."""
    with ExitStack() as stack:
        yield lambda identifier: stack.enter_context(Worker(directory, identifier))

"""The command line run in this process, in an environment of its own, against real servers."""

import json
import os
import sys
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import pytest

from app.cli.main import main
from app.demo.issuer import DemoIssuer

SEAL_KEY = "c2VhbC1rZXktb2YtdGhlLXRlc3RzLTMyLWJ5dGVzLS0"


class Run(NamedTuple):
    """How a command ended and what it said."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:  # noqa: ANN401 - whatever a command prints
        """What it printed, as JSON."""
        return json.loads(self.out)


Keycache = Callable[..., Run]


@pytest.fixture
def issuer() -> Iterator[DemoIssuer]:
    """A running issuer."""
    with DemoIssuer() as running:
        yield running


@pytest.fixture
def keycache(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], issuer: DemoIssuer
) -> Keycache:
    """`keycache("warm", "--json", REDIS_URL=...)`: one issuer is configured, and no Redis."""
    for name in list(os.environ):
        if name.startswith("KEYCACHE_"):
            monkeypatch.delenv(name)
    defaults = {"ISSUER": issuer.url, "AUDIENCE": "api", "SEAL_KEYS": SEAL_KEY}

    def run(*words: str, **settings: str) -> Run:
        with monkeypatch.context() as environment:
            environment.setenv("KEYCACHE_CONFIG", "")  # which --config sets: it ends with the run
            for name, value in {**defaults, **settings}.items():
                environment.setenv(f"KEYCACHE_{name}", value)
            environment.setattr(sys, "argv", ["keycache", *words])
            with pytest.raises(SystemExit) as ended:
                main()
        code = ended.value.code
        assert isinstance(code, int)
        return Run(code, *capsys.readouterr())

    return run

"""The servers that other tests lean on are the real ones, and a missing one is said aloud."""

import subprocess
import sys
from pathlib import Path

import pytest
from redis import Redis

ROOT = Path(__file__).parent.parent.parent


def test_the_embedded_server_is_valkey(valkey_url: str) -> None:
    with Redis.from_url(valkey_url) as client:
        assert "valkey" == client.info("server")["server_name"]


@pytest.mark.parametrize("_", ["first", "second"])
def test_each_test_begins_with_an_empty_server(redis_url: str, _: str) -> None:
    with Redis.from_url(redis_url) as client:
        assert [] == client.keys()
        client.set("left", "behind")


def test_a_server_that_is_not_installed_is_said_aloud_at_the_end() -> None:
    result = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "-p", "no:cacheprovider"),
            *(__file__, "-k", "begins_with_an_empty_server"),
        ],
        cwd=ROOT,
        env={"PATH": "/nowhere"},
        capture_output=True,
        text=True,
        check=False,
    )

    assert "2 passed, 2 skipped" in result.stdout
    assert "2 tests were NOT RUN here. redis-server is not installed" in result.stdout

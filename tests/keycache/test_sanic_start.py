"""JWTAuth before and around its requests: settings, any bytes at all, and real worker processes."""

import asyncio
import http.client
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from app.demo.issuer import DemoIssuer
from keycache.errors import ConfigurationError
from keycache.issuer import Issuer
from keycache.sanic import JWTAuth
from tests.keycache.sanic_api import running

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def demo() -> Iterator[DemoIssuer]:
    with DemoIssuer() as issuer:
        yield issuer


def test_prefix_without_a_slash_in_front_is_refused(demo: DemoIssuer) -> None:
    with pytest.raises(ConfigurationError, match="protect"):
        JWTAuth(issuer=demo.url, audience="api", protect="api")


def test_wrong_settings_are_refused_before_anything_is_served(demo: DemoIssuer) -> None:
    wrong: list[dict[str, Any]] = [
        {"issuer": "http://id.example.com", "audience": "api"},
        {"issuer": demo.url},
        {"issuer": demo.url, "audience": "api", "realm": 'a"b'},
        {"issuer": Issuer(issuer=demo.url, audiences=("api",)), "audience": "api"},
    ]
    for each in wrong:
        with pytest.raises(ConfigurationError):
            JWTAuth(**each)


@pytest.mark.parametrize("scopes", ['a"b', ["a b"], [""], "é"])
def test_scope_that_is_none_is_refused_where_it_is_written(
    demo: DemoIssuer, scopes: str | list[str]
) -> None:
    with pytest.raises(ConfigurationError, match="scopes"):
        JWTAuth(issuer=demo.url, audience="api").required(scopes=scopes)


def head_bytes() -> st.SearchStrategy[bytes]:
    return st.one_of(
        st.binary(max_size=40),
        st.binary(max_size=30).map(b"Bearer ".__add__),
        st.lists(
            st.sampled_from([b"Bearer", b" ", b"\t", b",", b".", b"e30", b"=", b"\x00", b"\xff"]),
            max_size=8,
        ).map(b"".join),
    ).filter(lambda value: b"\r" not in value and b"\n" not in value)


@given(fields=st.lists(head_bytes(), min_size=10, max_size=30))
@example(fields=[b"Bearer e30.e30.e30", b"Bearer eyJhbGciOltdfQ.e30.", b"Bearer W10.W10.W10"])
@settings(max_examples=15, deadline=None, derandomize=True)
def test_no_bytes_in_the_header_are_more_than_a_refusal(
    demo: DemoIssuer, fields: list[bytes]
) -> None:
    async def statuses() -> set[int]:
        async with running(demo) as api:
            return {(await api.get("/api/reports", field)).status for field in fields}

    assert asyncio.run(statuses()) <= {400, 401}


# Five lines in somebody's own file, started in every way that Sanic has -------------------------

EXISTING = """\
import sys

from sanic import Sanic, json

app = Sanic("existing")


@app.get("/api/hello")
async def hello(request):
    return json({"hello": getattr(request.ctx, "user", {}).get("sub")})


@app.get("/open")
async def opened(request):
    return json({})
"""

SECURED = """
from keycache.sanic import JWTAuth

auth = JWTAuth(app, issuer="%(issuer)s", audience="%(audience)s", protect="/api")
"""

RUN = """
if __name__ == "__main__":
    app.run(port=int(sys.argv[1]), %s)
"""

TWO = """
other = Sanic("other")
auth.init_app(other)


@other.get("/api/hello")
async def hello_too(request):
    return json({"hello": request.ctx.user["sub"]})


if __name__ == "__main__":
    for number, each in enumerate((app, other)):
        each.prepare(port=int(sys.argv[1]) + number, workers=1)
    Sanic.serve()
"""

STARTS = {
    "sanic existing:app": ("", ["-m", "sanic", "existing:app", "--workers=2", "--port=%d"], 2),
    "app.run, one process": (RUN % "single_process=True", ["existing.py", "%d"], 1),
    "app.run, two workers": (RUN % "workers=2", ["existing.py", "%d"], 2),
    "two applications": (TWO, ["existing.py", "%d"], 1),
}


def ask(port: int, path: str, token: str | None = None) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        connection.request("GET", path, headers=headers)
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


@pytest.mark.parametrize("start", STARTS)
def test_existing_api_is_secured_in_all_its_workers_however_it_is_started(
    demo: DemoIssuer, tmp_path: Path, start: str
) -> None:
    how, command, workers = STARTS[start]
    values = {"issuer": demo.url, "audience": demo.audience}
    (tmp_path / "existing.py").write_text(EXISTING + SECURED % values + how, encoding="utf-8")
    port = two_free_ports()
    log = tmp_path / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, *(word.replace("%d", str(port)) for word in command)],
            cwd=tmp_path,
            env=os.environ | {"PYTHONPATH": f"{ROOT}:{tmp_path}", "PYTHONUNBUFFERED": "1"},
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        wait_for(log, "Starting worker", workers)
        wait_until_answered(port)
        token = demo.mint(sub="ada")
        ports = [port, port + 1] if start == "two applications" else [port]

        for each in ports:
            assert [(200, b'{"hello":"ada"}')] * 20 == [
                ask(each, "/api/hello", token) for _ in range(20)
            ]
            assert {401} == {ask(each, "/api/hello")[0] for _ in range(20)}
        assert 200 == ask(port, "/open")[0]
    finally:
        # Not SIGTERM: Sanic's own manager may never end when it comes soon after the start.
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    assert token not in log.read_text()


def two_free_ports() -> int:
    """A port that is free, and so is the next one."""
    while True:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            port: int = listener.getsockname()[1]
            try:
                socket.create_server(("127.0.0.1", port + 1)).close()
            except OSError:
                continue
            return port


def wait_until_answered(port: int) -> None:
    deadline = time.monotonic() + 30.0
    while True:
        try:
            ask(port, "/open")
        except OSError:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        else:
            return


def wait_for(log: Path, words: str, times: int) -> None:
    deadline = time.monotonic() + 30.0
    while log.read_text().count(words) < times:
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.05)

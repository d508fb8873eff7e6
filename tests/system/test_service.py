"""The service as an operator meets it: real processes, real sockets, real signals."""

import http.client
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from app.demo.issuer import DemoIssuer
from app.embedded import EmbeddedValkey
from app.sockets import ACCEPTING
from tests.system.load import load, outcome
from tests.system.service import Answer, Service, alive, ask, eventually, request

SEAL_KEY = "A" * 43


@pytest.fixture(scope="module")
def issuer() -> Iterator[DemoIssuer]:
    with DemoIssuer(audience="api") as issuer:
        yield issuer


@pytest.fixture(scope="module")
def shared(issuer: DemoIssuer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """One service for the tests that only ask it things."""
    log = tmp_path_factory.mktemp("service") / "log"
    with Service(log, {"ISSUER": issuer.url, "AUDIENCE": "api"}) as service:
        yield service.wait_until_ready()


@pytest.fixture
def service(issuer: DemoIssuer, tmp_path: Path) -> Iterator[Service]:
    """A service of the test's own, to be killed or stopped."""
    with Service(tmp_path / "log", {"ISSUER": issuer.url, "AUDIENCE": "api"}) as service:
        yield service.wait_until_ready()


def raw(service: Service, sent: bytes) -> Answer:
    """What comes back for these bytes, until the connection is closed."""
    where = urlsplit(service.url)
    with socket.create_connection((where.hostname, where.port), 15) as connection:
        connection.sendall(sent)
        answer = http.client.HTTPResponse(connection)
        answer.begin()
        return Answer(answer.status, dict(answer.getheaders()), answer.read())


def test_ready_line_names_both_addresses_and_the_workers(shared: Service) -> None:
    url = r"http://127\.0\.0\.1:\d+"
    assert re.fullmatch(rf"ready: {url} \(admin {url}\), 2 workers\n", shared.ready_line)


def test_good_token_opens_protected_and_shows_its_claims(
    shared: Service, issuer: DemoIssuer
) -> None:
    answer = request(shared.url, "/protected", issuer.mint(sub="alice"))
    body = answer.json()
    expected = (200, "Access granted", "alice")
    assert expected == (answer.status, body["message"], body["user"]["sub"])


def test_verify_answers_with_the_identity_in_headers(shared: Service, issuer: DemoIssuer) -> None:
    answer = request(shared.url, "/verify", issuer.mint(sub="José", scope="b a"))
    names = ("x-auth-subject", "x-auth-issuer", "x-auth-scope")
    expected = (200, ["Jos%C3%A9", issuer.url, "a b"], b"")
    assert expected == (answer.status, [answer.headers[name] for name in names], answer.body)


REFUSED: list[tuple[str, str, dict[str, str], int, str | None]] = [
    ("GET", "/protected", {}, 401, "No token provided"),
    ("GET", "/protected", {"Authorization": "Bearer rubbish"}, 401, "Invalid token"),
    ("GET", "/protected", {"Authorization": "Bearer a b"}, 400, "Invalid request"),
    ("GET", "/protected", {"Authorization": "Bearer " + "a" * 9000}, 401, "Invalid token"),
    ("GET", "/verify", {}, 401, "No token provided"),
    ("GET", "/", {}, 404, "Not found"),
    ("GET", "/metrics", {}, 404, "Not found"),
    ("GET", "/%00%ff/../x?access_token=t", {}, 404, "Not found"),
    ("POST", "/verify", {}, 405, "Method not allowed"),
    ("OPTIONS", "/protected", {}, 405, "Method not allowed"),
    ("GET", "/protected", {"Cookie": "c" * 20000}, 413, None),
    ("GET", "/protected", {"Expect": "the-unexpected"}, 401, "No token provided"),
]


@pytest.mark.parametrize("case", REFUSED, ids=lambda case: f"{case[0]} {case[1]} {case[3]}")
def test_every_refusal_is_json(
    shared: Service, case: tuple[str, str, dict[str, str], int, str | None]
) -> None:
    method, path, headers, status, error = case
    answer = request(shared.url, path, method=method, **headers)
    assert answer.headers["content-type"] == "application/json"
    assert answer.status == status
    assert answer.json()["error"] == error or error is None


GARBAGE = [
    b"\x16\x03\x01\x02\x00\x01\r\n\r\n",  # the beginning of TLS
    b"GET\r\n\r\n",
    b"GET / HTTP/9.9\r\n\r\n",
    b"GET /protected HTTP/1.1\r\nno colon here\r\n\r\n",
    b"GET /protected HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
    b"GET /protected HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
    "GET /protécted HTTP/1.1\r\n\r\n".encode(),
]


@pytest.mark.parametrize("sent", GARBAGE)
def test_garbage_on_the_wire_is_a_bad_request_in_json(shared: Service, sent: bytes) -> None:
    answer = raw(shared, sent)
    assert (400, {"error": "Bad request"}) == (answer.status, answer.json())


@pytest.mark.parametrize(
    "target", ["GET http://host", "CONNECT host:443", "GET ?x", "OPTIONS *", "GET http:///verify"]
)
def test_target_without_a_path_is_not_found(
    shared: Service, issuer: DemoIssuer, target: str
) -> None:
    head = f"{target} HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer {issuer.mint()}\r\n\r\n"
    assert 404 == raw(shared, head.encode()).status


def test_target_may_be_absolute(shared: Service, issuer: DemoIssuer) -> None:
    head = "GET http://elsewhere/verify HTTP/1.1\r\nHost: h\r\n"
    token = f"Authorization: Bearer {issuer.mint()}\r\n\r\n"
    assert 200 == raw(shared, (head + token).encode()).status


def test_head_is_answered_like_get_without_a_body(shared: Service, issuer: DemoIssuer) -> None:
    answer = request(shared.url, "/protected", issuer.mint(), method="HEAD")
    assert (200, b"") == (answer.status, answer.body)


def test_answer_advertises_nothing_that_is_not_there(shared: Service) -> None:
    assert "alt-svc" not in request(shared.url, "/").headers


def test_405_says_what_is_allowed(shared: Service) -> None:
    allowed = request(shared.url, "/verify", method="PUT").headers["allow"]
    assert {"GET", "HEAD"} == set(allowed.split(", "))


def test_answer_behind_a_token_is_never_stored(shared: Service, issuer: DemoIssuer) -> None:
    answers = [request(shared.url, path, issuer.mint()) for path in ("/protected", "/verify")]
    assert ["no-store", "no-store"] == [each.headers["cache-control"] for each in answers]


def test_admin_endpoints_are_on_the_admin_listener(shared: Service) -> None:
    paths = ("/livez", "/readyz", "/metrics", "/protected")
    assert [200, 200, 200, 404] == [request(shared.admin, path).status for path in paths]


def test_log_holds_no_token_wherever_it_was_sent(service: Service, issuer: DemoIssuer) -> None:
    token = issuer.mint()
    request(service.url, f"/protected?access_token={token}", token)
    request(service.url, f"/{token}")
    raw(service, f"GET /protected?t={token} HTTP/1.1\r\nbroken {token}\r\n\r\n".encode())
    assert service.stop() == 0
    assert token not in service.log()


def kill_and_await_replacement(service: Service) -> float:
    """Returns the seconds from the death of a worker to the first request it could be given."""
    replaced = service.log().count("is ready (pid")
    os.kill(first_worker(service), signal.SIGKILL)
    return eventually(lambda: service.log().count("is ready (pid") > replaced, 20)


def test_worker_that_is_killed_is_replaced_within_two_seconds(service: Service) -> None:
    assert kill_and_await_replacement(service) < 2


def test_counters_never_fall_when_workers_are_killed(service: Service, issuer: DemoIssuer) -> None:
    seen = []
    for _ in range(3):
        for _ in range(10):
            assert request(service.url, "/protected", issuer.mint()).status == 200
        time.sleep(0.2)  # what a killed worker counted in its last tenth of a second is lost
        seen.append(service.metric("keycache_verifications_total", outcome="accepted"))
        kill_and_await_replacement(service)
    assert [10, 20, 30] == seen
    assert service.metric("keycache_worker_restarts_total") == 3


def first_worker(service: Service) -> int:
    """The youngest living worker that has been replaced, or else any worker."""
    known = [pid for pid in service.workers().values() if alive(pid)]
    return known[0] if known else workers_of(service)[0]


def workers_of(service: Service) -> list[int]:
    """The processes that accept on the public socket, by what they have open."""
    port = urlsplit(service.url).port
    inodes = {
        line.split()[9]
        for line in Path("/proc/net/tcp").read_text().splitlines()[1:]
        if line.split()[1].endswith(f":{port:04X}") and line.split()[3] == "0A"
    }
    holders = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            opened = {str(file.readlink()) for file in (process / "fd").iterdir()}
        except OSError:
            continue
        if int(process.name) != service.process.pid and any(
            f"socket:[{inode}]" in opened for inode in inodes
        ):
            holders.append(int(process.name))
    return sorted(holders)


def test_crash_loop_is_said_and_slowed_down(service: Service) -> None:
    for _ in range(3):
        kill_and_await_replacement(service)
    pauses = re.findall(r"starting it again(?: in (\S+) s)?", service.log())
    assert ["", "0.5", "1"] == pauses


def test_service_goes_on_when_its_helpers_are_killed(service: Service, issuer: DemoIssuer) -> None:
    workers = workers_of(service)
    for helper in (forkserver := parent(workers[0]), child_named(service, "valkey-server")):
        os.kill(helper, signal.SIGKILL)
    eventually(lambda: "the embedded Valkey ended (signal 9)" in service.log(), 5)
    os.kill(workers[0], signal.SIGKILL)
    eventually(lambda: "is ready (pid" in service.log(), 20)
    assert parent(first_worker(service)) != forkserver
    assert request(service.url, "/protected", issuer.mint()).status == 200
    assert service.stop() == 0


def test_service_survives_a_forkserver_that_dies_while_it_starts_a_worker(
    service: Service, issuer: DemoIssuer
) -> None:
    workers = workers_of(service)
    forkserver = parent(workers[0])
    os.kill(forkserver, signal.SIGSTOP)  # so that the start is under way when it dies
    os.kill(workers[0], signal.SIGKILL)
    eventually(lambda: "starting it again" in service.log(), 5)
    time.sleep(0.2)  # the supervisor waits for the forkserver's answer by now
    os.kill(forkserver, signal.SIGKILL)
    eventually(lambda: "is ready (pid" in service.log(), 20)
    assert request(service.url, "/protected", issuer.mint()).status == 200
    assert service.stop() == 0


def parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def child_named(service: Service, name: str) -> int:
    (pid,) = [
        int(path.parent.name)
        for path in Path("/proc").glob("[0-9]*/comm")
        if path.read_text().strip() == name and parent(int(path.parent.name)) == service.process.pid
    ]
    return pid


def test_draining_answers_the_request_in_flight(tmp_path: Path) -> None:
    with (
        DemoIssuer(audience="api") as issuer,
        Service(tmp_path / "log", {"ISSUER": issuer.url, "AUDIENCE": "api"}) as service,
    ):
        service.wait_until_ready()
        issuer.rotate()  # nobody knows the new key yet,
        issuer.hang(0.6)  # and asking for it takes longer than the first moments of a drain
        threads = load(service, issuer.mint(), 1, until_refused=False)
        time.sleep(0.3)
        assert service.stop() == 0
        assert ({200}, []) == outcome(threads)


def test_draining_serves_the_client_that_has_just_connected(
    service: Service, issuer: DemoIssuer
) -> None:
    connection = http.client.HTTPConnection(urlsplit(service.url).netloc, timeout=15)
    service.process.terminate()
    connection.connect()
    time.sleep(ACCEPTING + 0.2)  # the workers accept no more, and this one has said nothing yet
    answer = ask(connection, "/protected", issuer.mint())
    assert (200, "close") == (answer.status, answer.headers["connection"])
    assert service.process.wait(20) == 0


@pytest.mark.parametrize("path", ["/protected", "/verify"])
def test_draining_under_load_loses_no_request(
    service: Service, issuer: DemoIssuer, path: str
) -> None:
    threads = load(service, issuer.mint(), 2000, until_refused=True, path=path)
    time.sleep(0.5)
    code = service.stop()
    assert (0, ({200}, [])) == (code, outcome(threads))


def test_nobody_is_refused_while_a_worker_is_told_to_stop(
    service: Service, issuer: DemoIssuer
) -> None:
    threads = load(service, issuer.mint(), 200, until_refused=False)
    time.sleep(0.3)
    os.kill(workers_of(service)[0], signal.SIGTERM)
    assert ({200}, []) == outcome(threads)
    assert "(pid" in service.log()
    assert "exit status 0" in service.log()


def test_idle_connection_does_not_hold_the_drain(service: Service, issuer: DemoIssuer) -> None:
    connection = http.client.HTTPConnection(urlsplit(service.url).netloc)
    assert ask(connection, "/protected", issuer.mint()).status == 200
    started = time.monotonic()
    assert service.stop() == 0
    assert time.monotonic() - started < 5
    connection.close()


def test_ctrl_c_in_a_terminal_drains_too(service: Service) -> None:
    os.killpg(service.process.pid, signal.SIGINT)
    assert service.process.wait(20) == 0
    assert "Traceback" not in service.log()


def test_nothing_is_left_when_it_has_stopped(service: Service) -> None:
    valkey = child_named(service, "valkey-server")
    directory = Path(f"/proc/{valkey}/cwd").readlink()
    left = [*workers_of(service), parent(workers_of(service)[0]), valkey]
    assert service.stop() == 0
    eventually(lambda: not any(map(alive, left)), 3)
    assert not directory.exists()


def test_workers_and_valkey_end_when_the_supervisor_is_killed(service: Service) -> None:
    left = [*workers_of(service), child_named(service, "valkey-server")]
    service.process.kill()
    eventually(lambda: not any(map(alive, left)), 5)


def test_request_beyond_the_grace_period_is_cut_and_said(tmp_path: Path) -> None:
    with (
        DemoIssuer(audience="api") as issuer,
        Service(
            tmp_path / "log",
            {"ISSUER": issuer.url, "AUDIENCE": "api", "WAIT": 20, "GRACE": 1, "FETCH_TIMEOUT": 2},
        ) as service,
    ):
        service.wait_until_ready()
        issuer.rotate()
        issuer.hang(30)
        threads = load(service, issuer.mint(), 1, until_refused=False)
        time.sleep(0.3)
        assert service.stop() == 1
        assert "a request was cut: the grace period of 1 s is over" in service.log()
        outcome(threads)


def test_second_signal_ends_it_at_once(tmp_path: Path) -> None:
    with (
        DemoIssuer(audience="api") as issuer,
        Service(tmp_path / "log", {"ISSUER": issuer.url, "AUDIENCE": "api", "WAIT": 20}) as service,
    ):
        service.wait_until_ready()
        issuer.rotate()
        issuer.hang(30)
        threads = load(service, issuer.mint(), 1, until_refused=False)
        time.sleep(0.3)
        service.process.terminate()
        eventually(lambda: "draining" in service.log(), 5)
        time.sleep(0.2)
        started = time.monotonic()
        assert service.stop() == 1
        assert time.monotonic() - started < 3
        outcome(threads)


def test_readiness_says_which_issuer_has_no_keys(tmp_path: Path) -> None:
    with (
        DemoIssuer(audience="api") as issuer,
        Service(tmp_path / "log", {"ISSUER": issuer.url, "AUDIENCE": "api"}) as service,
    ):
        issuer.fail(503)
        service.wait_until_ready()
        answer = request(service.admin, "/readyz")
        name = urlsplit(issuer.url).netloc
        reasons = [f"{name}: no keys yet: the issuer has not answered"]
        assert (503, {"status": "not ready", "reasons": reasons}) == (answer.status, answer.json())


def test_readiness_is_degraded_while_redis_is_down(issuer: DemoIssuer, tmp_path: Path) -> None:
    directory = Path(tempfile.mkdtemp(dir="/tmp"))  # a short path, for the socket
    valkey = EmbeddedValkey(directory)
    os.close(valkey.start())
    valkey.wait_until_ready(10)
    settings = {"REDIS_URL": valkey.url, "SEAL_KEYS": SEAL_KEY, "POLL": 0.2}
    try:
        with Service(
            tmp_path / "log", {"ISSUER": issuer.url, "AUDIENCE": "api"} | settings
        ) as service:
            service.wait_until_ready()
            assert request(service.url, "/protected", issuer.mint()).status == 200
            eventually(lambda: request(service.admin, "/readyz").json()["status"] == "ready", 10)
            valkey.stop()
            eventually(lambda: request(service.admin, "/readyz").json()["status"] == "degraded", 10)
            assert request(service.admin, "/readyz").status == 200
    finally:
        valkey.stop()
        directory.rmdir()


def serve(**settings: str) -> subprocess.CompletedProcess[str]:
    """A start that is expected to fail."""
    environment = {name: value for name, value in os.environ.items() if "KEYCACHE" not in name}
    environment |= {f"KEYCACHE_{name}": value for name, value in settings.items()}
    return subprocess.run(
        [sys.executable, "-m", "app.cli.main", "serve"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def test_wrong_settings_stop_the_start_with_all_problems() -> None:
    ended = serve(TTL="1", PORT="x")
    said = re.findall(r"^keycache: (\w+):", ended.stderr, re.MULTILINE)
    expected = [f"KEYCACHE_{name}" for name in ("PORT", "ISSUER", "AUDIENCE", "TTL")]
    assert (2, expected, "") == (ended.returncode, said, ended.stdout)


def test_port_in_use_stops_the_start_with_what_to_change() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        ended = serve(ISSUER="https://i.example", AUDIENCE="a", PORT=str(port))
    assert ended.stderr == f"keycache: port {port} is in use; set KEYCACHE_PORT\n"
    assert ended.returncode == 2


def test_worker_that_refuses_its_settings_stops_the_first_start() -> None:
    # Only the workers, which know Redis, can look into this URL.
    settings = {"REDIS_URL": "redis://h:x", "SEAL_KEYS": SEAL_KEY, "PORT": "0", "ADMIN_PORT": "0"}
    ended = serve(ISSUER="https://i.example", AUDIENCE="a", **settings)
    assert ended.stderr.startswith("keycache: KEYCACHE_REDIS_URL: cannot be read")
    assert (2, "") == (ended.returncode, ended.stdout)

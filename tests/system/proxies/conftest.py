"""What stands around a proxy: an issuer, a real `keycache serve`, and the API behind."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from app.demo.issuer import DemoIssuer
from tests.system.proxies.proxies import KINDS, Proxy
from tests.system.proxies.upstream import Received, Recorder, Reply
from tests.system.service import Service

AUDIENCE = "api"


@pytest.fixture(scope="module", params=list(KINDS))
def kind(request: pytest.FixtureRequest) -> str:
    """One proxy after the other."""
    return str(request.param)


@pytest.fixture(scope="session")
def issuer() -> Iterator[DemoIssuer]:
    with DemoIssuer(AUDIENCE) as issuer:
        yield issuer


@pytest.fixture(scope="session")
def keycache(issuer: DemoIssuer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """The service, with room for all the forged kids of these tests."""
    settings = {"ISSUER": issuer.url, "AUDIENCE": AUDIENCE, "BUDGET": 1000}
    with Service(tmp_path_factory.mktemp("keycache") / "log", settings) as service:
        yield service.wait_until_ready()


@pytest.fixture(scope="session")
def silent_issuer() -> Iterator[DemoIssuer]:
    """An issuer that never publishes a key."""
    with DemoIssuer(AUDIENCE) as issuer:
        issuer.fail(503)
        yield issuer


@pytest.fixture(scope="session")
def keycache_without_keys(
    silent_issuer: DemoIssuer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Service]:
    settings = {"ISSUER": silent_issuer.url, "AUDIENCE": AUDIENCE, "WORKERS": 1}
    with Service(tmp_path_factory.mktemp("keyless") / "log", settings) as service:
        yield service.wait_until_ready()


@pytest.fixture(scope="session")
def one_api() -> Iterator[Recorder]:
    with Recorder(upgrading) as api:
        yield api


@pytest.fixture
def api(one_api: Recorder) -> Recorder:
    """The API behind the proxy, which has seen nothing yet."""
    one_api.received.clear()
    return one_api


def upgrading(received: Received) -> Reply:
    """As an API that speaks whatever it is asked to."""
    protocol = received.values("Upgrade")
    if not protocol:
        return Reply(body=b"from the API")
    # What RFC 6455 section 1.3 answers to the key of its example, which our tests send.
    accept = {"Sec-WebSocket-Accept": "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="}
    return Reply(101, {"Connection": "Upgrade", "Upgrade": protocol[0]} | accept)


@pytest.fixture(scope="module")
def running() -> Iterator[tuple[ExitStack, dict[str, Proxy]]]:
    with ExitStack() as stack:
        yield stack, {}


@pytest.fixture
def proxy(
    kind: str,
    keycache: Service,
    api: Recorder,
    running: tuple[ExitStack, dict[str, Proxy]],
) -> Proxy:
    """The proxy in front of the API, asking keycache; one process for many tests."""
    stack, proxies = running
    if kind not in proxies:
        made = Proxy(kind, [port(keycache)], api.port)
        proxies[kind] = stack.enter_context(made).wait_until_ready()
    return proxies[kind]


@pytest.fixture
def proxy_that_asks(kind: str, api: Recorder) -> Iterator[Callable[[Sequence[int]], Proxy]]:
    """Starts the proxy with verifiers on these ports."""
    with ExitStack() as stack:

        def start(verifiers: Sequence[int]) -> Proxy:
            made = Proxy(kind, verifiers, api.port)
            return stack.enter_context(made).wait_until_ready()

        yield start


@pytest.fixture
def start_keycache(issuer: DemoIssuer, tmp_path: Path) -> Iterator[Callable[..., Service]]:
    """Starts another `keycache serve`, with these settings beside the usual ones."""
    with ExitStack() as stack:

        def start(**settings: object) -> Service:
            log = tmp_path / f"log-{len(list(tmp_path.iterdir()))}"
            usual = {"ISSUER": issuer.url, "AUDIENCE": AUDIENCE, "WORKERS": 1}
            return stack.enter_context(Service(log, usual | settings)).wait_until_ready()

        yield start


def port(service: Service) -> int:
    """The port of the public listener."""
    found = urlsplit(service.url).port
    assert found is not None
    return found

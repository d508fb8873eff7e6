"""The whole path: a real identity provider's token in, claims out, on four worker processes."""

import json
import os
import subprocess
import sys
import threading
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

import httpx
import jwt
import pytest

from app.demo.issuer import DemoIssuer
from tests.system.identity_provider import IdentityProvider
from tests.system.processes import connections_to_every_worker
from tests.system.service import Answer, Service, ask, eventually, request

API = "https://api.example"
SEAL_KEY = "A" * 43
REQUESTS = 1000
CONNECTIONS = 20
COUNTED_WITHIN = 1.0  # seconds; a worker flushes what it counted every tenth of a second


def serve(log: Path, provider: IdentityProvider, **settings: str) -> Service:
    """Four workers that trust this provider, and give Redis time on a machine that is busy."""
    patience = {"REDIS_CONNECT": "2", "REDIS_TIMEOUT": "2"}
    return Service(
        log, {"ISSUER": provider.issuer, "AUDIENCE": API, "WORKERS": "4"} | patience | settings
    )


@pytest.fixture
def four_workers(identity_provider: IdentityProvider, tmp_path: Path) -> Iterator[Service]:
    with serve(tmp_path / "log", identity_provider) as service:
        yield service.wait_until_ready()


def ask_every_worker(service: Service, token: str) -> list[Answer]:
    """Present this token to all workers at the same moment."""
    with connections_to_every_worker(service) as connections:
        start = threading.Barrier(len(connections))

        def present(connection: HTTPConnection) -> Answer:
            start.wait(10)
            return ask(connection, "/protected", token)

        with ThreadPoolExecutor(len(connections)) as pool:
            return list(pool.map(present, connections))


def test_thousand_tokens_are_accepted_and_any_worker_counts_all_of_them(
    identity_provider: IdentityProvider, four_workers: Service
) -> None:
    tokens = [
        identity_provider.token(API, "read", algorithm)
        for algorithm in ("RS256", "ES256", "EdDSA")
        for _ in range(5)
    ]

    def present(first: int) -> list[int]:
        connection = HTTPConnection(urlsplit(four_workers.url).netloc, timeout=15)
        numbers = range(first, REQUESTS, CONNECTIONS)
        asked = [ask(connection, "/protected", tokens[n % len(tokens)]) for n in numbers]
        connection.close()
        return [answer.status for answer in asked]

    with ThreadPoolExecutor(CONNECTIONS) as pool:
        statuses = [status for some in pool.map(present, range(CONNECTIONS)) for status in some]
    assert [200] * REQUESTS == statuses

    def counted() -> float:
        return four_workers.metric("keycache_verifications_total", outcome="accepted")

    eventually(lambda: counted() == REQUESTS, COUNTED_WITHIN)
    # Each page may come from another worker; all say the same.
    assert [REQUESTS] * 20 == [counted() for _ in range(20)]
    assert REQUESTS == four_workers.metric("keycache_verification_duration_seconds_count")


def test_handler_sees_the_claims_that_the_provider_signed(
    identity_provider: IdentityProvider, four_workers: Service
) -> None:
    token = identity_provider.token(API, "read write")
    signed = jwt.decode(token, options={"verify_signature": False})
    body = request(four_workers.url, "/protected", token).json()
    assert {"message": "Access granted", "user": signed} == body


def test_rotated_keys_are_accepted_on_the_first_request_by_every_worker_after_one_fetch(
    identity_provider: IdentityProvider, four_workers: Service
) -> None:
    before = identity_provider.token(API)
    assert [200] * 4 == [answer.status for answer in ask_every_worker(four_workers, before)]
    assert 1 == identity_provider.jwks_fetches()
    identity_provider.rotate()
    after = identity_provider.token(API)
    answers = ask_every_worker(four_workers, after)
    assert [200] * 4 == [answer.status for answer in answers]
    assert 2 == identity_provider.jwks_fetches()


def test_workers_that_start_after_a_warm_never_ask_for_the_keys(
    identity_provider: IdentityProvider, redis_url: str, tmp_path: Path
) -> None:
    shared = {"REDIS_URL": redis_url, "SEAL_KEYS": SEAL_KEY}
    settings = {"ISSUER": identity_provider.issuer, "AUDIENCE": API} | shared
    warm = keycache("warm", settings)
    assert (0, "") == (warm.returncode, warm.stderr)
    assert 1 == identity_provider.jwks_fetches()
    token = identity_provider.token(API)
    with serve(tmp_path / "log", identity_provider, **shared) as service:
        service.wait_until_ready()
        assert 200 == request(service.url, "/protected", token).status
        assert 1 == identity_provider.jwks_fetches()
        answers = ask_every_worker(service, token)
        assert [200] * 4 == [answer.status for answer in answers]
    assert 1 == identity_provider.jwks_fetches()


def keycache(command: str, settings: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    """Run `keycache COMMAND` with these settings and no others."""
    inherited = {name: text for name, text in os.environ.items() if "KEYCACHE_" not in name}
    return subprocess.run(
        [sys.executable, "-m", "app.cli.main", command],
        env=inherited | {f"KEYCACHE_{name}": text for name, text in settings.items()},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


class World(NamedTuple):
    """Two issuers that the service trusts, one that it does not, and the service."""

    provider: IdentityProvider
    demo: DemoIssuer
    stranger: DemoIssuer
    service: Service


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("world")
    config = folder / "keycache.toml"
    with (
        IdentityProvider() as provider,
        DemoIssuer(audience=API) as demo,
        DemoIssuer(audience=API) as stranger,
    ):
        config.write_text(
            f'audience = "{API}"\n'
            f'[[issuers]]\nissuer = "{provider.issuer}"\n'
            f'[[issuers]]\nissuer = "{demo.url}"\n'
        )
        with Service(folder / "log", {"CONFIG": config, "WORKERS": "4"}) as service:
            yield World(provider, demo, stranger, service.wait_until_ready())


def encoded(value: Mapping[str, object]) -> str:
    return urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()


def with_header(token: str, **members: object) -> str:
    """The token with these members in its header, and its signature as it was."""
    _, payload, signature = token.split(".")
    return f"{encoded(jwt.get_unverified_header(token) | members)}.{payload}.{signature}"


def with_claims(token: str, **claims: object) -> str:
    """The token with these claims, and its signature as it was."""
    header, _, signature = token.split(".")
    payload = jwt.decode(token, options={"verify_signature": False}) | claims
    return f"{header}.{encoded(payload)}.{signature}"


def signed_with_the_public_key(world: World) -> str:
    """CVE-2015-9235: HS256, with what everybody knows as the secret."""
    (key,) = (
        key
        for key in httpx.get(world.provider.jwks_url, trust_env=False).json()["keys"]
        if key["alg"] == "RS256"
    )
    secret = urlsafe_b64decode(key["n"] + "==")
    claims = jwt.decode(world.provider.token(API), options={"verify_signature": False})
    return jwt.encode(claims, secret, "HS256", {"kid": key["kid"]})


BAD: dict[str, tuple[str, Callable[[World], str]]] = {
    "rubbish": ("malformed", lambda _: "rubbish"),
    "cut off": ("malformed", lambda w: w.provider.token(API).rpartition(".")[0]),
    "padded": ("malformed", lambda w: w.provider.token(API) + "="),
    "for somebody else": ("wrong_audience", lambda w: w.provider.token("https://other.example")),
    "claims changed": ("bad_signature", lambda w: with_claims(w.provider.token(API), sub="root")),
    "signed with a key of nobody": (
        "bad_signature",
        lambda w: w.demo.forge(kid=w.demo.kids("ES256")[-1]),
    ),
    "of a kid of nobody": ("unknown_key", lambda w: w.demo.forge()),
    "of the other issuer's kid": (
        "unknown_key",
        lambda w: with_header(w.provider.token(API), kid=w.demo.kids("RS256")[-1]),
    ),
    "no signature": (
        "unsupported_algorithm",
        lambda w: with_header(w.provider.token(API), alg="none").rpartition(".")[0] + ".",
    ),
    "HMAC with the public key": ("unsupported_algorithm", signed_with_the_public_key),
    "of a stranger": ("unknown_issuer", lambda w: w.stranger.mint()),
    "expired": ("expired", lambda w: w.demo.mint(exp=1)),
    "from tomorrow": ("not_yet_valid", lambda w: w.demo.mint(nbf=9_000_000_000)),
    "without exp": ("missing_claim", lambda w: w.demo.mint(exp=None)),
    "exp as text": ("invalid_claim", lambda w: w.demo.mint(exp="9000000000")),
}


@pytest.mark.parametrize("kind", BAD)
def test_bad_token_is_refused_with_its_reason(world: World, kind: str) -> None:
    reason, make = BAD[kind]
    answer = request(world.service.url, "/protected", make(world))
    body = answer.json()
    assert (401, "Invalid token", reason) == (answer.status, body["error"], body["reason"])
    challenge = f'error="invalid_token", error_description="{body["details"]}"'
    assert f'Bearer realm="api", {challenge}' == answer.headers["www-authenticate"]


def test_both_issuers_of_one_service_are_accepted(world: World) -> None:
    tokens = (world.provider.token(API), world.demo.mint())
    assert [200, 200] == [request(world.service.url, "/protected", t).status for t in tokens]


def test_no_token_is_a_challenge_without_an_error(world: World) -> None:
    answer = request(world.service.url, "/protected")
    assert (401, {"error": "No token provided"}) == (answer.status, answer.json())
    assert 'Bearer realm="api"' == answer.headers["www-authenticate"]


def test_two_tokens_are_a_bad_request(world: World) -> None:
    connection = HTTPConnection(urlsplit(world.service.url).netloc, timeout=15)
    connection.putrequest("GET", "/protected")
    for token in (world.provider.token(API), world.provider.token(API)):
        connection.putheader("Authorization", f"Bearer {token}")
    connection.endheaders()
    with connection.getresponse() as answer:
        body = json.loads(answer.read())
    connection.close()
    assert (400, "Invalid request") == (answer.status, body["error"])


def test_rfc_9068_profile_accepts_access_tokens_and_refuses_the_others(
    identity_provider: IdentityProvider, tmp_path: Path
) -> None:
    config = tmp_path / "keycache.toml"
    with DemoIssuer(audience=API) as demo:
        config.write_text(
            f'audience = "{API}"\ntyp = ["at+jwt"]\n'
            f'[[issuers]]\nissuer = "{identity_provider.issuer}"\n'
            f'[[issuers]]\nissuer = "{demo.url}"\n'
        )
        with Service(tmp_path / "log", {"CONFIG": config, "WORKERS": "4"}) as service:
            service.wait_until_ready()
            good = request(service.url, "/protected", identity_provider.token(API))
            plain = request(service.url, "/protected", demo.mint())
    assert (200, 401, "wrong_type") == (good.status, plain.status, plain.json()["reason"])

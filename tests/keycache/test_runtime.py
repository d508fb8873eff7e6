"""One process with its real parts: opened, used and closed over a real Valkey and a real issuer."""

import asyncio
import json
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from math import inf, nan
from typing import Any

import pytest
from redis import Redis

from app.demo.issuer import ALGORITHMS, DemoIssuer
from keycache import runtime as runtimes
from keycache.adapters.redis_client import RedisClient
from keycache.core.budget import Limits
from keycache.core.decision import Age
from keycache.core.keys import SkippedKey, SkipReason
from keycache.core.revocation import Kind
from keycache.errors import (
    ConfigurationError,
    FetchCode,
    JWKSError,
    RecordCode,
    RecordError,
    StoreError,
    TokenError,
    UnavailableError,
)
from keycache.events import Event, Path, Result, StoreChanged, Unverifiable, Verified
from keycache.issuer import Issuer
from keycache.runtime import IssuerHealth, Options, Runtime, probe, probe_store
from keycache.testing.signing import new_key, public_jwk
from tests.keycache.parts import at_once

SEAL_KEY = b"s" * 32
NO_REDIS = "unix:///nowhere/redis.sock"
PATIENT = {"seal_keys": (SEAL_KEY,), "redis_connect": 5.0, "redis_timeout": 5.0, "wait": 5.0}
"""What is shown here does not depend on how busy the machine is."""

Make = Callable[..., Runtime]


@pytest.fixture
def demo() -> Iterator[DemoIssuer]:
    with DemoIssuer() as issuer:
        yield issuer


def issuer_of(demo: DemoIssuer, **changes: Any) -> Issuer:  # noqa: ANN401 - any field of Issuer
    return Issuer(**{"issuer": demo.url, "audiences": (demo.audience,), "name": "demo", **changes})


@pytest.fixture
async def events() -> list[Event]:
    return []


@pytest.fixture
async def make(demo: DemoIssuer, valkey_url: str, events: list[Event]) -> Any:  # noqa: ANN401
    """Makes a runtime for the demo issuer over one Valkey; all are closed in the end."""
    made: list[Runtime] = []

    def make(redis_url: str | None = valkey_url, **changes: Any) -> Runtime:  # noqa: ANN401
        options = Options(**{"redis_url": redis_url, **PATIENT, **changes})
        made.append(Runtime([issuer_of(demo)], options, events.append))
        return made[-1]

    yield make
    for runtime in made:
        await runtime.close()


def only(runtime: Runtime) -> Issuer:
    (issuer,) = runtime.issuers
    return issuer


def health(runtime: Runtime) -> IssuerHealth:
    (health,) = runtime.health()
    return health


async def until(condition: Callable[[], bool]) -> None:
    """Wait for what comes by itself, for a while."""
    for _ in range(2000):
        if condition():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it does not come")


# -- opened and closed -----------------------------------------------------------------------------


async def test_closed_runtime_leaves_no_task(make: Make, demo: DemoIssuer) -> None:
    before = asyncio.all_tasks()
    runtime = make()
    await runtime.open()
    await runtime.authenticator.authenticate(demo.mint())
    assert len(before) < len(asyncio.all_tasks())
    await runtime.close()
    assert before == asyncio.all_tasks()


async def test_closed_runtime_leaves_no_connection(make: Make, valkey_url: str) -> None:
    def connections(client: Redis) -> int:
        clients: Any = client.client_list()
        return len(clients)

    with Redis.from_url(valkey_url) as client:
        before = connections(client)
        runtime = make()
        await runtime.open()
        await runtime.warm(only(runtime))
        assert before < connections(client)
        await runtime.close()
        await until(lambda: before == connections(client))  # the server notices in its own time


async def test_opening_waits_for_neither_redis_nor_issuer(make: Make, demo: DemoIssuer) -> None:
    demo.hang(60.0)
    at_once(make(NO_REDIS, fetch_connect=0.1, fetch_timeout=0.1).open())


async def test_runtime_that_was_never_opened_can_be_closed(make: Make) -> None:
    await make().close()


async def test_closing_lets_the_fetch_in_progress_come_to_its_end(
    make: Make, demo: DemoIssuer
) -> None:
    demo.latency = 0.3
    runtime, other = make(), make()
    await runtime.open()
    await until(lambda: demo.discovery_fetches > 0)
    await runtime.close()
    assert await other.inspect(only(other)) is not None
    assert 1 == demo.jwks_fetches


async def test_closing_waits_for_a_fetch_no_longer_than_it_may_take(
    make: Make, demo: DemoIssuer
) -> None:
    demo.hang(60.0)
    runtime = make(fetch_connect=0.2, fetch_timeout=0.2)
    await runtime.open()
    await until(lambda: demo.discovery_fetches > 0)
    started = time.monotonic()
    await runtime.close()
    assert time.monotonic() - started < 5.0


# -- verifying and sharing -------------------------------------------------------------------------


async def test_token_of_every_algorithm_of_the_issuer_is_accepted(
    make: Make, demo: DemoIssuer
) -> None:
    runtime = make()
    await runtime.open()
    for alg in ALGORITHMS:
        claims = await runtime.authenticator.authenticate(demo.mint(alg=alg, sub=alg))
        assert (demo.url, alg) == (claims["iss"], claims["sub"])


async def test_two_runtimes_share_one_fetch(make: Make, demo: DemoIssuer) -> None:
    runtimes = [make(), make()]
    for runtime in runtimes:
        await runtime.open()
    token = demo.mint()
    await asyncio.gather(*(runtime.authenticator.authenticate(token) for runtime in runtimes))
    assert 1 == demo.jwks_fetches
    assert 1 == len({health(runtime).version for runtime in runtimes})


async def test_rotated_key_is_accepted_by_two_runtimes_on_the_first_request_for_one_fetch(
    make: Make, demo: DemoIssuer
) -> None:
    runtimes = [make(), make()]
    for runtime in runtimes:
        await runtime.open()
        await runtime.authenticator.authenticate(demo.mint())
    demo.rotate()
    token = demo.mint()
    await asyncio.gather(*(runtime.authenticator.authenticate(token) for runtime in runtimes))
    assert 2 == demo.jwks_fetches


async def test_removed_key_is_gone_from_the_other_runtime_soon(
    make: Make, demo: DemoIssuer
) -> None:
    operator, worker = make(), make(poll=1.0)
    token = demo.mint(alg="ES256")
    await worker.open()
    await worker.authenticator.authenticate(token)
    (kid,) = demo.kids("ES256")
    demo.remove(kid)
    warmed = await operator.warm(only(operator), force=True)
    await until(lambda: health(worker).version == warmed.version)
    with pytest.raises(TokenError, match="unknown_key"):
        await worker.authenticator.authenticate(token)


async def test_process_without_redis_has_keys_of_its_own(make: Make, demo: DemoIssuer) -> None:
    for _ in range(2):
        runtime = make(None)
        await runtime.open()
        await runtime.authenticator.authenticate(demo.mint())
        assert runtime.store_up
    assert 2 == demo.jwks_fetches


async def test_redis_that_is_not_there_is_said_and_does_without(
    make: Make, demo: DemoIssuer, events: list[Event]
) -> None:
    runtime = make(NO_REDIS)
    up = [runtime.store_up]
    await runtime.open()
    await runtime.authenticator.authenticate(demo.mint())
    assert [True, False] == [*up, runtime.store_up]
    assert [False] == [event.up for event in events if isinstance(event, StoreChanged)]


async def test_options_reach_the_parts(make: Make, demo: DemoIssuer, events: list[Event]) -> None:
    runtime = make(token_cache=0, token_bytes=1500, kid_chars=4)
    await runtime.open()
    token = demo.mint(alg="ES256")
    with pytest.raises(TokenError, match="malformed: The kid"):
        await runtime.authenticator.authenticate(token)
    with pytest.raises(TokenError, match="too_large"):
        await runtime.authenticator.authenticate(demo.mint(padding="x" * 1500))
    other = make(token_cache=0)
    await other.open()
    for _ in range(2):
        await other.authenticator.authenticate(token)
    paths = [event.path for event in events if isinstance(event, Verified)]
    assert [Path.WAITED, Path.MEMORY] == paths


# -- health ----------------------------------------------------------------------------------------


async def test_health_of_an_issuer_before_and_after_its_keys_are_there(make: Make) -> None:
    runtime = make()
    assert [IssuerHealth("demo", Age.ABSENT, 0, 0, None)] == runtime.health()
    started = time.time()
    warmed = await runtime.warm(only(runtime))
    now = health(runtime)
    assert ("demo", Age.FRESH, 3, warmed.version) == now[:4]
    assert now.fetched_at is not None
    assert started - 0.001 <= now.fetched_at <= time.time()


# -- warm ------------------------------------------------------------------------------------------


async def test_warming_fetches_once_and_then_finds_the_work_done(
    make: Make, demo: DemoIssuer
) -> None:
    first, second = make(), make()
    warmed = [await first.warm(only(first)), await second.warm(only(second))]
    assert [("demo", Result.FETCHED, 3), ("demo", Result.SHARED, 3)] == [
        (each.name, each.result, each.keys) for each in warmed
    ]
    assert warmed[0].version == warmed[1].version
    assert 1 == demo.jwks_fetches


async def test_worker_that_starts_after_the_warming_fetches_nothing(
    make: Make, demo: DemoIssuer
) -> None:
    operator, worker = make(), make()
    await operator.warm(only(operator))
    await worker.open()
    await worker.authenticator.authenticate(demo.mint())
    assert 1 == demo.jwks_fetches


async def test_forced_warming_asks_the_issuer_again(make: Make, demo: DemoIssuer) -> None:
    first, second = make(), make()
    before = await first.warm(only(first))
    demo.rotate("EdDSA")
    after = await second.warm(only(second), force=True)
    assert (Result.FETCHED, 2) == (after.result, demo.jwks_fetches)
    assert before.version < after.version


async def test_two_who_warm_together_fetch_once(make: Make, demo: DemoIssuer) -> None:
    demo.latency = 0.1
    runtimes = [make(), make()]
    warmed = await asyncio.gather(*(runtime.warm(only(runtime)) for runtime in runtimes))
    assert {Result.FETCHED, Result.SHARED} == {each.result for each in warmed}
    assert 1 == demo.jwks_fetches


async def test_forced_warming_waits_for_the_fetch_in_progress(make: Make, demo: DemoIssuer) -> None:
    demo.latency = 0.1
    runtimes = [make(), make()]
    warmed = await asyncio.gather(
        *(runtime.warm(only(runtime), force=True) for runtime in runtimes)
    )
    assert [3, 3] == [each.keys for each in warmed]


async def test_warming_an_issuer_that_fails_says_why(make: Make, demo: DemoIssuer) -> None:
    demo.malformed(b'{"keys": []}')
    runtime = make()
    with pytest.raises(JWKSError) as caught:
        await runtime.warm(only(runtime))
    assert FetchCode.NO_USABLE_KEY is caught.value.code


async def test_warming_again_within_the_pause_after_a_failure_says_how_long_to_wait(
    make: Make, demo: DemoIssuer
) -> None:
    demo.fail(503)
    runtime = make(limits=Limits(budget=1))
    with pytest.raises(JWKSError):
        await runtime.warm(only(runtime))
    with pytest.raises(UnavailableError, match="may not ask this issuer now") as caught:
        await runtime.warm(only(runtime))
    assert 1 <= caught.value.retry_after <= 30
    assert (0, 1) == (demo.jwks_fetches, demo.discovery_fetches)


async def test_failed_warming_leaves_the_keys_that_were_there(make: Make, demo: DemoIssuer) -> None:
    runtime = make()
    before = await runtime.warm(only(runtime))
    demo.fail(503)
    with pytest.raises(JWKSError):
        await runtime.warm(only(runtime), force=True)
    kept = await runtime.inspect(only(runtime))
    assert kept is not None
    assert before.version == kept.version == health(runtime).version


async def test_warming_without_the_redis_that_was_named_is_a_store_error(make: Make) -> None:
    runtime = make(NO_REDIS)
    with pytest.raises(StoreError):
        await runtime.warm(only(runtime))


# -- inspect ---------------------------------------------------------------------------------------


async def test_empty_store_has_nothing_to_inspect(make: Make) -> None:
    runtime = make()
    assert await runtime.inspect(only(runtime)) is None


async def test_inspection_tells_what_the_store_holds_and_asks_nobody(
    make: Make, demo: DemoIssuer
) -> None:
    operator, reader = make(), make()
    warmed = await operator.warm(only(operator))
    seen = await reader.inspect(only(reader))
    assert seen is not None
    assert ("demo", Age.FRESH, warmed.version) == seen[:3]
    assert [300.0, 3900.0] == [
        round(moment - seen.fetched_at, 3) for moment in (seen.fresh_until, seen.stale_until)
    ]
    assert demo.kids() == [key.kid for key in seen.keys]
    assert [("RSA", 2048), ("EC", 256), ("OKP", 255)] == [(key.kty, key.size) for key in seen.keys]
    assert ((), 1) == (seen.skipped, demo.jwks_fetches)
    assert Age.ABSENT is health(reader).age


async def test_inspection_lists_each_key_that_was_skipped(make: Make, demo: DemoIssuer) -> None:
    jwks = {"keys": [public_jwk(new_key("ES256")), {"kty": "oct", "kid": "secret"}]}
    demo.malformed(json.dumps(jwks).encode())
    runtime = make()
    await runtime.warm(only(runtime))
    seen = await runtime.inspect(only(runtime))
    assert seen is not None
    assert (1, (SkippedKey("secret", SkipReason.UNKNOWN_KTY),)) == (len(seen.keys), seen.skipped)


async def test_inspection_with_another_seal_key_is_refused(make: Make) -> None:
    operator, reader = make(), make(seal_keys=(b"o" * 32,))
    await operator.warm(only(operator))
    with pytest.raises(RecordError) as caught:
        await reader.inspect(only(reader))
    assert RecordCode.SEAL is caught.value.code


async def test_inspection_without_redis_is_a_store_error(make: Make) -> None:
    runtime = make(NO_REDIS)
    with pytest.raises(StoreError):
        await runtime.inspect(only(runtime))


# -- probe -----------------------------------------------------------------------------------------


async def test_probe_says_where_the_keys_are_and_how_far_the_clocks_are_apart(
    demo: DemoIssuer,
) -> None:
    for ahead in (0.0, 90.0, -90.0):
        demo.clock_offset = ahead
        seen = await probe(issuer_of(demo), Options())
        assert (demo.jwks_url, demo.kids()) == (seen.jwks_url, [key.kid for key in seen.keys])
        assert ahead == pytest.approx(seen.date_offset, abs=3.0)


async def test_probe_of_an_issuer_that_fails_is_the_error_of_the_fetch(demo: DemoIssuer) -> None:
    demo.fail(503)
    with pytest.raises(JWKSError) as caught:
        await probe(issuer_of(demo, jwks_url=demo.jwks_url), Options())
    assert FetchCode.HTTP_STATUS is caught.value.code


async def test_probe_of_a_store_names_the_server_and_leaves_nothing_in_it(valkey_url: str) -> None:
    seen = await probe_store(Options(redis_url=valkey_url, seal_keys=(SEAL_KEY,)))
    assert (True, "valkey") == (seen.writable, seen.server.partition(" ")[0])
    assert 0 < seen.seconds < 5
    with Redis.from_url(valkey_url) as client:
        assert [] == client.keys("*")


async def test_probe_of_a_store_that_takes_no_writes_says_so(valkey_url: str) -> None:
    with Redis.from_url(valkey_url) as client:
        client.replicaof("127.0.0.1", "1")
        try:
            seen = await probe_store(Options(redis_url=valkey_url, seal_keys=(SEAL_KEY,)))
        finally:
            client.replicaof("NO", "ONE")
    assert not seen.writable


async def test_probe_of_a_store_that_is_not_there_is_a_store_error() -> None:
    with pytest.raises(StoreError):
        await probe_store(Options(redis_url=NO_REDIS, seal_keys=(SEAL_KEY,)))


# -- what cannot work ------------------------------------------------------------------------------


def test_options_are_good_as_they_are() -> None:
    assert Options() == Options()


@pytest.mark.parametrize(
    ("good", "bad", "named"),
    [
        ({"lease": 5.001}, {"lease": 5.0}, "lease"),
        ({"fetch_connect": 5.0}, {"fetch_connect": 5.001}, "fetch_connect"),
        ({"seal_keys": (b"k" * 32,) * 2}, {"seal_keys": (b"k" * 32,) * 3}, "seal_keys"),
        ({"seal_keys": (b"k" * 32,)}, {"seal_keys": (b"k" * 31,)}, "seal_keys"),
        ({"redis_url": "x", "allow_unsealed": True}, {"redis_url": "x"}, "seal_keys"),
        *(({name: 0}, {name: -1}, name) for name in ("token_cache", "negative_size")),
        *(({name: 1}, {name: 0}, name) for name in ("fetch_bytes", "fetch_keys", "waiters")),
        *(({name: 1}, {name: 0}, name) for name in ("token_bytes", "kid_chars")),
        *(({name: 0.001}, {name: 0.0}, name) for name in ("poll", "wait", "redis_connect")),
        *(({name: 0.001}, {name: nan}, name) for name in ("poll", "wait", "redis_timeout")),
        *(({name: 6.0}, {name: inf}, name) for name in ("poll", "wait", "lease")),
        ({"negative_ttl": 0.0}, {"negative_ttl": nan}, "negative_ttl"),
        *(({"fetch_timeout": 9.0}, {"fetch_timeout": each}, "fetch_timeout") for each in (0, nan)),
    ],
)
def test_both_sides_of_every_bound(good: dict[str, Any], bad: dict[str, Any], named: str) -> None:
    Options(**good)
    with pytest.raises(ConfigurationError) as caught:
        Options(**bad)
    assert any(problem.startswith(f"{named}:") for problem in caught.value.problems)


def test_all_that_is_wrong_with_options_is_said_at_once() -> None:
    with pytest.raises(ConfigurationError) as caught:
        Options(lease=1.0, fetch_connect=9.0, poll=0.0, waiters=0, seal_keys=(b"short",))
    named = {problem.partition(":")[0] for problem in caught.value.problems}
    assert {"lease", "fetch_connect", "poll", "waiters", "seal_keys"} == named


def test_secrets_of_options_are_not_shown() -> None:
    options = Options(redis_url="redis://:hunter2@localhost", seal_keys=(b"k" * 32,))
    assert not [secret for secret in ("hunter2", "kkkk") if secret in repr(options)]


def test_two_issuers_of_one_name_or_one_identifier_are_refused_together() -> None:
    one = Issuer(issuer="https://one.example", audiences=("api",), name="same")
    two = Issuer(issuer="https://two.example", audiences=("api",), name="same")
    with pytest.raises(ConfigurationError) as caught:
        Runtime([one, two, two], Options())
    assert (
        "issuer: 'https://two.example' is configured twice",
        "name: 'same' is configured twice",
    ) == caught.value.problems


def test_runtime_without_an_issuer_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="name at least one"):
        Runtime([], Options())


def test_redis_url_that_cannot_be_used_is_refused_before_anything_is_opened() -> None:
    issuer = Issuer(issuer="https://one.example", audiences=("api",))
    with pytest.raises(ConfigurationError, match="redis_url"):
        Runtime([issuer], Options(redis_url="http://localhost", seal_keys=(SEAL_KEY,)))


async def test_close_ends_though_a_client_of_redis_loses_the_cancellation(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runtimes, "CANCEL_AGAIN", 0.01)
    runtime = make(revocation=True, fetch_connect=0.1, fetch_timeout=0.1)
    await runtime.open()
    step, asked = RedisClient.step, []

    async def loses(self: RedisClient, *arguments: Any) -> object:  # noqa: ANN401
        asked.append(arguments)
        with suppress(asyncio.CancelledError):
            await asyncio.sleep(3600)
        return await step(self, *arguments)

    monkeypatch.setattr(RedisClient, "step", loses)
    runtime._changed("demo")
    await until(lambda: len(asked) == 2)  # what is revoked, and for keys
    async with asyncio.timeout(20):
        await runtime.close()


# -- revocation ------------------------------------------------------------------------------------


async def test_revoked_token_is_refused_by_another_process_before_the_next_poll(
    make: Make, demo: DemoIssuer
) -> None:
    here, there = make(revocation=True, poll=3600.0), make(revocation=True, poll=3600.0)
    await here.open()
    await there.open()
    leaked, other = demo.mint(jti="leaked"), demo.mint(jti="other")
    for token in (leaked, other, leaked):  # the second time it is in the token cache
        assert demo.url == (await there.authenticator.authenticate(token))["iss"]

    await here.revoke(here.issuers[0], Kind.JTI, "leaked")
    async with asyncio.timeout(20):
        while await decided(there, leaked) is None:  # noqa: ASYNC110 - the other one's turn
            await asyncio.sleep(0.01)

    refusal = await decided(there, leaked)
    assert isinstance(refusal, TokenError)
    assert "revoked" == refusal.reason
    assert demo.url == (await there.authenticator.authenticate(other))["iss"]


async def decided(runtime: Runtime, token: str) -> TokenError | UnavailableError | None:
    """What is wrong with this token, None when it is accepted."""
    try:
        await runtime.authenticator.authenticate(token)
    except (TokenError, UnavailableError) as error:
        return error
    return None


async def test_what_is_revoked_is_known_before_the_first_request(
    make: Make, demo: DemoIssuer
) -> None:
    early = make(revocation=True)
    await early.revoke(early.issuers[0], Kind.SUB, "demo-user")
    late = make(revocation=True)
    await late.open()

    refusal = await decided(late, demo.mint(iat=int(time.time()) - 60))
    assert isinstance(refusal, TokenError)
    assert "revoked" == refusal.reason


async def test_good_token_is_unavailable_and_a_bad_one_bad_while_nobody_knows_what_is_revoked(
    make: Make, demo: DemoIssuer
) -> None:
    runtime = make(NO_REDIS, revocation=True)
    await runtime.open()

    assert isinstance(await decided(runtime, demo.mint()), UnavailableError)
    assert isinstance(await decided(runtime, demo.mint()[:-4] + "AAAA"), TokenError)
    assert [False] == [each.revocations_known for each in runtime.health()]
    assert isinstance(await decided(runtime, demo.mint(jti="again")), UnavailableError)


async def test_token_that_cannot_be_decided_about_is_counted_as_such(
    make: Make, demo: DemoIssuer, events: list[Event]
) -> None:
    runtime = make(NO_REDIS, revocation=True)
    await runtime.open()
    for _ in range(2):  # waiting for the key, and with the key in memory
        await decided(runtime, demo.mint())

    told = [(event.issuer, event.path) for event in events if isinstance(event, Unverifiable)]
    assert [("demo", Path.WAITED), ("demo", Path.MEMORY)] == told


async def test_process_that_shares_with_nobody_revokes_for_itself(
    make: Make, demo: DemoIssuer
) -> None:
    runtime = make(None, seal_keys=(), revocation=True)
    await runtime.open()
    token = demo.mint(jti="logged-out")
    assert await decided(runtime, token) is None
    await runtime.revoke(runtime.issuers[0], Kind.JTI, "logged-out")

    assert isinstance(await decided(runtime, token), TokenError)


async def test_nothing_is_revoked_where_nobody_looks(make: Make) -> None:
    runtime = make()
    with pytest.raises(ConfigurationError, match="revocation"):
        await runtime.revoke(runtime.issuers[0], Kind.JTI, "leaked")
    with pytest.raises(ConfigurationError, match="revocation"):
        await runtime.revoked(runtime.issuers[0])
    assert [True] == [each.revocations_known for each in runtime.health()]

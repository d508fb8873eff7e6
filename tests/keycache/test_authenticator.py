"""Token text in, claims or the one right error out: in the order of price, with one fact each."""

import asyncio
import json
from collections.abc import Callable, Iterable
from functools import partial
from itertools import pairwise
from typing import Any

import pytest

from keycache.authenticator import MEASURED, Authenticator, Trusted
from keycache.cache import Held, KeyCache
from keycache.core.claims import Claims
from keycache.core.freshness import freshness
from keycache.core.jwks import parse_jwks
from keycache.core.record import Record
from keycache.errors import Reason, TokenError, UnavailableError
from keycache.events import (
    Event,
    Path,
    Rejected,
    Staged,
    Tier,
    Unverifiable,
    Verified,
    WaitersChanged,
)
from keycache.issuer import Issuer
from keycache.token_cache import TokenCache
from tests.keycache.core import forge
from tests.keycache.core.forge import ABSENT
from tests.keycache.parts import LIFETIMES, Fleet, at_once, virtual
from tests.simulation.issuer import EPOCH, token_of

ORDER_P256 = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
SOON = int(EPOCH) + 300


class Door:
    """An authenticator and its parts, with the keys that a test gives it."""

    def __init__(self, *issuers: Issuer, tokens: int = 100) -> None:
        loop = asyncio.get_running_loop()
        self.events: list[Event] = []
        self.tokens = TokenCache(tokens)
        self.caches: dict[str, KeyCache] = {}
        for issuer in issuers or (forge.issuer(name="issuer"),):
            cache = KeyCache(
                issuer.name,
                self,
                self.events.append,
                wait=1.5,
                max_waiters=1,
                negative_ttl=30.0,
                negative_size=10,
            )
            cache.replaced = partial(self.tokens.keep_only, cache)
            self.caches[issuer.issuer] = cache
        trusted = {
            issuer.issuer: Trusted(issuer, self.caches[issuer.issuer])
            for issuer in issuers or (forge.issuer(name="issuer"),)
        }
        self.now: Callable[[], float] = lambda: EPOCH + loop.time()
        self.authenticator = Authenticator(
            trusted, self.tokens, self, self.events.append, token_bytes=2000, kid_chars=20
        )

    @property
    def cache(self) -> KeyCache:
        """The cache of the first issuer."""
        return next(iter(self.caches.values()))

    def publish(self, *jwks: object, to: KeyCache | None = None) -> None:
        """Install a set of these keys, fetched now."""
        cache = to or self.cache
        now = self.now()
        record = Record(
            cache.version + 1, now, 300.0, json.dumps({"keys": jwks}).encode(), None, None
        )
        moments = freshness(now, 300.0, LIFETIMES, 0.0)
        cache.install(Held(parse_jwks(record.document, 100), record, moments, Tier.ISSUER))

    def verdict(self, text: str) -> str:
        """What becomes of a token without waiting: "accepted", or the reason."""
        try:
            at_once(self.authenticator.authenticate(text))
        except TokenError as error:
            return error.reason
        return "accepted"

    def waiting(self, text: str) -> "asyncio.Task[Claims]":
        """A request with this token that may wait."""
        return asyncio.create_task(self.authenticator.authenticate(text))

    def outcomes(self) -> list[tuple[type, Path]]:
        """Of each token that was presented: what was reported, and how far it had to go."""
        kinds = (Verified, Rejected, Unverifiable)
        return [(type(event), event.path) for event in self.events if isinstance(event, kinds)]

    def tiers(self) -> list[Tier]:
        """The tiers that had the keys, or the tokens."""
        kinds = (Verified, Rejected, Unverifiable)
        tiers = [event.tier for event in self.events if isinstance(event, kinds)]
        return [tier for tier in tiers if tier is not None]


def token(header: dict[str, object] | None = None, alg: str = "ES256", **claims: object) -> str:
    """A token that is good for five minutes, with these members changed."""
    return forge.token(alg, header, forge.claims(**{"exp": SOON, **claims}))


def signed_by(number: int, **claims: object) -> str:
    """A token of the kid "shared", signed with the ES256 key of this number."""
    header = forge.b64_json({"alg": "ES256", "kid": "shared"})
    payload = forge.b64_json(forge.claims(**{"exp": SOON, **claims}))
    signature = forge.sign("ES256", f"{header}.{payload}".encode(), number)
    return f"{header}.{payload}.{forge.b64(signature)}"


def without(kind: type, events: Iterable[Event]) -> list[Event]:
    return [event for event in events if not isinstance(event, kind)]


# -- accepted --------------------------------------------------------------------------------------


@virtual
async def test_good_token_gives_its_claims() -> None:
    door = Door()
    door.publish(forge.jwk("ES256"))
    claims = at_once(door.authenticator.authenticate(token(sub="alice")))
    assert Claims(forge.claims(exp=SOON, sub="alice")) == claims
    assert [(Verified, Path.MEMORY)] == door.outcomes()
    assert [Tier.MEMORY] == door.tiers()


@virtual
async def test_token_that_comes_again_is_answered_from_the_token_cache() -> None:
    door = Door()
    door.publish(forge.jwk("ES256"))
    text = token()
    first, second = (at_once(door.authenticator.authenticate(text)) for _ in range(2))
    assert first is second
    assert [(Verified, Path.MEMORY), (Verified, Path.CACHED)] == door.outcomes()
    assert [Tier.MEMORY, Tier.TOKEN_CACHE] == door.tiers()


@virtual
async def test_every_fact_names_the_issuer_as_configured() -> None:
    door = Door()
    door.publish(forge.jwk("ES256"))
    text = token()
    for each in (text, text, token(exp=1)):
        door.verdict(each)
    named = [event for event in door.events if isinstance(event, Verified | Rejected)]
    assert {"issuer"} == {event.issuer for event in named}


@virtual
async def test_known_key_is_not_waited_for_while_redis_and_issuer_hang() -> None:
    fleet = Fleet()
    worker = fleet.worker()
    await worker.turn()
    fleet.redis.latency, fleet.issuer.fault = 60.0, "hang"
    await fleet.until(worker.moments.fresh_until)
    worker.start()
    for _ in range(50):
        await asyncio.sleep(0.1)
        at_once(worker.authenticator.authenticate(token_of("key-0")))
    assert 50 == len(worker.of(Verified))


@virtual
async def test_token_that_had_to_wait_is_accepted_and_says_so() -> None:
    door = Door()
    request = door.waiting(token())
    await asyncio.sleep(1.0)
    door.publish(forge.jwk("ES256"))
    assert "alice" == (await request)["sub"]
    assert [(Verified, Path.WAITED)] == door.outcomes()
    assert [Tier.ISSUER] == door.tiers()


@virtual
async def test_known_token_is_decided_without_a_coroutine_as_with_one() -> None:
    door, twin = Door(), Door()
    for each in (door, twin):
        each.publish(forge.jwk("ES256"))
    good, bad = token(), token(aud="somebody else")
    first, again = door.authenticator.known(good), door.authenticator.known(good)
    assert first
    assert first is again
    assert [at_once(twin.authenticator.authenticate(good)) for _ in range(2)] == [first.claims] * 2
    with pytest.raises(TokenError) as refused:
        door.authenticator.known(bad)
    assert (Reason.WRONG_AUDIENCE, twin.verdict(bad)) == (refused.value.reason,) * 2
    assert twin.outcomes() == door.outcomes()
    assert twin.tiers() == door.tiers()


@virtual
async def test_token_whose_key_is_not_known_has_no_answer_at_once_and_no_effect() -> None:
    door = Door()
    assert door.authenticator.known(token()) is None
    assert [] == door.events


@virtual
async def test_token_without_kid_is_accepted_where_the_only_key_that_fits_may_be_taken() -> None:
    door = Door(forge.issuer(kid_optional=True))
    door.publish(forge.jwk("ES256"), forge.jwk("EdDSA"))
    assert "accepted" == door.verdict(token({"kid": ABSENT}))


# -- refused, in the order of price ----------------------------------------------------------------

WRONG: dict[str, tuple[Callable[[], str], Reason]] = {
    "empty": (lambda: "", Reason.MALFORMED),
    "no token": (lambda: "a.b.c", Reason.MALFORMED),
    "too large": (lambda: token(padding="x" * 2000), Reason.TOO_LARGE),
    "kid too long": (lambda: token({"kid": "k" * 21}), Reason.MALFORMED),
    "critical extension": (lambda: token({"crit": ["exp"]}), Reason.UNSUPPORTED_HEADER),
    "no issuer": (lambda: token(iss=ABSENT), Reason.MISSING_CLAIM),
    "null for an issuer": (lambda: token(iss=None), Reason.MISSING_CLAIM),
    "issuer is a list": (lambda: token(iss=["https://issuer.example"]), Reason.INVALID_CLAIM),
    "issuer is an object": (lambda: token(iss={}), Reason.INVALID_CLAIM),
    "unknown issuer": (lambda: token(iss="https://evil.example"), Reason.UNKNOWN_ISSUER),
    "issuer with a slash": (lambda: token(iss="https://issuer.example/"), Reason.UNKNOWN_ISSUER),
    "no algorithm": (lambda: token({"alg": "none"}), Reason.UNSUPPORTED_ALGORITHM),
    "shared secret": (lambda: token({"alg": "HS256"}), Reason.UNSUPPORTED_ALGORITHM),
    "no kid": (lambda: token({"kid": ABSENT}), Reason.MISSING_KID),
    "expired": (lambda: token({"kid": "new"}, exp=EPOCH), Reason.EXPIRED),
    "no expiry": (lambda: token({"kid": "new"}, exp=ABSENT), Reason.MISSING_CLAIM),
    "expiry is text": (lambda: token({"kid": "new"}, exp=str(SOON)), Reason.INVALID_CLAIM),
    "not yet": (lambda: token({"kid": "new"}, nbf=EPOCH + 1), Reason.NOT_YET_VALID),
    "of the future": (lambda: token({"kid": "new"}, iat=EPOCH + 1), Reason.NOT_YET_VALID),
}


@pytest.mark.parametrize("keys", ["no keys", "keys"])
@pytest.mark.parametrize("wrong", WRONG)
@virtual
async def test_nothing_is_spent_on_a_token_that_could_never_be_accepted(
    wrong: str, keys: str
) -> None:
    door = Door()
    woken: list[None] = []
    door.cache.wanted = partial(woken.append, None)
    if keys == "keys":
        door.publish(forge.jwk("ES256"))
    text, reason = WRONG[wrong]
    assert reason == door.verdict(text())
    assert ([], 0) == (woken, len(door.tokens))
    assert [(Rejected, Path.MEMORY)] == door.outcomes()


@virtual
async def test_no_issuer_is_named_for_a_token_that_names_none_of_ours() -> None:
    door = Door()
    for wrong in ("no token", "unknown issuer", "no issuer"):
        door.verdict(WRONG[wrong][0]())
    assert {None} == {event.issuer for event in door.events if isinstance(event, Rejected)}


@virtual
async def test_reason_of_the_error_is_the_reason_of_the_fact() -> None:
    door = Door()
    door.publish(forge.jwk("ES256"))
    for text, _ in WRONG.values():
        if "new" not in text():
            door.verdict(text())
    reported = [event.reason for event in door.events if isinstance(event, Rejected)]
    raised = [reason for text, reason in WRONG.values() if "new" not in text()]
    assert raised == reported


@virtual
async def test_bad_signature_is_refused_and_not_remembered() -> None:
    door = Door()
    door.publish(forge.jwk("ES256", 1))
    assert Reason.BAD_SIGNATURE == door.verdict(token())
    assert Reason.BAD_SIGNATURE == door.verdict(token())
    assert 0 == len(door.tokens)


@pytest.mark.parametrize(
    ("claims", "reason"),
    [
        ({"aud": "other"}, Reason.WRONG_AUDIENCE),
        ({"exp": EPOCH}, Reason.EXPIRED),
        ({"sub": 1}, Reason.INVALID_CLAIM),
    ],
)
@virtual
async def test_only_good_tokens_are_remembered(claims: dict[str, Any], reason: Reason) -> None:
    door = Door()
    door.publish(forge.jwk("ES256"))
    assert [reason, reason] == [door.verdict(token(**claims)) for _ in range(2)]
    assert 0 == len(door.tokens)


@pytest.mark.parametrize(
    ("keys", "header", "reason"),
    [
        ([forge.jwk("ES256"), {"kty": "oct", "kid": "weak"}], {"kid": "weak"}, Reason.UNKNOWN_KEY),
        ([forge.jwk("EdDSA", kid="ES256")], {}, Reason.UNSUPPORTED_ALGORITHM),
        (
            [forge.jwk("ES256"), forge.jwk("ES256", 1, kid="other")],
            {"kid": ABSENT},
            Reason.MISSING_KID,
        ),
    ],
    ids=["unusable", "mismatch", "ambiguous"],
)
@virtual
async def test_key_that_cannot_be_for_this_token_is_refused_at_once(
    keys: list[object], header: dict[str, object], reason: Reason
) -> None:
    door = Door(forge.issuer(kid_optional=True))
    door.publish(*keys)
    assert reason == door.verdict(token(header))


@virtual
async def test_algorithm_that_the_issuer_may_not_use_is_refused_though_its_key_could() -> None:
    door = Door(forge.issuer(algorithms=("EdDSA",)))
    door.publish(forge.jwk("ES256"))
    assert Reason.UNSUPPORTED_ALGORITHM == door.verdict(token())


@virtual
async def test_kid_that_the_issuer_has_not_is_refused_from_memory_when_it_comes_again() -> None:
    worker = Fleet().worker()
    await worker.turn()
    worker.start()
    assert ["unknown_key"] * 2 == [await worker.ask("forged-1"), await worker.ask("forged-1")]
    assert [Path.WAITED, Path.MEMORY] == [event.path for event in worker.of(Rejected)]
    assert [Tier.ISSUER, Tier.NEGATIVE] == [event.tier for event in worker.of(Rejected)]


# -- nobody can know -------------------------------------------------------------------------------


@virtual
async def test_token_whose_key_does_not_arrive_is_unverifiable_and_not_refused() -> None:
    door = Door()
    with pytest.raises(UnavailableError):
        await door.authenticator.authenticate(token())
    assert [(Unverifiable, Path.WAITED)] == door.outcomes()
    assert [1, 0] == [event.waiters for event in door.events if isinstance(event, WaitersChanged)]


@virtual
async def test_each_token_is_reported_once_however_many_wait() -> None:
    door = Door()  # which lets one request wait
    requests = [door.waiting(token(sub=f"user-{n}")) for n in range(3)]
    answers = await asyncio.gather(*requests, return_exceptions=True)
    assert [UnavailableError] * 3 == [type(answer) for answer in answers]
    assert [(Unverifiable, Path.WAITED)] * 3 == door.outcomes()


@virtual
async def test_key_that_is_removed_while_a_request_wakes_up_is_not_used() -> None:
    door = Door()
    request = door.waiting(token())
    await asyncio.sleep(1.0)
    door.publish(forge.jwk("ES256"))
    door.publish(forge.jwk("EdDSA"))
    with pytest.raises(TokenError) as caught:
        await request
    assert Reason.UNKNOWN_KEY is caught.value.reason
    assert [(Rejected, Path.WAITED)] == door.outcomes()


@virtual
async def test_set_that_dies_while_a_request_wakes_up_is_not_used() -> None:
    door = Door()
    request = door.waiting(token(exp=SOON + 10_000))
    await asyncio.sleep(1.0)
    door.publish(forge.jwk("ES256"))
    now = door.now
    door.now = lambda: now() + 3900  # the clock of this host is set forward
    with pytest.raises(UnavailableError, match="changed just now"):
        await request
    assert [(Unverifiable, Path.WAITED)] == door.outcomes()


@virtual
async def test_key_that_is_replaced_under_its_kid_while_a_request_wakes_up_is_not_used() -> None:
    door = Door()
    request = door.waiting(token())
    await asyncio.sleep(1.0)
    door.publish(forge.jwk("ES256"))
    door.publish(forge.jwk("ES256", 1))
    with pytest.raises(TokenError) as caught:
        await request
    assert Reason.BAD_SIGNATURE is caught.value.reason


@virtual
async def test_token_that_expires_while_it_waits_is_refused() -> None:
    door = Door()
    request = door.waiting(token(exp=EPOCH + 0.5))
    await asyncio.sleep(1.0)
    door.publish(forge.jwk("ES256"))
    with pytest.raises(TokenError) as caught:
        await request
    assert Reason.EXPIRED is caught.value.reason
    assert [(Rejected, Path.WAITED)] == door.outcomes()


# -- remembered tokens never change an answer ------------------------------------------------------


@virtual
async def test_remembered_token_expires_like_any_other() -> None:
    door = Door()
    door.publish(forge.jwk("ES256"))
    text = token(exp=EPOCH + 10)
    assert "accepted" == door.verdict(text)
    await asyncio.sleep(10.0)
    assert Reason.EXPIRED == door.verdict(text)


@virtual
async def test_remembered_token_dies_with_its_key() -> None:
    door = Door()
    door.publish(forge.jwk("ES256"), forge.jwk("EdDSA"))
    text = token()
    assert "accepted" == door.verdict(text)
    door.publish(forge.jwk("EdDSA"))
    assert Reason.UNKNOWN_KEY == door.verdict(text)


@virtual
async def test_remembered_token_dies_when_another_key_takes_its_kid() -> None:
    door = Door()
    door.publish(forge.jwk("ES256"))
    text = token()
    assert "accepted" == door.verdict(text)
    door.publish(forge.jwk("ES256", 1))
    assert Reason.BAD_SIGNATURE == door.verdict(text)


@virtual
async def test_remembered_token_outlives_a_rotation_that_keeps_its_key() -> None:
    door = Door()
    door.publish(forge.jwk("ES256"))
    text = token()
    door.verdict(text)
    door.publish(forge.jwk("ES256"), forge.jwk("EdDSA"))
    door.verdict(text)
    assert (Verified, Path.CACHED) == door.outcomes()[-1]


@virtual
async def test_removed_key_ends_its_tokens_in_every_worker_that_hears_of_it() -> None:
    fleet = Fleet()
    first, second = fleet.worker("first"), fleet.worker("second")
    fleet.issuer.rotate()
    for worker in (first, second):
        await worker.turn()
        worker.start()
        assert "accepted" == await worker.ask("key-0")
    await asyncio.sleep(1.0)
    fleet.issuer.remove("key-0")
    await first.turn(force=True)
    await asyncio.sleep(0.01)
    assert [0, 0] == [len(worker.tokens) for worker in (first, second)]
    assert ["unknown_key"] * 2 == [await worker.ask("key-0") for worker in (first, second)]


@virtual
async def test_remembered_token_is_not_served_from_a_dead_set() -> None:
    door = Door()
    door.publish(forge.jwk("ES256"))
    text = token(exp=SOON + 10_000)
    assert "accepted" == door.verdict(text)
    await asyncio.sleep(3900.0)
    with pytest.raises(UnavailableError):
        await door.authenticator.authenticate(text)


@virtual
async def test_malleated_twin_of_a_remembered_token_is_verified_by_itself() -> None:
    door = Door()
    door.publish(forge.jwk("ES256"))
    text = token()
    signed, _, signature = text.rpartition(".")
    octets = forge.parsed(text).signature
    r, s = octets[:32], int.from_bytes(octets[32:], "big")
    twin = f"{signed}.{forge.b64(r + (ORDER_P256 - s).to_bytes(32, 'big'))}"
    assert signature not in twin
    assert ["accepted", "accepted"] == [door.verdict(text), door.verdict(twin)]
    assert [(Verified, Path.MEMORY)] * 2 == door.outcomes()
    door.publish(forge.jwk("EdDSA"))
    assert 0 == len(door.tokens)


@virtual
async def test_without_token_cache_every_token_is_verified() -> None:
    door = Door(tokens=0)
    door.publish(forge.jwk("ES256"))
    text = token()
    assert ["accepted", "accepted"] == [door.verdict(text), door.verdict(text)]
    assert [(Verified, Path.MEMORY)] * 2 == door.outcomes()


# -- two issuers -----------------------------------------------------------------------------------


def two_issuers() -> Door:
    """Two issuers that gave the same kid to different keys: the first number 0, the second 1."""
    door = Door(
        forge.issuer(name="one", issuer="https://one.example"),
        forge.issuer(name="two", issuer="https://two.example"),
    )
    for number, cache in enumerate(door.caches.values()):
        door.publish(forge.jwk("ES256", number, kid="shared"), to=cache)
    return door


@virtual
async def test_two_issuers_with_the_same_kid_verify_with_their_own_keys() -> None:
    door = two_issuers()
    assert {
        ("https://one.example", 0): "accepted",
        ("https://one.example", 1): Reason.BAD_SIGNATURE,
        ("https://two.example", 0): Reason.BAD_SIGNATURE,
        ("https://two.example", 1): "accepted",
    } == {
        (url, number): door.verdict(signed_by(number, iss=url))
        for url in door.caches
        for number in (0, 1)
    }


@virtual
async def test_two_issuers_are_reported_under_their_own_names() -> None:
    door = two_issuers()
    texts = [signed_by(number, iss=url) for number, url in enumerate(door.caches)]
    for text in texts * 2:
        door.verdict(text)
    verified = [event for event in door.events if isinstance(event, Verified)]
    assert [
        ("one", Path.MEMORY),
        ("two", Path.MEMORY),
        ("one", Path.CACHED),
        ("two", Path.CACHED),
    ] == [(event.issuer, event.path) for event in verified]


@virtual
async def test_new_keys_of_one_issuer_leave_the_tokens_of_the_other() -> None:
    door = two_issuers()
    text = signed_by(0, iss="https://one.example")
    door.verdict(text)
    door.publish(forge.jwk("EdDSA"), to=door.caches["https://two.example"])
    door.verdict(text)
    assert (Verified, Path.CACHED) == door.outcomes()[-1]


@virtual
async def test_stages_of_one_verification_in_sixty_four_are_reported() -> None:
    door = Door(tokens=0)
    door.publish(forge.jwk("ES256"))
    for _ in range(2 * MEASURED + 1):
        await door.authenticator.authenticate(token())
    measured = [event for event in door.events if isinstance(event, Staged)]
    whole = [
        after.seconds
        for event, after in pairwise(door.events)
        if isinstance(event, Staged) and isinstance(after, Verified)
    ]
    assert (3, 3) == (len(measured), len(whole))
    for stages, seconds in zip(measured, whole, strict=True):
        assert all(stage > 0 for stage in stages)
        assert sum(stages) <= seconds


@virtual
async def test_stages_of_a_token_from_the_token_cache_are_not_reported() -> None:
    door = Door()
    door.publish(forge.jwk("ES256"))
    text = token()
    for _ in range(2 * MEASURED):
        await door.authenticator.authenticate(text)
    assert 1 == len([event for event in door.events if isinstance(event, Staged)])

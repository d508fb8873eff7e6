"""What workers know to be revoked: soon, for as long as it matters, and never by guessing."""

import asyncio
from collections.abc import Callable

import pytest

from keycache import revocations
from keycache.adapters.memory_store import MemoryRevocations
from keycache.core.claims import Claims, Validity
from keycache.core.revocation import Kind, digest_of
from keycache.core.verifier import Verdict
from keycache.errors import (
    ConfigurationError,
    RecordError,
    StoreError,
    TokenError,
    UnavailableError,
)
from keycache.events import Event, RecordRefused, RevocationsRead, StoreFailed
from keycache.interfaces import Loaded
from keycache.issuer import Issuer, KeySource
from keycache.revocations import LONGEST, MOST_AHEAD, RevocationPolicy, Revocations
from tests.keycache.parts import virtual
from tests.simulation.issuer import EPOCH, ISSUER

KEY, OLDER, FOREIGN = b"k" * 32, b"o" * 32, b"f" * 32
POLL, STALE = 5.0, 60.0
KNOWN_FOR = 2 * POLL + STALE


class Clock:
    """Passes with the loop, and can be set."""

    offset = 0.0

    def now(self) -> float:
        return EPOCH + asyncio.get_running_loop().time() + self.offset


class Server:
    """Implements RevocationStore: one Redis for all workers, which can be down."""

    def __init__(self, clock: Clock) -> None:
        self.down = False
        self.saves = 0
        self.latency = 0.001
        self.backend = MemoryRevocations(clock)

    async def load(self, source: KeySource, known_version: int) -> Loaded:
        await asyncio.sleep(self.latency)
        if self.down:
            raise StoreError("down")
        return await self.backend.load(source, known_version)

    async def save(
        self, source: KeySource, sealed: bytes, version: int, keep_seconds: float, seen: int
    ) -> bool:
        await asyncio.sleep(self.latency)
        if self.down:
            raise StoreError("down")
        self.saves += 1
        return await self.backend.save(source, sealed, version, keep_seconds, seen)

    def forget(self) -> None:
        """Come back empty, as a Redis without a disk does."""
        self.backend._lists.clear()

    def put(self, sealed: bytes, version: int = 7) -> None:
        """Write something, as whoever may write there can."""
        self.backend._lists[ISSUER.source.id] = (version, sealed, float("inf"))

    @property
    def held(self) -> tuple[int, bytes]:
        version, sealed, _ = self.backend._lists[ISSUER.source.id]
        return version, sealed


class World:
    """One Redis and the workers of a fleet."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.server = Server(self.clock)

    def worker(self, *keys: bytes, issuer: Issuer = ISSUER) -> "Worker":
        return Worker(self, keys or (KEY,), issuer)


class Worker:
    """Revocations of one worker, what it reported, and the accepted tokens it keeps."""

    def __init__(self, world: World, keys: tuple[bytes, ...], issuer: Issuer) -> None:
        self.events: list[Event] = []
        self.kept: list[Claims] = []
        self.clock = world.clock
        self.revocations = Revocations(
            issuer,
            store=world.server,
            clock=world.clock,
            observer=self.events.append,
            policy=RevocationPolicy(keys, POLL, STALE),
            nonce=lambda: bytes(12),
        )
        self.revocations.forget = self._forget

    def _forget(self, revoked: Callable[[Claims], bool]) -> None:
        self.kept = [claims for claims in self.kept if not revoked(claims)]

    def judge(self, **claims: object) -> str:
        """What becomes of a good token with these claims."""
        verdict = Verdict(Claims(claims), Validity(0.0, EPOCH + 1e6))
        try:
            self.revocations.judge(verdict, self.clock.now())
        except TokenError as error:
            return error.reason
        except UnavailableError:
            return "unavailable"
        return "accepted"

    async def look(self) -> float:
        return await self.revocations.turn()

    async def revoke(self, jti: str, seconds: float | None = 1000.0) -> None:
        await self.revocations.revoke(Kind.JTI, jti, before=None, seconds=seconds)


async def two() -> tuple[World, Worker, Worker]:
    """Two workers of one fleet, which have looked."""
    world = World()
    first, second = world.worker(), world.worker()
    await first.look()
    await second.look()
    return world, first, second


# A revocation arrives ---------------------------------------------------------------------------


@virtual
async def test_who_revokes_refuses_at_once() -> None:
    _, first, _ = await two()
    await first.revoke("leaked")

    assert "revoked" == first.judge(jti="leaked")


@virtual
async def test_others_refuse_after_their_next_look() -> None:
    _, first, second = await two()
    await first.revoke("leaked")

    assert "accepted" == second.judge(jti="leaked")
    await second.look()
    assert "revoked" == second.judge(jti="leaked")
    assert "accepted" == second.judge(jti="other")


@virtual
async def test_message_wakes_a_worker() -> None:
    _, first, second = await two()
    running = asyncio.create_task(second.revocations.run())
    await asyncio.sleep(1.0)
    await first.revoke("leaked")
    second.revocations.changed()
    await asyncio.sleep(0.01)

    assert "revoked" == second.judge(jti="leaked")
    running.cancel()


@virtual
async def test_lost_message_is_made_good_by_the_poll() -> None:
    _, first, second = await two()
    running = asyncio.create_task(second.revocations.run())
    await asyncio.sleep(1.0)
    await first.revoke("leaked")
    await asyncio.sleep(POLL + 0.1)

    assert "revoked" == second.judge(jti="leaked")
    running.cancel()


@virtual
async def test_subject_is_refused_what_was_issued_until_now_and_not_what_comes() -> None:
    world, first, _ = await two()
    await first.revocations.revoke(Kind.SUB, "alice", before=None, seconds=1000.0)
    now = world.clock.now()

    assert "revoked" == first.judge(sub="alice", iat=int(now))
    assert "accepted" == first.judge(sub="alice", iat=int(now) + 1)
    assert "revoked" == first.judge(sub="alice")


@virtual
async def test_accepted_tokens_are_forgotten_when_they_are_revoked_and_no_others() -> None:
    _, first, second = await two()
    second.kept = [Claims(jti="leaked"), Claims(jti="other")]
    await first.revoke("leaked")
    await second.look()

    assert [Claims(jti="other")] == second.kept


@virtual
async def test_second_revocation_of_the_same_subject_takes_nothing_back() -> None:
    _, first, second = await two()
    await first.revocations.revoke(Kind.SUB, "alice", before=EPOCH, seconds=1000.0)
    again = await second.revocations.revoke(Kind.SUB, "alice", before=EPOCH - 50, seconds=1.0)

    assert EPOCH == again.before
    assert again.until > EPOCH + 1000
    assert "revoked" == second.judge(sub="alice", iat=EPOCH - 10)


@virtual
async def test_two_who_revoke_at_once_both_succeed() -> None:
    _, first, second = await two()
    await asyncio.gather(first.revoke("one"), second.revoke("two"), first.revoke("three"))
    await first.look()

    assert ["revoked"] * 3 == [first.judge(jti=jti) for jti in ("one", "two", "three")]


# It is forgotten --------------------------------------------------------------------------------


@virtual
async def test_revocation_is_forgotten_when_its_tokens_have_expired() -> None:
    _, first, second = await two()
    await first.revoke("leaked", seconds=100.0)
    lives = 100.0 + 2 * ISSUER.leeway
    await asyncio.sleep(lives - 1)
    await second.look()
    assert "revoked" == second.judge(jti="leaked")
    await asyncio.sleep(2)
    await second.look()

    assert "accepted" == second.judge(jti="leaked")
    assert [] == await second.revocations.in_force()


@virtual
async def test_longest_life_is_the_issuers_own_where_it_has_one() -> None:
    world = World()
    policy = Issuer(issuer=ISSUER.issuer, audiences=("api",), leeway=0, max_lifetime=600.0)
    worker = world.worker(issuer=policy)
    made = await worker.revocations.revoke(Kind.JTI, "leaked", before=None, seconds=None)

    assert 600.0 == pytest.approx(made.until - made.revoked_at)


@virtual
async def test_times_that_make_no_sense_are_refused_all_at_once() -> None:
    worker = World().worker()

    async def problems(before: float, seconds: float) -> int:
        with pytest.raises(ConfigurationError) as refused:
            await worker.revocations.revoke(Kind.SUB, "a", before=before, seconds=seconds)
        return len(refused.value.problems)

    assert 2 == await problems(EPOCH + MOST_AHEAD + 60, 0.0)
    assert 2 == await problems(float("nan"), float("nan"))
    assert 2 == await problems(float("-inf"), LONGEST + 1)


@virtual
async def test_number_of_revocations_is_bounded() -> None:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(revocations, "MOST", 3)
        worker = World().worker()
        for jti in ("one", "two", "three", "three"):
            await worker.revoke(jti)
        with pytest.raises(UnavailableError, match="signing key"):
            await worker.revoke("four")

    assert "accepted" == worker.judge(jti="four")


# What cannot be known ---------------------------------------------------------------------------


@virtual
async def test_nothing_is_accepted_before_the_list_was_read() -> None:
    assert "unavailable" == World().worker().judge(jti="any")


@virtual
async def test_nothing_is_accepted_when_the_list_could_never_be_read() -> None:
    world = World()
    world.server.down = True
    worker = world.worker()
    await worker.look()

    assert "unavailable" == worker.judge(jti="any")


@virtual
async def test_known_revocations_go_on_while_redis_is_down() -> None:
    world, first, _ = await two()
    await first.revoke("leaked")
    world.server.down = True
    await asyncio.sleep(KNOWN_FOR - 2)
    await first.look()

    assert ["revoked", "accepted"] == [first.judge(jti="leaked"), first.judge(jti="other")]


@virtual
async def test_list_that_is_too_old_decides_nothing_more() -> None:
    world, first, _ = await two()
    world.server.down = True
    await asyncio.sleep(KNOWN_FOR + 1)
    await first.look()
    assert "unavailable" == first.judge(jti="any")
    world.server.down = False
    await first.look()

    assert "accepted" == first.judge(jti="any")


@virtual
async def test_verdict_holds_no_longer_than_what_is_known() -> None:
    world, first, _ = await two()
    long = Verdict(Claims(jti="any"), Validity(3.0, EPOCH + 1e6))
    short = Verdict(Claims(jti="any"), Validity(3.0, EPOCH + 5))

    validity = first.revocations.judge(long, world.clock.now()).validity
    assert 3.0 == validity.starts
    assert pytest.approx(EPOCH + KNOWN_FOR, abs=1) == validity.ends
    assert short is first.revocations.judge(short, world.clock.now())


@virtual
async def test_no_token_outlives_what_is_known_when_the_clock_was_turned_back() -> None:
    world, first, _ = await two()
    first.kept = [Claims(jti="any")]
    world.clock.offset = -1000.0
    await first.look()

    assert [] == first.kept


@virtual
async def test_redis_that_failed_is_asked_again_soon() -> None:
    world, first, _ = await two()
    assert POLL == await first.look()
    world.server.down = True

    assert await first.look() < POLL


@virtual
async def test_bug_is_told_and_does_not_end_the_looking() -> None:
    world, first, _ = await two()
    healthy, world.server.backend = world.server.backend, None  # type: ignore[assignment]
    running = asyncio.create_task(first.revocations.run())
    await asyncio.sleep(1.0)
    assert any(isinstance(event, StoreFailed) for event in first.events)
    world.server.backend = healthy
    await asyncio.sleep(KNOWN_FOR)

    assert "accepted" == first.judge(jti="any")
    running.cancel()


# What becomes of the list -----------------------------------------------------------------------


@virtual
async def test_redis_that_comes_back_empty_loses_nothing_that_a_worker_knows() -> None:
    world, first, second = await two()
    await first.revoke("leaked")
    world.server.forget()
    await first.look()
    await second.look()

    assert ["revoked", "revoked"] == [each.judge(jti="leaked") for each in (first, second)]


@virtual
async def test_older_list_put_back_is_mended() -> None:
    world, first, _ = await two()
    await first.revoke("one")
    version, older = world.server.held
    await asyncio.sleep(1)
    await first.revoke("two")
    world.server.put(older, version)
    await first.look()
    late = world.worker()
    await late.look()

    assert ["revoked"] * 2 == [late.judge(jti=jti) for jti in ("one", "two")]


@pytest.mark.parametrize("rubbish", [b"", b"rubbish", b"KR1", b"KR1\x01" + bytes(100)])
def test_list_that_cannot_be_opened_never_counts_as_empty(rubbish: bytes) -> None:
    @virtual
    async def check() -> None:
        world = World()
        world.server.put(rubbish)
        worker = world.worker()
        for _ in range(2):
            await worker.look()

            assert "unavailable" == worker.judge(jti="any")
        assert {RecordRefused} == {type(event) for event in worker.events}
        assert (7, rubbish) == world.server.held

    check()


@virtual
async def test_list_that_cannot_be_opened_is_replaced_by_who_knows_what_is_revoked() -> None:
    world, first, second = await two()
    await first.revoke("leaked")
    world.server.put(b"rubbish")
    await first.look()
    late = world.worker()
    await late.look()
    await second.look()

    assert ["revoked"] * 2 == [each.judge(jti="leaked") for each in (second, late)]


@virtual
async def test_nobody_revokes_into_a_list_that_cannot_be_opened() -> None:
    world, first, _ = await two()
    world.server.put(b"rubbish")

    with pytest.raises(RecordError):
        await first.revoke("leaked")
    with pytest.raises(RecordError):
        await first.revocations.in_force()


@virtual
async def test_two_hosts_with_different_seal_keys_do_not_write_for_ever() -> None:
    world, first, _ = await two()
    foreign = world.worker(FOREIGN)
    await foreign.look()
    await first.revoke("one")
    saves = world.server.saves
    for _ in range(100):
        await first.look()
        await foreign.look()

    assert world.server.saves - saves <= 2


@virtual
async def test_change_of_the_seal_key_loses_nothing() -> None:
    world = World()
    await world.worker(OLDER).revoke("leaked")
    await world.worker(KEY, OLDER).look()
    last = world.worker(KEY)
    await last.look()

    assert "revoked" == last.judge(jti="leaked")


@virtual
async def test_two_lists_of_one_millisecond_are_two() -> None:
    world, first, second = await two()
    world.server.latency = 0
    await first.revoke("one")
    await second.look()
    await first.revoke("two")
    await second.look()

    assert ["revoked"] * 2 == [second.judge(jti=jti) for jti in ("one", "two")]


# What is told -----------------------------------------------------------------------------------


@virtual
async def test_every_look_is_told_with_what_is_known_and_what_is_new() -> None:
    _, first, second = await two()
    await first.revoke("one")
    await second.look()
    await second.look()
    told = [event[1:3] for event in second.events if isinstance(event, RevocationsRead)]

    assert [(0, 0), (1, 1), (1, 0)] == told


@virtual
async def test_list_in_force_has_the_latest_first() -> None:
    _, first, _ = await two()
    for jti in ("one", "two"):
        await first.revoke(jti)
        await asyncio.sleep(1)

    listed = [each.digest for each in await first.revocations.in_force()]
    assert [digest_of(Kind.JTI, jti) for jti in ("two", "one")] == listed

"""With the token cache on, off, or far too small, every history gives the same answers."""

from collections.abc import Mapping
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    precondition,
    rule,
    run_state_machine_as_test,
)

from keycache.core.freshness import Lifetimes
from keycache.core.revocation import Kind
from keycache.errors import Reason
from tests.keycache.core.forge import ABSENT, NOW, claims, issuer, jwk, token
from tests.keycache.one_worker import Worker

LIFETIMES = Lifetimes(ttl=60, ttl_min=60, stale=60)
ISSUERS = ["https://issuer.example", "https://other.example"]
ALGORITHMS = ["ES256", "EdDSA"]

# Each key under its own kid, the same kid with another key, and a kid for another algorithm.
KEYS: list[Mapping[str, Any]] = [
    *[jwk(alg) for alg in ALGORITHMS],
    *[jwk(alg, 1) for alg in ALGORITHMS],
    jwk("ES256", 0, kid="EdDSA"),
    jwk("ES256", 0, alg=ABSENT),
]

TIMES = (  # seen with a leeway of 5 seconds
    {"exp": NOW + 100_000, "jti": "one"},
    {"exp": NOW + 30, "sub": "carol"},
    {"exp": NOW + 100_000, "nbf": NOW + 30},
    {"exp": NOW + 100_000, "iat": NOW - 30, "nbf": NOW - 90.5, "sub": "bob"},
    {"exp": NOW + 100_000, "aud": "other"},
)


def tokens(iss: str, alg: str) -> list[str]:
    """Good ones that begin and end at different times, one for somebody else, and a forged one."""
    texts = [token(alg, payload=claims(iss=iss, **times)) for times in TIMES]
    return [*texts, texts[0][:-2] + "AA"]


TOKENS = [tokens(iss, alg) for iss in ISSUERS for alg in ALGORITHMS]


class History(RuleBasedStateMachine):
    """The same things happen to three workers, which differ in the size of the token cache."""

    hits = 0  # tokens that were found in the token cache,
    seen = 0  # header fields of which a guard remembered what came of them, and
    named = 0  # requests that were known by their digest

    def __init__(self) -> None:
        super().__init__()
        policies = [issuer(issuer=url, name=url, leeway=5) for url in ISSUERS]
        self.plain, self.remembering, self.forgetful = (
            Worker(policies, size, lifetimes=LIFETIMES, revocation=True) for size in (0, 1000, 2)
        )
        self.all = (self.plain, self.remembering, self.forgetful)

    @initialize()
    def publish_everything(self) -> None:
        for url in ISSUERS:
            self.publish(url, KEYS[:2])
        self.look(down=False)

    @rule(
        url=st.sampled_from(ISSUERS),
        keys=st.lists(
            st.sampled_from(KEYS), min_size=1, max_size=3, unique_by=lambda key: key["kid"]
        ),
    )
    def publish(self, url: str, keys: list[Mapping[str, Any]]) -> None:
        """Rotate, remove, add, or bring back, or fetch the same keys again."""
        for worker in self.all:
            worker.publish(url, keys)

    @rule(seconds=st.sampled_from([0, 24.5, 25, 34.5, 35, 60, 119.5, 120, 4000, -60, -4000]))
    def set_the_clock(self, seconds: float) -> None:
        """Time passes, a token or a key set ends, or somebody turns the clock back."""
        for worker in self.all:
            worker.clock.time = NOW + seconds

    @precondition(lambda self: not self.plain.redis.down)
    @rule(
        url=st.sampled_from(ISSUERS),
        tokens=st.sampled_from([(Kind.JTI, "one"), (Kind.SUB, "bob"), (Kind.SUB, "carol")]),
        before=st.sampled_from([None, NOW - 4200]),
    )
    def revoke(self, url: str, tokens: tuple[Kind, str], before: float | None) -> None:
        """An operator revokes a token, or what a subject was issued until now, or long ago."""
        for worker in self.all:
            worker.revoke(url, *tokens, before)

    @rule(down=st.booleans())
    def look(self, *, down: bool) -> None:
        """The next look at what is revoked is due; Redis answers, or does not."""
        for worker in self.all:
            worker.redis.down = down
            worker.look()

    @rule(several=st.sampled_from(TOKENS))
    def verify(self, several: list[str]) -> None:
        """Ask all three; two of them twice, since the second answer may be a remembered one. And
        ask their guards, which remember header fields, and for the request that had the token last.
        """
        for text in several:
            expected = self.plain.decide(text)
            for worker in (self.remembering, self.forgetful) * 2:
                assert expected == worker.decide(text)
                History.hits += worker.found_it
            for worker in (*self.all, *self.all):
                seen = dict(worker.guard._seen)
                assert worker.let_in(text) in (expected, None)
                History.seen += worker.found_it and seen == worker.guard._seen
                again = worker.again(text)
                assert again in (expected, None)
                History.named += again is not None

    def teardown(self) -> None:
        for worker in self.all:
            worker.close()


def test_token_cache_never_changes_an_answer() -> None:
    History.hits = History.seen = History.named = 0

    run_state_machine_as_test(
        History, settings=settings(max_examples=80, stateful_step_count=20, deadline=None)
    )

    assert History.hits > 100, "the histories hardly met the token cache"
    assert History.seen > 100, "the histories hardly met what the guards remember"
    assert History.named > 100, "the histories hardly met requests that were known by their digest"


def test_history_has_answers_of_every_kind() -> None:
    """The tokens above are what their comments say, so that the histories mean something."""
    worker = Worker([issuer(leeway=5)], 0, lifetimes=LIFETIMES)
    worker.publish(ISSUERS[0], KEYS[:2])

    def reasons() -> list[str]:
        decided = [worker.decide(text) for text in TOKENS[0]]
        return [answer if isinstance(answer, str) else "accepted" for answer in decided]

    good = "accepted"
    never = [Reason.WRONG_AUDIENCE, Reason.BAD_SIGNATURE]
    assert [good, good, Reason.NOT_YET_VALID, good, *never] == reasons()
    worker.clock.time = NOW + 35
    assert [good, Reason.EXPIRED, good, good, *never] == reasons()
    worker.clock.time = NOW + 120
    no_keys = "unavailable"
    assert [no_keys, Reason.EXPIRED, *[no_keys] * 4] == reasons()
    worker.close()

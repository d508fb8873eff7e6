"""What is remembered of a good token, and everything that makes it forgotten."""

from collections.abc import Callable

import pytest

from keycache.cache import KeyCache
from keycache.core.keys import KeySet, SigningKey
from keycache.core.verifier import verify
from keycache.events import ignore
from keycache.token_cache import TokenCache, token_digest
from tests.keycache.core import forge
from tests.keycache.core.forge import NOW
from tests.keycache.parts import held
from tests.simulation.redis import ServerClock

KEY = forge.key("ES256")
OTHER_KEY = forge.key("EdDSA")
DEAD = NOW + 3900


def key_cache() -> KeyCache:
    """A cache whose set was fetched NOW; what is in it does not matter here."""
    clock = ServerClock(lambda: float(NOW))
    cache = KeyCache(
        "issuer", clock, ignore, wait=1.0, max_waiters=1, negative_ttl=1.0, negative_size=1
    )
    cache.install(held("key-0", fetched_at=NOW))
    return cache


CACHE = key_cache()


def put(
    tokens: TokenCache,
    text: str,
    key: SigningKey = KEY,
    cache: KeyCache = CACHE,
    leeway: float = 0,
) -> None:
    """Verify a token with this key, and remember it."""
    verdict = verify(forge.parsed(text), key, forge.issuer(leeway=leeway), NOW)
    tokens.put(token_digest(text), verdict, key, cache)


def remembered(size: int = 10, leeway: float = 0, **claims: object) -> tuple[TokenCache, str]:
    """A token cache, and the token of these claims that is in it."""
    tokens, text = TokenCache(size), forge.token(payload=forge.claims(**claims))
    put(tokens, text, leeway=leeway)
    return tokens, text


def known(tokens: TokenCache, text: str, now: float = NOW) -> dict[str, object] | None:
    """The claims of this token if they are known at `now`."""
    entry = tokens.get(token_digest(text), now)
    return dict(entry.claims) if entry else None


def test_token_that_was_verified_is_known_with_its_claims() -> None:
    tokens, text = remembered()
    assert forge.claims() == known(tokens, text)


def test_token_that_was_not_verified_is_not_known() -> None:
    tokens, _ = remembered()
    assert known(tokens, forge.token(payload=forge.claims(sub="bob"))) is None


@pytest.mark.parametrize("place", [0, 40, -1])
def test_token_that_differs_in_one_character_is_not_known(place: int) -> None:
    tokens, text = remembered()
    characters = list(text)
    characters[place] = "A" if characters[place] != "A" else "B"
    assert known(tokens, "".join(characters)) is None


@pytest.mark.parametrize("other", ["{}=", "{}.", " {}", "{}é", "", "é"])
def test_token_with_something_beside_it_is_not_known(other: str) -> None:
    tokens, text = remembered()
    assert known(tokens, other.format(text)) is None


def test_lone_surrogate_is_not_known_and_raises_nothing() -> None:
    tokens, _ = remembered()
    assert known(tokens, "\ud800") is None


@pytest.mark.parametrize(("leeway", "ends"), [(0, NOW + 300), (30, NOW + 330)])
def test_entry_holds_until_the_token_expires(leeway: float, ends: float) -> None:
    tokens, text = remembered(leeway=leeway)
    found = [known(tokens, text, now) is not None for now in (ends - 0.001, ends)]
    assert [True, False] == found


@pytest.mark.parametrize("name", ["nbf", "iat"])
def test_entry_does_not_hold_before_the_token_does(name: str) -> None:
    tokens, text = remembered(**{name: NOW - 10})  # the clock of this host is set back
    found = [known(tokens, text, now) is not None for now in (NOW - 10, NOW - 10.001)]
    assert [True, False] == found


def test_entry_dies_with_the_set_of_its_key() -> None:
    tokens, text = remembered(exp=NOW + 86400)
    found = [known(tokens, text, now) is not None for now in (DEAD - 0.001, DEAD)]
    assert [True, False] == found


def test_entry_dies_with_its_key() -> None:
    tokens, text = remembered()
    tokens.keep_only(CACHE, KeySet([OTHER_KEY]))
    assert (None, 0) == (known(tokens, text), len(tokens))


def test_entry_lives_on_in_a_set_that_has_its_key() -> None:
    tokens, text = remembered()
    tokens.keep_only(CACHE, KeySet([OTHER_KEY, KEY]))
    assert forge.claims() == known(tokens, text)


def test_entry_dies_when_another_object_takes_the_place_of_its_key() -> None:
    tokens, text = remembered()
    twin = forge.key("ES256")
    assert twin == KEY
    tokens.keep_only(CACHE, KeySet([twin]))
    assert known(tokens, text) is None


def test_set_of_one_issuer_ends_no_token_of_another() -> None:
    tokens, text = remembered()
    tokens.keep_only(key_cache(), KeySet([OTHER_KEY]))
    assert forge.claims() == known(tokens, text)


def test_tokens_of_one_issuer_are_forgotten_by_their_claims() -> None:
    tokens, alice = remembered()
    bob = forge.token(payload=forge.claims(sub="bob"))
    put(tokens, bob)
    tokens.forget(key_cache(), lambda _: True)  # of another issuer
    assert 2 == len(tokens)
    tokens.forget(CACHE, lambda claims: claims["sub"] == "alice")
    assert [True, False] == [known(tokens, text) is None for text in (alice, bob)]


def test_oldest_entry_makes_room_for_a_new_one() -> None:
    tokens = TokenCache(2)
    texts = [forge.token(payload=forge.claims(sub=f"user-{n}")) for n in range(3)]
    for text in texts:
        put(tokens, text)
    assert [False, True, True] == [known(tokens, text) is not None for text in texts]
    assert 2 == len(tokens)


def named(tokens: TokenCache, name: bytes, now: float = NOW) -> str | None:
    """The subject of the token of this name."""
    found = tokens.named(name, now)
    return str(found.claims["sub"]) if found else None


def give_name(tokens: TokenCache, text: str, name: bytes) -> None:
    """The token has come again, in a request of this name."""
    found = tokens.get(token_digest(text), NOW)
    assert found
    tokens.name(found, name)


def with_names(size: int) -> tuple[TokenCache, list[str]]:
    """As many tokens of users as there is room for, each of them named as its user."""
    tokens = TokenCache(size)
    texts = [forge.token(payload=forge.claims(sub=f"user-{n}")) for n in range(size)]
    for number, text in enumerate(texts):
        put(tokens, text)
        give_name(tokens, text, b"user-%d" % number)
    return tokens, texts


def test_token_is_known_by_the_last_name_that_it_was_given() -> None:
    tokens, texts = with_names(2)
    give_name(tokens, texts[0], b"another")
    names = (b"another", b"user-0", b"user-1", b"", b"user-2")
    assert ["user-0", None, "user-1", None, None] == [named(tokens, name) for name in names]


def test_name_ends_with_its_token() -> None:
    def after(what: Callable[[TokenCache], object]) -> list[str | None]:
        tokens, _ = with_names(2)
        what(tokens)
        assert len(tokens) == len(tokens._named)
        return [named(tokens, b"user-0"), named(tokens, b"user-1")]

    new = forge.token(payload=forge.claims(sub="new"))
    of_first = lambda claims: claims["sub"] == "user-0"  # noqa: E731
    assert ["user-0", "user-1"] == after(lambda _: None)
    assert [None, "user-1"] == after(lambda tokens: tokens.forget(CACHE, of_first))
    assert [None, None] == after(lambda tokens: tokens.keep_only(CACHE, KeySet([OTHER_KEY])))

    tokens, _ = with_names(2)
    put(tokens, new)  # takes the room of the oldest
    assert [None, "user-1"] == [named(tokens, name) for name in (b"user-0", b"user-1")]
    assert [b"user-1"] == list(tokens._named)


def test_name_holds_from_when_the_token_does_until_it_expires_or_its_key_set_dies() -> None:
    tokens, text = remembered(nbf=NOW - 10, exp=NOW + 86400)
    give_name(tokens, text, b"name")
    times = (NOW - 10.001, NOW - 10, DEAD - 0.001, DEAD)
    assert [False, True, True, False] == [bool(named(tokens, b"name", now)) for now in times]
    tokens, text = remembered(leeway=30)
    give_name(tokens, text, b"name")
    assert [True, False] == [bool(named(tokens, b"name", NOW + t)) for t in (329.999, 330)]


def test_token_that_was_verified_twice_at_a_time_leaves_no_name_behind() -> None:
    tokens, texts = with_names(1)
    put(tokens, texts[0])
    assert named(tokens, b"user-0") is None
    assert (1, {}) == (len(tokens), tokens._named)


def test_token_that_is_not_here_gets_no_name() -> None:
    tokens, text = remembered(size=1)
    gone = tokens.get(token_digest(text), NOW)
    assert gone
    put(tokens, forge.token(payload=forge.claims(sub="bob")))
    tokens.name(gone, b"name")
    assert {} == tokens._named
    assert not tokens.still(gone, NOW)


def test_token_says_whether_it_came_again() -> None:
    tokens, text = remembered()
    first = next(iter(tokens._entries.values()))
    assert not first.found
    assert tokens.get(token_digest(text), NOW) is first
    assert first.found


def test_cache_of_size_zero_remembers_nothing() -> None:
    tokens, text = remembered(size=0)
    assert (None, 0) == (known(tokens, text), len(tokens))


def test_token_itself_is_not_kept() -> None:
    tokens, text = remembered()
    kept = repr(vars(tokens))
    assert "alice" in kept  # the claims are
    assert not [part for part in (text, *text.split(".")) if part in kept]

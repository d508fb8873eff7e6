"""The key for a token, and a set that follows another."""

from keycache.core.keys import KeySet, Miss
from tests.keycache.core.forge import ABSENT, jwk, key, key_set


def test_key_is_chosen_by_kid_and_algorithm() -> None:
    keys = key_set(jwk("ES256", kid="a"), jwk("RS256", kid="a"), jwk("ES256", 1, kid="b"))

    assert keys.keys[1] is keys.select("a", "RS256")


def test_kid_that_nobody_knows_is_unknown() -> None:
    assert Miss.UNKNOWN is key_set(jwk("ES256", kid="a")).select("b", "ES256")


def test_kid_is_compared_exactly() -> None:
    keys = key_set(jwk("ES256", kid="Key-1"))

    assert {Miss.UNKNOWN} == {keys.select(kid, "ES256") for kid in ("key-1", "Key-1 ", "Key-", "")}


def test_key_of_another_algorithm_is_a_mismatch() -> None:
    assert Miss.MISMATCH is key_set(jwk("RS256", kid="a")).select("a", "PS256")


def test_key_without_an_algorithm_is_chosen_for_all_of_its_kind_only() -> None:
    keys = key_set(jwk("RS256", kid="a", alg=ABSENT))

    found = {alg: keys.select("a", alg) for alg in ("RS256", "PS512", "ES256", "HS256", "none")}

    only = keys.keys[0]
    miss = Miss.MISMATCH
    assert {"RS256": only, "PS512": only, "ES256": miss, "HS256": miss, "none": miss} == found


def test_key_that_was_skipped_is_unusable_and_not_unknown() -> None:
    keys = key_set(jwk("RS256", kid="a", use="enc"), jwk("ES256", kid="b"))

    assert Miss.UNUSABLE is keys.select("a", "RS256")


def test_duplicate_kid_is_unusable() -> None:
    keys = key_set(jwk("ES256", 0, kid="a"), jwk("ES256", 1, kid="a"), jwk("ES256", 2, kid="b"))

    assert Miss.UNUSABLE is keys.select("a", "ES256")


def test_without_a_kid_the_only_compatible_key_is_chosen() -> None:
    keys = key_set(jwk("ES256"), jwk("RS256"))

    assert keys.keys[0] is keys.select(None, "ES256")


def test_without_a_kid_two_compatible_keys_are_ambiguous() -> None:
    keys = key_set(jwk("ES256", 0, kid="a"), jwk("ES256", 1, kid=ABSENT))

    assert Miss.AMBIGUOUS is keys.select(None, "ES256")


def test_without_a_kid_no_compatible_key_is_ambiguous() -> None:
    assert Miss.AMBIGUOUS is key_set(jwk("ES256")).select(None, "RS256")


def test_key_without_a_kid_is_for_no_kid() -> None:
    assert Miss.UNKNOWN is key_set(jwk("ES256", kid=ABSENT)).select("None", "ES256")


def test_first_set_succeeds_nothing() -> None:
    keys = key_set(jwk("ES256"))

    assert keys is keys.succeeding(None)


def test_set_that_changes_nothing_is_the_previous_one() -> None:
    previous = key_set(jwk("ES256"), jwk("RS256"))

    assert previous is key_set(jwk("ES256"), jwk("RS256")).succeeding(previous)


def test_key_that_stays_is_the_same_object() -> None:
    previous = key_set(jwk("ES256"), jwk("RS256"))
    following = key_set(jwk("ES256", 1, kid="new"), jwk("ES256")).succeeding(previous)

    assert previous.keys[0] is following.keys[1]


def test_key_that_was_removed_is_gone() -> None:
    previous = key_set(jwk("ES256"), jwk("RS256"))
    following = key_set(jwk("RS256")).succeeding(previous)

    assert Miss.UNKNOWN is following.select("ES256", "ES256")


def test_other_key_under_the_same_kid_is_another_object() -> None:
    previous = key_set(jwk("ES256", 0))
    following = key_set(jwk("ES256", 1)).succeeding(previous)

    assert previous.keys[0] is not following.select("ES256", "ES256")
    assert following.keys[0] is following.select("ES256", "ES256")


def test_key_that_loses_an_algorithm_is_another_key() -> None:
    previous = key_set(jwk("RS256", alg=ABSENT))
    following = key_set(jwk("RS256")).succeeding(previous)

    assert Miss.MISMATCH is following.select("RS256", "PS256")


def test_skipped_keys_are_those_of_the_new_set() -> None:
    previous = key_set(jwk("ES256"), jwk("RS256", use="enc"))
    following = key_set(jwk("ES256")).succeeding(previous)

    assert () == following.skipped
    assert previous.keys[0] is following.keys[0]


def test_key_shows_nothing_of_its_object() -> None:
    assert "public" not in repr(key("RS256"))


def test_set_without_keys_knows_nobody() -> None:
    assert Miss.UNKNOWN is KeySet(()).select("a", "ES256")

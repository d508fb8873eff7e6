"""Errors say whose fault it is, and carry words that do not change."""

import pytest

from keycache import errors
from keycache.errors import (
    ConfigurationError,
    FetchCode,
    JWKSError,
    KeycacheError,
    Reason,
    RecordCode,
    RecordError,
    StoreError,
    TokenError,
    UnavailableError,
)


def test_every_error_is_below_the_root() -> None:
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type)]
    found = {kind for kind in kinds if issubclass(kind, Exception)}

    expected = {TokenError, UnavailableError, JWKSError, StoreError, RecordError}
    assert {KeycacheError, ConfigurationError, *expected} == found
    assert all(issubclass(kind, KeycacheError) for kind in found)


def test_every_error_is_drawn_in_the_tree() -> None:
    names = {kind.__name__ for kind in KeycacheError.__subclasses__()}

    assert names == {name for name in names if name in (errors.__doc__ or "")}


def test_reasons_are_the_words_that_others_depend_on() -> None:
    # Dashboards, alerts and clients know these: a change here breaks them.
    assert [
        "malformed_header",
        "multiple_tokens",
        "ambiguous_path",
        "unknown_request",
        "no_token",
        "too_large",
        "malformed",
        "unsupported_header",
        "unsupported_algorithm",
        "wrong_type",
        "unknown_issuer",
        "missing_kid",
        "unknown_key",
        "bad_signature",
        "expired",
        "not_yet_valid",
        "wrong_audience",
        "missing_claim",
        "invalid_claim",
        "revoked",
        "insufficient_scope",
        "forbidden",
        "no_rule",
        "untrusted_proxy",
    ] == list(Reason)


def test_token_error_says_its_reason_and_a_sentence() -> None:
    error = TokenError(Reason.EXPIRED, "The token has expired.")

    assert "expired: The token has expired." == str(error)
    assert ("expired", "The token has expired.", "") == (error.reason, error.details, error.scope)


@pytest.mark.parametrize(
    ("asked", "told"), [(-1, 1), (0, 1), (0.2, 1), (1, 1), (1.5, 1.5), (60, 60)]
)
def test_retry_after_is_at_least_a_second(asked: float, told: float) -> None:
    assert told == UnavailableError("later", retry_after=asked).retry_after


def test_jwks_error_carries_its_code() -> None:
    error = JWKSError(FetchCode.TIMEOUT, "no answer within 5 s")

    assert ("timeout", "timeout: no answer within 5 s") == (error.code, str(error))


def test_record_error_carries_its_code() -> None:
    assert "seal" == RecordError(RecordCode.SEAL, "changed").code


def test_configuration_error_lists_every_problem() -> None:
    error = ConfigurationError(["one", "two"])

    assert (("one", "two"), "one\ntwo") == (error.problems, str(error))

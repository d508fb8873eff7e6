"""Every error as an answer: RFC 6750 section 3 to the letter, and nothing of the sender in it."""

import re

import pytest

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
from keycache.problems import Problem, check_realm, check_scopes, problem

BAD_REQUEST = {
    *(Reason.MALFORMED_HEADER, Reason.MULTIPLE_TOKENS),
    *(Reason.AMBIGUOUS_PATH, Reason.UNKNOWN_REQUEST),
}
TOO_LITTLE = {Reason.INSUFFICIENT_SCOPE, Reason.FORBIDDEN}
HOPELESS = {Reason.NO_RULE, Reason.UNTRUSTED_PROXY}
METADATA = "https://api.example.com/.well-known/oauth-protected-resource/x"
NO_STORE = {"Cache-Control": "no-store"}


def test_nothing_sent_is_401_without_an_error_code() -> None:
    answer = problem(TokenError(Reason.NO_TOKEN, "No token was sent."), "api")

    assert (
        Problem(
            401,
            {"WWW-Authenticate": 'Bearer realm="api"', **NO_STORE},
            {"error": "No token provided"},
        )
        == answer
    )


def test_bad_token_is_401_with_its_reason_and_one_sentence() -> None:
    answer = problem(TokenError(Reason.EXPIRED, "The token has expired."), "api")

    assert (
        Problem(
            401,
            {
                "WWW-Authenticate": (
                    'Bearer realm="api", error="invalid_token",'
                    ' error_description="The token has expired."'
                ),
                **NO_STORE,
            },
            {"error": "Invalid token", "reason": "expired", "details": "The token has expired."},
        )
        == answer
    )


@pytest.mark.parametrize("reason", sorted(BAD_REQUEST))
def test_bad_request_is_400_invalid_request(reason: Reason) -> None:
    answer = problem(TokenError(reason, "Two."), "api")

    assert (
        Problem(
            400,
            {
                "WWW-Authenticate": (
                    'Bearer realm="api", error="invalid_request", error_description="Two."'
                ),
                **NO_STORE,
            },
            {"error": "Invalid request", "reason": str(reason), "details": "Two."},
        )
        == answer
    )


def test_missing_scope_is_403_and_names_the_scopes() -> None:
    answer = problem(TokenError(Reason.INSUFFICIENT_SCOPE, "No.", scope="a:b c"), "api")

    assert (
        Problem(
            403,
            {
                "WWW-Authenticate": (
                    'Bearer realm="api", error="insufficient_scope", error_description="No.",'
                    ' scope="a:b c"'
                ),
                **NO_STORE,
            },
            {"error": "Insufficient scope", "reason": "insufficient_scope", "details": "No."},
        )
        == answer
    )


def test_unknown_keys_are_503_with_retry_after_and_no_challenge() -> None:
    answer = problem(UnavailableError("The keys are not known.", retry_after=7), "api")

    assert (
        Problem(
            503,
            {"Retry-After": "7", **NO_STORE},
            {
                "error": "Temporarily unavailable",
                "reason": "temporarily_unavailable",
                "details": "The keys are not known.",
            },
        )
        == answer
    )


@pytest.mark.parametrize(
    ("seconds", "sent"), [(-5, "1"), (0, "1"), (1, "1"), (1.01, "2"), (29.999, "30")]
)
def test_retry_after_is_whole_seconds_rounded_up_and_at_least_1(seconds: float, sent: str) -> None:
    assert sent == problem(UnavailableError("", retry_after=seconds), "api").headers["Retry-After"]


@pytest.mark.parametrize("reason", sorted(HOPELESS))
def test_what_no_token_would_change_is_403_without_a_challenge(reason: Reason) -> None:
    answer = problem(TokenError(reason, "No."), "api")

    body = {"error": "Forbidden", "reason": str(reason), "details": "No."}
    assert Problem(403, NO_STORE, body) == answer


@pytest.mark.parametrize("reason", sorted(set(Reason) - BAD_REQUEST - TOO_LITTLE - HOPELESS))
def test_every_other_reason_is_401(reason: Reason) -> None:
    assert 401 == problem(TokenError(reason, "No."), "api").status


@pytest.mark.parametrize("reason", sorted(set(Reason) - HOPELESS))
def test_challenge_is_one_field_of_quoted_strings_each_given_once(reason: Reason) -> None:
    """RFC 6750 section 3, and its characters."""
    error = TokenError(reason, 'The claim "é\\\r\n" is not good.', scope="a b")
    header = problem(error, "api", METADATA).headers["WWW-Authenticate"]
    names = re.findall(r' (\w+)="', header)

    assert re.fullmatch(r'Bearer \w+="[ !#-\[\]-~]*"(, \w+="[ !#-\[\]-~]*")*', header)
    assert sorted(set(names)) == sorted(names)


@pytest.mark.parametrize("reason", sorted(set(Reason) - HOPELESS))
def test_challenge_says_where_the_metadata_is(reason: Reason) -> None:
    """RFC 9728 section 5.1."""
    header = problem(TokenError(reason, "No."), "api", METADATA).headers["WWW-Authenticate"]

    assert header.startswith(f'Bearer realm="api", resource_metadata="{METADATA}"')


@pytest.mark.parametrize(
    "error",
    [
        StoreError("no"),
        RecordError(RecordCode.SEAL, "no"),
        JWKSError(FetchCode.TIMEOUT, "no"),
        ConfigurationError(["no"]),
    ],
)
def test_error_that_no_request_can_meet_is_a_bug(error: KeycacheError) -> None:
    with pytest.raises(TypeError):
        problem(error, "api")


@pytest.mark.parametrize("realm", ["", "api", "My API (v2), a/b"])
def test_realm_of_printable_ascii_is_taken_as_it_is(realm: str) -> None:
    assert realm == check_realm(realm)


@pytest.mark.parametrize(
    "realm", ['a"b', "a\\b", "a\r\nSet-Cookie: x", "a\x00", "a\x7f", "é", "\t"]
)
def test_realm_that_would_break_the_header_is_refused(realm: str) -> None:
    with pytest.raises(ConfigurationError, match="realm"):
        check_realm(realm)


def test_scope_of_rfc_6749s_characters_is_taken_as_it_is() -> None:
    scopes = ("read", "https://example.com/a?b=c", "!#$%&'()*+,-./:;<=>?@[]^_`{|}~")

    assert scopes == check_scopes(scopes)


@pytest.mark.parametrize("scope", ["", "a b", 'a"b', "a\\b", "a\r\nX: y", "é", "a\x7f", "read\n"])
def test_scope_that_would_break_the_header_is_refused(scope: str) -> None:
    with pytest.raises(ConfigurationError, match="scopes"):
        check_scopes(["good", scope])

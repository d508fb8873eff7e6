"""The provider that the system tests lean on does what a provider does, in PyJWT's eyes."""

from typing import Any

import httpx
import jwt
import pytest

from tests.system.identity_provider import Algorithm, IdentityProvider

API = "https://api.example"


def published(provider: IdentityProvider) -> list[dict[str, Any]]:
    return list(httpx.get(provider.jwks_url, trust_env=False).json()["keys"])


def verified(provider: IdentityProvider, token: str) -> dict[str, Any]:
    header = jwt.get_unverified_header(token)
    key = next(key for key in published(provider) if key["kid"] == header["kid"])
    return jwt.decode(
        token,
        jwt.PyJWK(key),
        algorithms=[header["alg"]],
        issuer=provider.issuer,
        audience=API,
        options={"require": ["exp", "iat", "jti", "client_id", "sub"]},
    )


@pytest.mark.parametrize("algorithm", ["RS256", "ES256", "EdDSA"])
def test_its_tokens_verify_with_the_keys_it_publishes(
    identity_provider: IdentityProvider, algorithm: Algorithm
) -> None:
    token = identity_provider.token(API, "read write", algorithm)

    assert "read write" == verified(identity_provider, token)["scope"]
    assert algorithm == jwt.get_unverified_header(token)["alg"]
    assert "at+jwt" == jwt.get_unverified_header(token)["typ"]


def test_after_a_rotation_old_and_new_tokens_verify(identity_provider: IdentityProvider) -> None:
    before = identity_provider.token(API)
    identity_provider.rotate()
    after = identity_provider.token(API)

    kids = [jwt.get_unverified_header(token)["kid"] for token in (before, after)]
    assert kids[0] != kids[1]
    assert verified(identity_provider, before)
    assert verified(identity_provider, after)


def test_a_rotation_can_take_the_old_keys_away(identity_provider: IdentityProvider) -> None:
    before = {key["kid"] for key in published(identity_provider)}
    identity_provider.rotate(keep=False)

    after = {key["kid"] for key in published(identity_provider)}
    assert 3 == len(after)
    assert set() == before & after


def test_it_counts_how_often_its_keys_are_fetched(identity_provider: IdentityProvider) -> None:
    assert 0 == identity_provider.jwks_fetches()
    published(identity_provider)
    published(identity_provider)

    assert 2 == identity_provider.jwks_fetches()


def test_it_ends_with_the_process_that_started_it(identity_provider: IdentityProvider) -> None:
    stdin = identity_provider._process.stdin
    assert stdin is not None
    stdin.close()

    assert 0 == identity_provider._process.wait(10)

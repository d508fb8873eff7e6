"""What the system tests share: a real identity provider."""

from collections.abc import Iterator

import pytest

from tests.system.identity_provider import IdentityProvider


@pytest.fixture
def identity_provider() -> Iterator[IdentityProvider]:
    """The certified oidc-provider with new keys, its count of fetches at 0."""
    with IdentityProvider() as provider:
        yield provider

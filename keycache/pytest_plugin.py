"""The pytest fixture `keycache_issuer`: what it gives is told in `keycache.testing`."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from keycache.testing import FakeIssuer


@pytest.fixture
def keycache_issuer() -> "Iterator[FakeIssuer]":
    """A local issuer for this test alone, with new keys and its own clock."""
    # Every run of pytest imports this file; only a test that asks for an issuer pays for signing.
    from keycache.testing import FakeIssuer  # noqa: PLC0415

    with FakeIssuer() as issuer:
        yield issuer

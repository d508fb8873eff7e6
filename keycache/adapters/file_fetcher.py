"""FileFetcher: reads a key set from a file, for an issuer that nobody can or shall ask.

Its validator is a digest of what the file holds, and not its time: hosts that share a cache have
copies of the file, which are as old as their roll-out.
"""

import asyncio
from hashlib import sha256
from pathlib import Path

from keycache.errors import FetchCode, JWKSError
from keycache.interfaces import Answer
from keycache.issuer import Issuer


class FileFetcher:
    """Implements `keycache.interfaces.Fetcher`. timeout: seconds; max_bytes: of a file."""

    def __init__(self, timeout: float, max_bytes: int) -> None:
        self._timeout = timeout
        self._max_bytes = max_bytes

    async def fetch(self, issuer: Issuer, etag: str | None, last_modified: str | None) -> Answer:
        """See `Fetcher.fetch`. No document when the file holds what `etag` says."""
        path = Path(issuer.jwks_file or "")
        try:
            async with asyncio.timeout(self._timeout):
                document = await asyncio.to_thread(self._read, path)
        except TimeoutError:
            raise JWKSError(
                FetchCode.TIMEOUT, f"{path} could not be read within {self._timeout:g} s"
            ) from None
        except OSError as error:
            raise JWKSError(FetchCode.UNREACHABLE, f"{path}: {error.strerror}") from error
        digest = f'"{sha256(document).hexdigest()}"'
        return Answer(
            document=None if digest == etag else document,
            cache_control=None,
            age=None,
            etag=digest,
            last_modified=None,
            date=None,
        )

    def _read(self, path: Path) -> bytes:
        if not path.is_file():  # a pipe would hold up a thread for ever
            raise JWKSError(FetchCode.UNREACHABLE, f"{path} is no file")
        with path.open("rb") as file:
            document = file.read(self._max_bytes + 1)
        if len(document) > self._max_bytes:
            raise JWKSError(FetchCode.TOO_LARGE, f"{path} holds more than {self._max_bytes} bytes")
        return document

"""FileFetcher: a key set from a file, within a bound on its size."""

import json
import os
from pathlib import Path

import pytest

from keycache.adapters.file_fetcher import FileFetcher
from keycache.errors import FetchCode, JWKSError
from keycache.issuer import Issuer
from keycache.runtime import Options, Runtime
from keycache.testing import FakeIssuer

MAX_BYTES = 2000


def kept_in(path: Path, issuer: str = "https://id.example.com") -> Issuer:
    return Issuer(issuer=issuer, audiences=("api",), name="demo", jwks_file=str(path))


def fetcher() -> FileFetcher:
    return FileFetcher(timeout=10.0, max_bytes=MAX_BYTES)


async def failure(path: Path) -> FetchCode:
    with pytest.raises(JWKSError) as failed:
        await fetcher().fetch(kept_in(path), None, None)
    return failed.value.code


async def test_file_is_the_document(tmp_path: Path) -> None:
    path = tmp_path / "jwks.json"
    path.write_bytes(b"x" * MAX_BYTES)
    assert b"x" * MAX_BYTES == (await fetcher().fetch(kept_in(path), None, None)).document


async def test_file_that_has_not_changed_is_no_document(tmp_path: Path) -> None:
    path = tmp_path / "jwks.json"
    path.write_text("{}")
    first = await fetcher().fetch(kept_in(path), None, None)
    os.utime(path, (1, 1))  # rolled out again
    assert (await fetcher().fetch(kept_in(path), first.etag, None)).document is None


async def test_changed_file_is_a_document(tmp_path: Path) -> None:
    path = tmp_path / "jwks.json"
    path.write_text("{}")
    first = await fetcher().fetch(kept_in(path), None, None)
    path.write_text("[]")
    assert b"[]" == (await fetcher().fetch(kept_in(path), first.etag, None)).document


async def test_file_one_byte_too_large_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "jwks.json"
    path.write_bytes(b"x" * (MAX_BYTES + 1))
    assert FetchCode.TOO_LARGE is await failure(path)


async def test_missing_file_is_a_failure(tmp_path: Path) -> None:
    assert FetchCode.UNREACHABLE is await failure(tmp_path / "nowhere.json")


async def test_pipe_in_place_of_a_file_holds_nobody_up(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert FetchCode.UNREACHABLE is await failure(tmp_path / "pipe")


def test_keys_in_a_file_are_another_source_than_those_of_discovery(tmp_path: Path) -> None:
    plain = Issuer(issuer="https://id.example.com", audiences=("api",))
    assert kept_in(tmp_path / "a").source != plain.source
    assert kept_in(tmp_path / "a").source != kept_in(tmp_path / "b").source


async def test_token_is_verified_with_keys_from_a_file_and_a_rotated_one_too(
    tmp_path: Path,
) -> None:
    path = tmp_path / "jwks.json"
    with FakeIssuer(audience="api") as demo:
        path.write_bytes(json.dumps(demo.jwks()).encode())
        runtime = Runtime([kept_in(path, demo.url)], Options())
        await runtime.open()
        try:
            first = await runtime.authenticator.authenticate(demo.mint())
            demo.rotate()
            path.write_bytes(json.dumps(demo.jwks()).encode())
            second = await runtime.authenticator.authenticate(demo.mint())
        finally:
            await runtime.close()

        assert (demo.url, demo.url) == (first["iss"], second["iss"])
        assert (0, 0) == (demo.discovery_fetches, demo.jwks_fetches)

"""Readings: everything that some server makes of a path is among them, and plain paths have one."""

from contextlib import suppress
from posixpath import normpath
from time import process_time
from urllib.parse import quote, unquote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keycache.errors import Reason, TokenError
from keycache.rules.readings import READINGS, is_plain, readings


@pytest.mark.parametrize(
    ("path", "reading"),
    [
        ("/%61dmin", "/admin"),
        ("/%2561dmin", "/admin"),
        ("/%252561dmin", "/admin"),
        ("/api%2fadmin", "/api/admin"),
        ("/api%2Fadmin", "/api/admin"),
        ("/api/%2e%2e/admin", "/admin"),
        ("/api/.%2e/admin", "/admin"),
        ("/api/../admin", "/admin"),
        ("/api/x/../../admin", "/admin"),
        ("/../admin", "/admin"),
        ("/./admin", "/admin"),
        ("/admin/.", "/admin"),
        ("/admin/x/..", "/admin"),
        ("//admin", "/admin"),
        ("/api//admin", "/api/admin"),
        ("/api//../admin", "/api/admin"),  # RFC 3986 section 5.2.4
        ("/api//../admin", "/admin"),  # slashes merged first
        ("/api\\admin", "/api/admin"),
        ("/api%5cadmin", "/api/admin"),
        ("/api/..\\admin", "/admin"),
        ("/api/..%5cadmin", "/admin"),
        ("/admin;v=1", "/admin"),
        ("/admin;v=1/x;y", "/admin/x"),
        ("/api/..;/admin", "/admin"),
        ("/api/..;a=b/admin", "/admin"),
        ("/api/%2e%2e%3b/admin", "/admin"),
        ("/admin%00.html", "/admin"),
        ("/admin%00.html", "/admin.html"),
        ("/ad%09min", "/admin"),
        ("/ad\tmin", "/admin"),
        ("/admin%3fx=1", "/admin"),
        ("/admin%23x", "/admin"),
        ("/admin#x", "/admin"),
        ("/admin?x=1", "/admin"),
        ("/api/%c0%ae%c0%ae/admin", "/admin"),
        ("/api%c0%afadmin", "/api/admin"),
        ("/api%e0%80%afadmin", "/api/admin"),
        ("/api%c1%9cadmin", "/api/admin"),
        ("/api/%25%32%65%25%32%65/admin", "/admin"),
    ],
)
def test_path_can_be_read_so(path: str, reading: str) -> None:
    assert not is_plain(path)
    assert reading in set(readings(path))


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/orders",
        "/orders/",
        "/orders/4711/items",
        "/v1/things:batch",
        "/@me/a=1,b!$&'()*+",
        "/file.tar.gz",
        "/~user/a_b-c",
        "/ORDERS",
        "/caf\u00e9",
    ],
)
def test_plain_path_has_one_reading(path: str) -> None:
    assert is_plain(path)
    assert [path] == list(readings(path))


@pytest.mark.parametrize("path", ["/.well-known/jwks.json", "/a/.hidden", "/a/..b"])
def test_name_that_begins_with_a_dot_has_one_reading(path: str) -> None:
    assert [path] == list(readings(path))


@pytest.mark.parametrize("path", ["", "orders", "*", "https://api.example/orders", "api:443"])
def test_what_does_not_begin_with_a_slash_has_no_reading(path: str) -> None:
    with pytest.raises(TokenError) as refused:
        list(readings(path))

    assert Reason.AMBIGUOUS_PATH is refused.value.reason


PIECES = [
    *("a", "b", "/", "/", "//", ".", "..", "%2e", "%2f", "%5c", "\\", ";", "%3b", "%00", "%25"),
    *("%c0%ae", "?", "#", "%23", "\t", "é"),
]
ODD = st.lists(st.sampled_from(PIECES), max_size=12).map(lambda parts: "/" + "".join(parts))


def read(path: str) -> list[str]:
    """The readings of a path, as far as they go until it is refused."""
    found: list[str] = []
    with suppress(TokenError):
        found.extend(readings(path))
    return found


@settings(deadline=None)
@given(ODD)
def test_every_reading_is_another_path(path: str) -> None:
    found = read(path)

    assert path == found[0]
    assert len(found) == len(set(found)) <= READINGS
    assert all(reading.startswith("/") for reading in found)


@settings(deadline=None)
@given(ODD)
def test_reading_of_a_reading_is_a_reading(path: str) -> None:
    try:
        found = set(readings(path))
    except TokenError:
        return

    for reading in found:
        assert set(readings(reading)) <= found


@settings(deadline=None)
@given(ODD)
def test_path_that_is_plain_is_what_every_server_reads(path: str) -> None:
    if is_plain(path):
        assert path.rstrip("/") == normpath(unquote(path)).rstrip("/")


@settings(deadline=None)
@given(st.text("aé/ %;.", min_size=1, max_size=8))
def test_segment_that_is_quoted_once_is_read_as_what_it_was(segment: str) -> None:
    assert f"/x/{segment}" in read("/x/" + quote(segment, safe=""))


@pytest.mark.parametrize("unit", ["%2525", "%", "/;", "/../%2e%2e", "%c0%af", "/a;b%2f..%5c//"])
def test_hostile_path_costs_little(unit: str) -> None:
    path = "/" + unit * (2047 // len(unit))
    started = process_time()
    read(path)

    assert process_time() - started < 0.1  # seconds; about 2 ms


def test_odd_path_that_is_too_long_is_not_read() -> None:
    assert [2, 0] == [len(read("/%61" + "a" * length)) for length in (2044, 2045)]

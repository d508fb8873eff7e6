"""Which request a proxy asks about, and who may."""

from ipaddress import ip_network

import pytest
from sanic.compat import Header

from app.web.original import Original, is_trusted, original
from app.web.question import Question
from keycache.errors import Reason, TokenError


def nginx(method: str = "PUT", uri: str = "/orders/7") -> list[tuple[str, str]]:
    return [("X-Original-Method", method), ("X-Original-URI", uri)]


def traefik(method: str = "PUT", uri: str = "/orders/7") -> list[tuple[str, str]]:
    return [("X-Forwarded-Method", method), ("X-Forwarded-Uri", uri)]


def asked(
    *fields: tuple[str, str], method: str = "GET", path: str = "/verify", trusted: bool = True
) -> Original | Reason | None:
    question = Question(method, path, Header(fields).getall, trusted=trusted)
    try:
        return original(question)
    except TokenError as error:
        return error.reason


@pytest.mark.parametrize("fields", [nginx(), traefik(), [*nginx(), *traefik()]])
def test_proxy_says_it_in_header_fields(fields: list[tuple[str, str]]) -> None:
    assert Original("PUT", "/orders/7") == asked(*fields)


def test_envoy_says_it_in_the_request_line() -> None:
    assert Original("PUT", "/orders/7") == asked(method="PUT", path="/verify/orders/7")


def test_proxy_may_say_nothing() -> None:
    assert asked() is None


def test_root_is_a_path_too() -> None:
    assert Original("GET", "/") == asked(path="/verify/")


def test_query_is_no_part_of_the_path() -> None:
    assert Original("PUT", "/orders") == asked(*nginx(uri="/orders?to=/admin?"))


def test_path_is_taken_as_it_was_sent() -> None:
    assert Original("PUT", "//a/%2e%2E/b;c") == asked(*traefik(uri="//a/%2e%2E/b;c"))


INCOMPLETE = {
    "no uri": nginx()[:1],
    "no method": traefik()[1:],
    "halves of two": [nginx()[1], traefik()[0]],
    "a half beside a whole": [*nginx(), traefik()[0]],
    "two methods": [*nginx(), ("X-Original-Method", "PUT")],
    "two uris": [*traefik(), ("x-forwarded-uri", "/orders/7")],
}


@pytest.mark.parametrize("fields", INCOMPLETE.values(), ids=INCOMPLETE)
def test_what_is_said_incompletely_is_refused(fields: list[tuple[str, str]]) -> None:
    assert asked(*fields) is Reason.UNKNOWN_REQUEST


DIFFERENT = {
    "a client's forwarded uri, passed on by nginx": [*nginx(), *traefik(uri="/public")],
    "a client's original method, passed on by Caddy": [*traefik(), *nginx(method="GET")],
}


@pytest.mark.parametrize("fields", DIFFERENT.values(), ids=DIFFERENT)
def test_what_is_said_in_two_ways_that_differ_is_refused(fields: list[tuple[str, str]]) -> None:
    assert asked(*fields) is Reason.UNKNOWN_REQUEST


def test_request_line_of_envoy_and_a_field_of_its_client_must_agree() -> None:
    fields = nginx("GET", "/public")
    assert asked(*fields, method="GET", path="/verify/admin") is Reason.UNKNOWN_REQUEST


@pytest.mark.parametrize(
    ("method", "uri"),
    [
        ("get", "/orders"),
        ("", "/orders"),
        ("GET ", "/orders"),
        ("GET", ""),
        ("GET", "orders"),
        ("GET", "*"),
        ("GET", "http://h/orders"),
        ("GET", "/or ders"),
        ("GET", "/ordérs"),
        ("GET", "/orders\n"),
    ],
)
def test_method_or_path_that_two_servers_could_read_differently_is_refused(
    method: str, uri: str
) -> None:
    assert asked(*nginx(method, uri)) is Reason.UNKNOWN_REQUEST


def test_fragment_is_ambiguous() -> None:
    assert asked(*nginx(uri="/public#/../admin")) is Reason.AMBIGUOUS_PATH


@pytest.mark.parametrize("path", ["/verify", "/verify/orders"])
@pytest.mark.parametrize("fields", [[], nginx(), traefik()], ids=["none", "nginx", "traefik"])
def test_peer_that_is_not_trusted_is_refused(path: str, fields: list[tuple[str, str]]) -> None:
    assert asked(*fields, path=path, trusted=False) is Reason.UNTRUSTED_PROXY


PROXIES = [ip_network("127.0.0.1/32"), ip_network("10.1.0.0/16"), ip_network("fd00::/8")]


@pytest.mark.parametrize(
    ("peer", "expected"),
    [
        ("127.0.0.1", True),
        ("127.0.0.2", False),
        ("10.1.255.1", True),
        ("10.2.0.1", False),
        ("fd12::1", True),
        ("fe80::1%eth0", False),
        ("::ffff:127.0.0.1", True),
        ("::ffff:10.2.0.1", False),
        ("::1", False),
        ("", False),
        (None, False),
        ("/run/keycache.sock", False),
    ],
)
def test_proxy_is_trusted_by_its_address(peer: str | None, expected: object) -> None:
    assert expected is is_trusted(peer, PROXIES)

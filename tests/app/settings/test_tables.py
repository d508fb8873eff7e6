"""What the tables of the file come to, with what the top level says."""

from pathlib import Path

import pytest

from app.settings.headers import Identity, IdentityHeader
from keycache.issuer import Fetch
from keycache.rules import AUTHORIZATION, TokenSource
from keycache.sanic import JWTAuth
from tests.app.settings.conftest import Load, Said

GENERAL = 'audience = "api"\nproxy = "http://proxy:3128"\nca_bundle = "ca.pem"\n'
ISSUER = '[[issuers]]\nissuer = "https://id.example.com"\n'


@pytest.fixture(autouse=True)
def files(tmp_path: Path) -> None:
    for name in ("ca.pem", "client.pem", "jwks.json"):
        (tmp_path / name).write_text("-")


def test_issuer_is_asked_as_the_top_level_says(load: Load, tmp_path: Path) -> None:
    (issuer,) = load(GENERAL + ISSUER).issuers()
    assert Fetch(proxy="http://proxy:3128", ca_bundle=str(tmp_path / "ca.pem")) == issuer.fetch


def test_issuer_without_a_proxy_among_others_says_so(load: Load) -> None:
    (issuer,) = load(GENERAL + ISSUER + 'proxy = ""').issuers()
    assert issuer.fetch.proxy is None


def test_key_of_another_certificate_is_not_inherited(load: Load, tmp_path: Path) -> None:
    general = GENERAL + 'client_certificate = "ca.pem"\nclient_key = "ca.pem"\n'
    (issuer,) = load(general + ISSUER + 'client_certificate = "client.pem"').issuers()
    expected = (str(tmp_path / "client.pem"), None)
    assert expected == (issuer.fetch.client_certificate, issuer.fetch.client_key)


def test_issuer_with_a_file_is_asked_in_no_way(load: Load) -> None:
    (issuer,) = load(GENERAL + ISSUER + 'jwks_file = "jwks.json"').issuers()
    assert Fetch() == issuer.fetch


def test_path_in_a_variable_begins_in_the_working_directory(
    load: Load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "other.pem").write_text("-")
    monkeypatch.chdir(elsewhere)
    monkeypatch.setenv("KEYCACHE_CA_BUNDLE", "other.pem")
    (issuer,) = load(GENERAL + ISSUER).issuers()
    assert str(elsewhere / "other.pem") == issuer.fetch.ca_bundle


def test_secret_of_a_file_has_no_line_end(load: Load, tmp_path: Path) -> None:
    (tmp_path / "key").write_text("hunter2\r\n")
    (issuer,) = load(GENERAL + ISSUER + 'headers = { "X-Key" = { file = "key" } }').issuers()
    assert (("X-Key", "hunter2"),) == issuer.fetch.headers


def test_changed_secret_is_read_with_the_settings(load: Load, tmp_path: Path) -> None:
    text = GENERAL + ISSUER + 'headers = { "X-Key" = { file = "key" } }'
    found = []
    for secret in ("before", "after"):
        (tmp_path / "key").write_text(secret)
        found += [dict(issuer.fetch.headers)["X-Key"] for issuer in load(text).issuers()]
    assert ["before", "after"] == found


def test_without_tables_there_are_no_rules_and_one_source(load: Load) -> None:
    settings = load(GENERAL + ISSUER)
    assert (None, None, None) == (settings.rules(), settings.resource, settings.internal_token)
    assert (AUTHORIZATION,) == settings.token_sources()


def test_source_has_a_prefix_of_its_own_or_none(load: Load) -> None:
    named = '[[token_sources]]\nheader = "X-Token"\nprefix = "Token"\n'
    bare = '[[token_sources]]\nheader = "Authorization"\nprefix = ""\n'
    expected = (
        TokenSource(header="X-Token", prefix="Token"),
        TokenSource(header="Authorization", prefix=""),
    )
    assert expected == load(GENERAL + ISSUER + named + bare).token_sources()


def test_identity_headers_replace_the_usual_ones(load: Load) -> None:
    table = '[identity_headers]\n"X-Org" = "org.name"\n"X-All" = "payload"\n"X-P" = "/payload"\n'
    expected = (
        IdentityHeader("X-Org", ("org", "name")),
        IdentityHeader("X-All", Identity.PAYLOAD),
        IdentityHeader("X-P", ("payload",)),
    )
    assert expected == load(GENERAL + ISSUER + table).identity_headers


def test_rule_that_names_an_issuer_nobody_could_read_is_not_reported(said: Said) -> None:
    rule = '[[rules]]\npath = "/"\nissuers = ["main"]\n'
    text = f'trusted_proxies = "::1"\n{GENERAL}{ISSUER}name = 7\n{rule}'
    assert ["k.toml:7"] == [problem.split(": ")[0] for problem in said(text)]


def test_rule_of_a_source_nobody_could_read_is_not_reported(said: Said) -> None:
    rule = '[[rules]]\npath = "/"\nsources = ["main"]\n[[token_sources]]\nname = 7\ncookie = "c"\n'
    text = f'trusted_proxies = "::1"\n{GENERAL}{ISSUER}{rule}'
    assert ["k.toml:11"] == [problem.split(": ")[0] for problem in said(text)]


def test_jwtauth_of_somebody_s_own_application_takes_its_rules_from_the_file(load: Load) -> None:
    settings = load(
        'trusted_proxies = ["127.0.0.1"]\n'
        + GENERAL
        + ISSUER
        + '[[rules]]\npath = "/orders/*"\nscopes = ["orders"]\n'
    )
    table = settings.rules()
    assert table is not None
    auth = JWTAuth(
        issuer=settings.issuers(),
        options=settings.options(),
        sources=settings.token_sources(),
        rules=table.rules,
        resource=settings.resource,
    )
    rule = auth.rules.choose("GET", "/orders/7")
    assert rule is not None
    assert ("orders",) == rule.requirement.scopes

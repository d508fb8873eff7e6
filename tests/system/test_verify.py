"""`/verify` of a running service with rules, identity headers, an internal token and a resource."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from app.demo.issuer import DemoIssuer
from tests.system.service import Answer, Service, eventually, request

FILE = """
trusted_proxies = ["127.0.0.1"]

[[rules]]
path = "/public/**"
access = "anonymous"

[[rules]]
path = "/maybe"
access = "optional"

[[rules]]
path = "/admin/**"
scopes = ["admin"]

[[rules]]
path = "/orders/*"
methods = ["GET"]

[[token_sources]]
header = "Authorization"

[[token_sources]]
cookie = "session"

[identity_headers]
"X-User" = "subject"
"X-Plan" = "https.plan"
"X-Claims" = "payload"

[internal_token]
issuer = "http://127.0.0.1:8000"
audience = "upstream"
lifetime = 60
keys = [{keys}]

[resource]
resource = "https://api.example.com/v1"
"""


def pem() -> str:
    key = ec.generate_private_key(ec.SECP256R1())
    text = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    return f"'''{text}'''"


@pytest.fixture(scope="module")
def issuer() -> Iterator[DemoIssuer]:
    with DemoIssuer(audience="api") as issuer:
        yield issuer


@pytest.fixture(scope="module")
def service(issuer: DemoIssuer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    directory = tmp_path_factory.mktemp("service")
    config = directory / "keycache.toml"
    config.write_text(FILE.replace("{keys}", f"{pem()}, {pem()}"))
    config.chmod(0o600)
    settings = {"ISSUER": issuer.url, "AUDIENCE": "api", "CONFIG": config, "WORKERS": 1}
    with Service(directory / "log", settings) as service:
        yield service.wait_until_ready()


def verify(
    service: Service, target: str, token: str | None = None, method: str = "GET", **fields: str
) -> Answer:
    """As nginx asks."""
    asked = {"X-Original-Method": method, "X-Original-URI": target}
    return request(service.url, "/verify", token, **asked, **fields)


def said(answer: Answer) -> tuple[int, str]:
    return answer.status, answer.json()["reason"]


def test_rule_of_the_original_request_decides(service: Service, issuer: DemoIssuer) -> None:
    token = issuer.mint(scope="read")
    assert 200 == verify(service, "/orders/7?x=/admin", token).status
    assert (403, "insufficient_scope") == said(verify(service, "/admin/users", token))
    assert (403, "no_rule") == said(verify(service, "/orders/7", token, "DELETE"))
    assert 200 == verify(service, "/admin/users", issuer.mint(scope="admin")).status


def test_request_that_no_rule_allows_is_counted(service: Service, issuer: DemoIssuer) -> None:
    def counted() -> float:
        return service.metric("keycache_refusals_total", reason="no_rule")

    before = counted()
    verify(service, "/orders/7", issuer.mint(), "DELETE")
    eventually(lambda: counted() == before + 1, 10)


def test_envoy_asks_with_the_method_and_path_themselves(
    service: Service, issuer: DemoIssuer
) -> None:
    token = issuer.mint(scope="read")
    assert 200 == request(service.url, "/verify/orders/7?x", token).status
    refused = request(service.url, "/verify/orders/7", token, method="PUT")
    assert (403, "no_rule") == said(refused)
    assert (403, "insufficient_scope") == said(request(service.url, "/verify/admin", token))
    assert (403, "no_rule") == said(request(service.url, "/verify/", token))


@pytest.mark.parametrize(
    "path", ["/public/%2e%2e/admin", "/public//../admin", "/public\\..\\admin"]
)
def test_path_with_two_readings_opens_no_way_round(service: Service, path: str) -> None:
    assert (400, "ambiguous_path") == said(verify(service, path))


def test_anonymous_request_is_let_by_with_nobody_in_every_header(service: Service) -> None:
    answer = verify(service, "/public/logo", "not even a token", **{"X-User": "root"})
    names = ("x-user", "x-plan", "x-claims", "x-auth-token")
    assert (200, [""] * 4) == (answer.status, [answer.headers[name] for name in names])


def test_token_is_optional_where_the_rule_says_so_but_a_bad_one_is_not(
    service: Service, issuer: DemoIssuer
) -> None:
    assert 200 == verify(service, "/maybe").status
    assert "alice" == verify(service, "/maybe", issuer.mint(sub="alice")).headers["x-user"]
    assert (401, "malformed") == said(verify(service, "/maybe", "rubbish"))


def test_cookie_may_carry_the_token_but_not_a_second_one(
    service: Service, issuer: DemoIssuer
) -> None:
    token = issuer.mint(sub="alice")
    cookie = {"Cookie": f"a=b; session={token}"}
    assert "alice" == verify(service, "/orders/7", **cookie).headers["x-user"]
    assert (400, "multiple_tokens") == said(verify(service, "/orders/7", token, **cookie))


def test_claims_are_told_in_the_configured_headers(service: Service, issuer: DemoIssuer) -> None:
    token = issuer.mint(sub="José", https={"plan": ["pro", "a b"]})
    headers = verify(service, "/orders/7", token).headers
    payload = headers["x-claims"]
    assert ("Jos%C3%A9", "pro a%20b") == (headers["x-user"], headers["x-plan"])
    assert jwt.decode(token, options={"verify_signature": False}) == json.loads(
        jwt.utils.base64url_decode(payload)
    )


def upstream_reads(service: Service, token: str) -> dict[str, Any]:
    """What an upstream makes of the internal token, with the keys that we publish."""
    keys = jwt.PyJWKSet.from_json(request(service.url, "/.well-known/jwks.json").body.decode())
    key = keys[jwt.get_unverified_header(token)["kid"]]
    said: dict[str, Any] = jwt.decode(
        token, key, algorithms=["ES256"], audience="upstream", issuer="http://127.0.0.1:8000"
    )
    return said


def test_upstream_can_check_that_it_was_us(service: Service, issuer: DemoIssuer) -> None:
    answer = verify(service, "/orders/7", issuer.mint(sub="alice", scope="b a"))
    claims = upstream_reads(service, answer.headers["x-auth-token"])
    expected = ("alice", "a b", issuer.url)
    assert expected == (claims["sub"], claims["scope"], claims["original_iss"])
    assert 60 >= claims["exp"] - claims["iat"]


def test_internal_token_is_made_once_for_a_token_that_comes_again(
    service: Service, issuer: DemoIssuer
) -> None:
    token = issuer.mint()
    answers = [verify(service, "/orders/7", token) for _ in range(2)]
    assert answers[0].headers["x-auth-token"] == answers[1].headers["x-auth-token"]


def test_both_keys_are_published(service: Service) -> None:
    answer = request(service.url, "/.well-known/jwks.json")
    assert "application/jwk-set+json" == answer.headers["content-type"]
    assert ["ES256", "ES256"] == [key["alg"] for key in answer.json()["keys"]]


def test_proxy_that_does_not_say_what_it_asks_about_is_told_so(
    service: Service, issuer: DemoIssuer
) -> None:
    assert 401 == request(service.url, "/verify").status  # its health check
    assert (401, "malformed") == said(request(service.url, "/verify", "rubbish"))
    assert (400, "unknown_request") == said(request(service.url, "/verify", issuer.mint()))


def test_client_cannot_say_it_differently_from_the_proxy(
    service: Service, issuer: DemoIssuer
) -> None:
    lies = {"X-Forwarded-Method": "GET", "X-Forwarded-Uri": "/public/x"}
    answer = verify(service, "/admin/users", issuer.mint(), **lies)
    assert (400, "unknown_request") == said(answer)


def test_challenge_names_the_metadata_which_is_there(service: Service, issuer: DemoIssuer) -> None:
    challenge = verify(service, "/orders/7").headers["www-authenticate"]
    path = "/.well-known/oauth-protected-resource/v1"
    assert f'Bearer realm="api", resource_metadata="https://api.example.com{path}"' == challenge
    about = request(service.url, path).json()
    assert ("https://api.example.com/v1", [issuer.url]) == (
        about["resource"],
        about["authorization_servers"],
    )


def test_peer_that_is_no_trusted_proxy_is_refused(issuer: DemoIssuer, tmp_path: Path) -> None:
    config = tmp_path / "keycache.toml"
    config.write_text('trusted_proxies = ["10.0.0.0/8"]\n[[rules]]\npath = "/**"\n')
    settings = {"ISSUER": issuer.url, "AUDIENCE": "api", "CONFIG": config, "WORKERS": 1}
    with Service(tmp_path / "log", settings) as service:
        service.wait_until_ready()
        answer = verify(service, "/x", issuer.mint())
        assert (403, "untrusted_proxy") == said(answer)
        assert "www-authenticate" not in answer.headers
        assert (403, "untrusted_proxy") == said(request(service.url, "/verify/x", issuer.mint()))
        assert 200 == request(service.url, "/protected", issuer.mint()).status
        assert '"reason": "untrusted_proxy"' in service.log()

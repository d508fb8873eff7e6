"""The demo issuer, asked over real HTTP; its tokens are checked by PyJWT."""

import http.client
import json
import time
from collections.abc import Iterator
from email.utils import parsedate_to_datetime
from urllib.parse import urlsplit

import jwt
import pytest

from app.demo.issuer import ALGORITHMS, DISCOVERY_PATH, JWKS_PATH, DemoIssuer


@pytest.fixture
def issuer() -> Iterator[DemoIssuer]:
    with DemoIssuer() as running:
        yield running


def get(
    issuer: DemoIssuer, path: str, headers: dict[str, str] | None = None, timeout: float = 5.0
) -> tuple[int, http.client.HTTPMessage, bytes]:
    connection = http.client.HTTPConnection(urlsplit(issuer.url).netloc, timeout=timeout)
    try:
        connection.request("GET", path, headers=headers or {})
        response = connection.getresponse()
        return response.status, response.headers, response.read()
    finally:
        connection.close()


def published_kids(issuer: DemoIssuer) -> list[str]:
    return [key["kid"] for key in json.loads(get(issuer, JWKS_PATH)[2])["keys"]]


def verify(issuer: DemoIssuer, token: str) -> dict[str, object]:
    keys = jwt.PyJWKSet.from_json(get(issuer, JWKS_PATH)[2].decode())
    key = keys[jwt.get_unverified_header(token)["kid"]]
    return jwt.decode(token, key, algorithms=list(ALGORITHMS), audience=issuer.audience)


def test_discovery_document_names_the_issuer_and_its_key_set(issuer: DemoIssuer) -> None:
    document = json.loads(get(issuer, DISCOVERY_PATH)[2])
    assert (issuer.url, issuer.jwks_url) == (document["issuer"], document["jwks_uri"])


def test_without_discovery_that_path_is_404_and_the_key_set_is_there() -> None:
    with DemoIssuer(discovery=False) as issuer:
        statuses = [get(issuer, path)[0] for path in (DISCOVERY_PATH, JWKS_PATH)]
    assert statuses == [404, 200]


@pytest.mark.parametrize("alg", ALGORITHMS)
def test_minted_token_verifies_against_the_published_keys(issuer: DemoIssuer, alg: str) -> None:
    claims = verify(issuer, issuer.mint(alg=alg, sub="ada"))
    assert (issuer.url, "ada") == (claims["iss"], claims["sub"])


def test_published_keys_hold_no_private_member(issuer: DemoIssuer) -> None:
    members = {member for key in issuer.jwks()["keys"] for member in key}
    assert members <= {"kty", "kid", "use", "alg", "n", "e", "crv", "x", "y"}


def test_claim_given_as_none_is_left_out(issuer: DemoIssuer) -> None:
    claims = jwt.decode(issuer.mint(exp=None), options={"verify_signature": False})
    assert "exp" not in claims


def test_forged_token_names_a_kid_that_is_not_published(issuer: DemoIssuer) -> None:
    forged = jwt.get_unverified_header(issuer.forge())["kid"]
    assert forged not in published_kids(issuer)


def test_two_forged_tokens_name_two_kids(issuer: DemoIssuer) -> None:
    first, second = (jwt.get_unverified_header(issuer.forge())["kid"] for _ in range(2))
    assert first != second


def test_token_forged_under_a_published_kid_has_a_bad_signature(issuer: DemoIssuer) -> None:
    token = issuer.forge(alg="RS256", kid=issuer.kids("RS256")[-1])
    with pytest.raises(jwt.InvalidSignatureError):
        verify(issuer, token)


def test_rotation_signs_with_the_new_key(issuer: DemoIssuer) -> None:
    new = issuer.rotate("ES256")
    assert new == jwt.get_unverified_header(issuer.mint(alg="ES256"))["kid"]


def test_token_stays_valid_through_rotations(issuer: DemoIssuer) -> None:
    token = issuer.mint()
    issuer.rotate()
    issuer.rotate()
    assert verify(issuer, token)["sub"] == "demo-user"


def test_rotation_drops_a_key_whose_tokens_have_all_expired(issuer: DemoIssuer) -> None:
    (old,) = issuer.kids("ES256")
    issuer.mint(alg="ES256", exp=int(time.time()) - 1)
    issuer.rotate("ES256")
    assert old not in published_kids(issuer)


def test_removed_key_is_no_longer_published(issuer: DemoIssuer) -> None:
    kid = issuer.kids("EdDSA")[0]
    issuer.remove(kid)
    assert kid not in published_kids(issuer)


def test_removing_a_key_that_is_not_there_is_an_error(issuer: DemoIssuer) -> None:
    with pytest.raises(KeyError):
        issuer.remove("nobody")


def test_known_etag_is_answered_304_and_counted(issuer: DemoIssuer) -> None:
    etag = get(issuer, JWKS_PATH)[1]["ETag"]
    status, _, body = get(issuer, JWKS_PATH, {"If-None-Match": etag})
    assert (status, body, issuer.jwks_fetches, issuer.not_modified) == (304, b"", 2, 1)


def test_etag_changes_with_a_rotation(issuer: DemoIssuer) -> None:
    etag = get(issuer, JWKS_PATH)[1]["ETag"]
    issuer.rotate()
    assert get(issuer, JWKS_PATH, {"If-None-Match": etag})[0] == 200


def test_max_age_is_sent_as_cache_control() -> None:
    with DemoIssuer(max_age=7) as issuer:
        assert get(issuer, JWKS_PATH)[1]["Cache-Control"] == "public, max-age=7"


def test_fetches_of_the_two_documents_are_counted_apart(issuer: DemoIssuer) -> None:
    for path in (DISCOVERY_PATH, JWKS_PATH, JWKS_PATH):
        get(issuer, path)
    assert (issuer.discovery_fetches, issuer.jwks_fetches) == (1, 2)


def test_failing_issuer_answers_the_status_until_healed(issuer: DemoIssuer) -> None:
    issuer.fail(503)
    failing = get(issuer, JWKS_PATH)[0]
    issuer.heal()
    assert (failing, get(issuer, JWKS_PATH)[0]) == (503, 200)


def test_failed_fetches_are_counted(issuer: DemoIssuer) -> None:
    issuer.fail(500)
    get(issuer, JWKS_PATH)
    assert issuer.jwks_fetches == 1


def test_malformed_key_set_leaves_the_discovery_document_right(issuer: DemoIssuer) -> None:
    issuer.malformed(b"<html>")
    bodies = get(issuer, JWKS_PATH)[2], json.loads(get(issuer, DISCOVERY_PATH)[2])["issuer"]
    assert bodies == (b"<html>", issuer.url)


def test_hanging_issuer_does_not_answer_in_time(issuer: DemoIssuer) -> None:
    issuer.hang(30)
    with pytest.raises(TimeoutError):
        get(issuer, JWKS_PATH, timeout=0.2)


def test_dripping_body_does_not_end_in_time(issuer: DemoIssuer) -> None:
    issuer.drip(0.01)
    started = time.monotonic()
    get(issuer, DISCOVERY_PATH)
    assert time.monotonic() - started > 1


def test_stopping_does_not_wait_for_a_request_that_hangs() -> None:
    with DemoIssuer() as issuer:
        issuer.hang(60)
        with pytest.raises(TimeoutError):
            get(issuer, JWKS_PATH, timeout=0.1)
        started = time.monotonic()
    assert time.monotonic() - started < 2


def test_stopped_issuer_refuses_connections() -> None:
    with DemoIssuer() as stopped:
        pass
    with pytest.raises(ConnectionRefusedError):
        get(stopped, JWKS_PATH)


def test_clock_offset_moves_date_header_and_tokens(issuer: DemoIssuer) -> None:
    issuer.clock_offset = 120
    date = parsedate_to_datetime(get(issuer, JWKS_PATH)[1]["Date"]).timestamp()
    issued = jwt.decode(issuer.mint(), options={"verify_signature": False})["iat"]
    assert [120, 120] == [round((moment - time.time()) / 10) * 10 for moment in (date, issued)]

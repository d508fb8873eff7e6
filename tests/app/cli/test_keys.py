"""`keycache keys`, against a real issuer and real servers."""

import json
import re

import pytest
import redis

from app.demo.issuer import DemoIssuer
from tests.app.cli.conftest import SEAL_KEY, Keycache

OTHER_SEAL_KEY = SEAL_KEY[::-1].replace("0", "A")


def test_each_key_is_a_line_with_kid_kty_alg_size_and_state(
    keycache: Keycache, issuer: DemoIssuer, redis_url: str
) -> None:
    keycache("warm", REDIS_URL=redis_url)
    run = keycache("keys", REDIS_URL=redis_url)
    rows = [line.split() for line in run.out.splitlines()[1:]]
    assert run.code == 0
    assert sorted(issuer.kids()) == sorted(row[1] for row in rows)
    assert {"RSA RS256 2048", "EC ES256 256", "OKP EdDSA 255"} == {
        " ".join(row[2:5]) for row in rows
    }
    assert {"fresh"} == {row[-2] for row in rows}


def test_empty_cache_is_exit_1_and_says_how_to_fill_it(keycache: Keycache, valkey_url: str) -> None:
    run = keycache("keys", REDIS_URL=valkey_url)
    assert (1, True) == (run.code, "keycache warm" in run.out)


def test_looking_asks_no_issuer(keycache: Keycache, issuer: DemoIssuer, valkey_url: str) -> None:
    keycache("keys", REDIS_URL=valkey_url)
    assert (0, 0) == (issuer.jwks_fetches, issuer.discovery_fetches)


def test_skipped_key_is_listed_with_its_reason(
    keycache: Keycache, issuer: DemoIssuer, valkey_url: str
) -> None:
    document = issuer.jwks()
    document["keys"].append({"kty": "oct", "kid": "shared-secret", "k": "AAAA"})
    issuer.malformed(json.dumps(document).encode())
    keycache("warm", REDIS_URL=valkey_url)
    (found,) = keycache("keys", "--json", REDIS_URL=valkey_url).json["issuers"]
    assert ["shared-secret"] == [key["kid"] for key in found["skipped"]]
    assert found["skipped"][0]["reason"]


def test_skipped_key_is_a_line_for_people_too(
    keycache: Keycache, issuer: DemoIssuer, valkey_url: str
) -> None:
    document = issuer.jwks()
    document["keys"].append({"kty": "oct", "kid": "shared-secret", "k": "AAAA"})
    issuer.malformed(json.dumps(document).encode())
    keycache("warm", REDIS_URL=valkey_url)
    assert re.search(
        " shared-secret .* skipped: [a-z_]+", keycache("keys", REDIS_URL=valkey_url).out
    )


@pytest.mark.parametrize(("stale", "state"), [("3600", "stale"), ("0", "dead")])
def test_keys_past_their_time_are_exit_1(
    keycache: Keycache, issuer: DemoIssuer, valkey_url: str, stale: str, state: str
) -> None:
    issuer.max_age = 0
    short = {"REDIS_URL": valkey_url, "TTL_MIN": "0.001", "STALE": stale}
    keycache("warm", **short)
    run = keycache("keys", "--json", **short)
    assert (1, state) == (run.code, run.json["issuers"][0]["state"])


@pytest.mark.parametrize("kid", ["[red]", "[/]", "a" * 128])
def test_kid_is_shown_as_it_is(
    keycache: Keycache, issuer: DemoIssuer, valkey_url: str, kid: str
) -> None:
    document = issuer.jwks()
    document["keys"][0]["kid"] = kid
    issuer.malformed(json.dumps(document).encode())
    keycache("warm", REDIS_URL=valkey_url)
    assert f" {kid} " in keycache("keys", REDIS_URL=valkey_url).out


def test_kid_that_would_command_the_terminal_is_not_shown(
    keycache: Keycache, issuer: DemoIssuer, valkey_url: str
) -> None:
    document = issuer.jwks()
    document["keys"][0]["kid"] = "\x1b[2J"
    issuer.malformed(json.dumps(document).encode())
    for words in (["warm"], ["keys"], ["keys", "--json"], ["check"]):
        assert "\x1b" not in keycache(*words, REDIS_URL=valkey_url).out


def test_record_of_another_seal_key_is_exit_1_and_said_so(
    keycache: Keycache, valkey_url: str
) -> None:
    keycache("warm", REDIS_URL=valkey_url)
    run = keycache("keys", REDIS_URL=valkey_url, SEAL_KEYS=OTHER_SEAL_KEY)
    assert (1, True) == (run.code, "its record is refused" in run.out)


def test_record_that_was_tampered_with_is_exit_1_and_said_so(
    keycache: Keycache, valkey_url: str
) -> None:
    keycache("warm", REDIS_URL=valkey_url)
    with redis.Redis.from_url(valkey_url) as client:
        for name in client.scan_iter(_type="HASH"):
            for field, value in client.hgetall(name).items():
                if len(value) > 200:  # only a record is that long
                    client.hset(name, field, value[:-1] + bytes([value[-1] ^ 1]))
    run = keycache("keys", REDIS_URL=valkey_url)
    assert (1, True) == (run.code, "its record is refused" in run.out)


def test_redis_that_does_not_answer_is_exit_2(keycache: Keycache) -> None:
    run = keycache("keys", REDIS_URL="unix:///nonexistent/redis.sock")
    assert (2, "") == (run.code, run.out)


def test_without_a_redis_it_is_exit_2_and_says_what_to_set(keycache: Keycache) -> None:
    run = keycache("keys")
    assert (2, True) == (run.code, "KEYCACHE_REDIS_URL" in run.err)

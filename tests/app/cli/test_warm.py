"""`keycache warm`, against a real issuer and real servers."""

import re
import time
from pathlib import Path

from app.demo.issuer import DemoIssuer
from tests.app.cli.conftest import Keycache

NOBODY = "unix:///nonexistent/redis.sock"


def test_warm_loads_every_key_into_redis(keycache: Keycache, redis_url: str) -> None:
    keycache("warm", REDIS_URL=redis_url)
    (found,) = keycache("keys", "--json", REDIS_URL=redis_url).json["issuers"]
    assert ("fresh", 3) == (found["state"], len(found["keys"]))


def test_warm_says_what_it_did_in_one_line(
    keycache: Keycache, issuer: DemoIssuer, valkey_url: str
) -> None:
    run = keycache("warm", REDIS_URL=valkey_url)
    name = re.escape(issuer.url.removeprefix("http://"))
    line = rf"{name}: 3 keys, version \d+, fetched in 0\.\d+ s\n"
    assert run.code == 0
    assert re.fullmatch(line, run.out)
    assert run.err == ""


def test_second_warm_asks_no_issuer(
    keycache: Keycache, issuer: DemoIssuer, valkey_url: str
) -> None:
    results = [keycache("warm", "--json", REDIS_URL=valkey_url).json for _ in range(2)]
    assert ["fetched", "shared"] == [result["issuers"][0]["result"] for result in results]
    assert issuer.jwks_fetches == 1


def test_forced_warm_asks_the_issuer_again(
    keycache: Keycache, issuer: DemoIssuer, valkey_url: str
) -> None:
    keycache("warm", REDIS_URL=valkey_url)
    new = issuer.rotate()
    assert keycache("warm", "--force", REDIS_URL=valkey_url).code == 0
    (found,) = keycache("keys", "--json", REDIS_URL=valkey_url).json["issuers"]
    assert new in [key["kid"] for key in found["keys"]]


def test_issuer_that_fails_is_exit_1_with_its_name_and_the_reason(
    keycache: Keycache, issuer: DemoIssuer, valkey_url: str
) -> None:
    issuer.fail(503)
    run = keycache("warm", REDIS_URL=valkey_url)
    assert run.code == 1
    assert run.err.startswith(f"{issuer.url.removeprefix('http://')}: FAILED: ")
    assert "503" in run.err


def test_one_issuer_that_fails_does_not_keep_the_others_cold(
    keycache: Keycache, issuer: DemoIssuer, valkey_url: str, tmp_path: Path
) -> None:
    config = tmp_path / "keycache.toml"
    with DemoIssuer() as failing:
        failing.fail(500)
        config.write_text(
            f'[[issuers]]\nname = "good"\nissuer = "{issuer.url}"\n'
            f'[[issuers]]\nname = "bad"\nissuer = "{failing.url}"\n'
        )
        run = keycache("warm", "--json", REDIS_URL=valkey_url, CONFIG=str(config), ISSUER="")
    assert run.code == 1
    assert {"good": True, "bad": False} == {i["issuer"]: i["ok"] for i in run.json["issuers"]}


def test_issuer_that_hangs_is_given_up_after_the_timeout(
    keycache: Keycache, issuer: DemoIssuer, valkey_url: str
) -> None:
    issuer.hang(30)
    started = time.monotonic()
    run = keycache("warm", "--timeout", "0.5", REDIS_URL=valkey_url)
    assert (1, True) == (run.code, "no fresh keys within 0.5 s" in run.err)
    assert time.monotonic() - started < 5


def test_without_a_redis_it_is_exit_2_and_says_what_to_set(keycache: Keycache) -> None:
    run = keycache("warm")
    assert (2, True) == (run.code, "KEYCACHE_REDIS_URL" in run.err)


def test_redis_that_does_not_answer_is_exit_2(keycache: Keycache) -> None:
    run = keycache("warm", REDIS_URL=NOBODY)
    assert (2, "") == (run.code, run.out)
    assert run.err.startswith("keycache: KEYCACHE_REDIS_URL: that Redis cannot be used: ")


def test_only_the_named_issuer_is_warmed_and_a_wrong_name_is_refused(
    keycache: Keycache, valkey_url: str
) -> None:
    run = keycache("warm", "--issuer", "nobody", REDIS_URL=valkey_url)
    assert (2, True) == (run.code, "no issuer is configured as nobody" in run.err)


def test_no_error_shows_the_seal_key(keycache: Keycache) -> None:
    run = keycache("warm", REDIS_URL=NOBODY, SEAL_KEYS="secret-but-wrong")
    assert (2, False) == (run.code, "secret-but-wrong" in run.out + run.err)

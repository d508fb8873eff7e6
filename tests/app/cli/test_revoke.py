"""`keycache revoke`, against a real server."""

import re
import time
from pathlib import Path

import pytest

from tests.app.cli.conftest import SEAL_KEY, Keycache, Run

OTHER_SEAL_KEY = SEAL_KEY[::-1].replace("0", "A")
TIME = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ"


@pytest.fixture
def revoke(keycache: Keycache, valkey_url: str) -> Keycache:
    """`revoke("--jti", "one")` with a Redis, and revocation turned on."""

    def run(*words: str, **settings: str) -> Run:
        return keycache(
            "revoke", *words, **{"REDIS_URL": valkey_url, "REVOCATION": "1", **settings}
        )

    return run


def until(run: Run) -> float:
    """How long the one revocation that was printed is remembered, in seconds from now."""
    [found] = run.json
    end: float = found["until"]
    return end - time.time()


def test_revoked_token_is_listed_and_its_jti_is_not(revoke: Keycache) -> None:
    revoke("--jti", "leaked-token")
    run = revoke("--list")

    line = rf"\S+: jti [0-9a-f]{{32}}: refused since {TIME}, remembered until {TIME}\n"
    assert (0, True) == (run.code, re.fullmatch(line, run.out) is not None)


def test_subject_is_listed_with_the_moment_until_which_its_tokens_are_refused(
    revoke: Keycache,
) -> None:
    revoke("--sub", "alice", "--before", "2026-01-02T03:04:05+01:00")

    assert "issued until 2026-01-02T02:04:05Z" in revoke("--list").out


def test_before_may_be_seconds_since_the_epoch(revoke: Keycache) -> None:
    assert 1.5e9 == revoke("--sub", "alice", "--before", "1500000000", "--json").json[0]["before"]


def test_nothing_revoked_is_an_empty_list(revoke: Keycache) -> None:
    assert (0, "nothing is revoked\n") == revoke("--list")[:2]
    assert [] == revoke("--list", "--json").json


def test_list_can_be_asked_for_one(revoke: Keycache) -> None:
    revoke("--jti", "leaked")

    assert 0 == revoke("--list", "--jti", "leaked").code
    assert (1, "nothing like that is revoked\n") == revoke("--list", "--jti", "other")[:2]
    assert (1, "nothing like that is revoked\n") == revoke("--list", "--sub", "leaked")[:2]


def test_revocation_is_remembered_for_a_day_unless_told_otherwise(revoke: Keycache) -> None:
    leeway = {"LEEWAY": "0"}
    remembered = [
        until(revoke("--jti", "one", "--json", **leeway)),
        until(revoke("--jti", "two", "--json", MAX_LIFETIME="600", **leeway)),
        until(revoke("--jti", "three", "--for", "60", "--json", **leeway)),
    ]

    assert pytest.approx([86400, 600, 60], abs=30) == remembered


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["--jti", "one", "--sub", "alice"],
        ["--jti", "one", "--before", "1"],
        ["--sub", "alice", "--before", "yesterday"],
        ["--sub", "alice", "--before", "2026-01-02T03:04:05"],  # in which zone?
        ["--sub", "alice", "--before", "4000000000"],
        ["--jti", "one", "--for", "0"],
        ["--jti", "one", "--for", "nan"],
        ["--jti", "one", "--issuer", "nobody"],
    ],
)
def test_words_that_make_no_sense_revoke_nothing(revoke: Keycache, words: list[str]) -> None:
    run = revoke(*words)

    assert (2, "") == (run.code, run.out)
    assert "nothing is revoked\n" == revoke("--list").out


def test_where_no_worker_would_look_it_is_exit_2_and_says_what_to_set(revoke: Keycache) -> None:
    run = revoke("--jti", "one", REVOCATION="0")

    assert (2, True) == (run.code, "KEYCACHE_REVOCATION=1" in run.err)


def test_without_a_redis_it_is_exit_2_and_says_what_to_set(keycache: Keycache) -> None:
    run = keycache("revoke", "--jti", "one", REVOCATION="1")

    assert (2, True) == (run.code, "KEYCACHE_REDIS_URL" in run.err)


def test_redis_that_does_not_answer_is_exit_2(revoke: Keycache) -> None:
    assert 2 == revoke("--jti", "one", REDIS_URL="unix:///nonexistent/redis.sock").code


def test_seal_key_that_the_workers_do_not_have_is_exit_1_and_revokes_nothing(
    keycache: Keycache, revoke: Keycache, valkey_url: str
) -> None:
    keycache("warm", REDIS_URL=valkey_url)
    run = revoke("--jti", "one", SEAL_KEYS=OTHER_SEAL_KEY)

    assert (1, True) == (run.code, "KEYCACHE_SEAL_KEYS" in run.err)
    assert "nothing is revoked\n" == revoke("--list").out


def test_list_of_another_seal_key_is_exit_1_and_said_so(revoke: Keycache) -> None:
    revoke("--jti", "one")
    run = revoke("--list", SEAL_KEYS=OTHER_SEAL_KEY)

    assert (1, True) == (run.code, "KEYCACHE_SEAL_KEYS" in run.err)


def test_of_several_issuers_one_must_be_named(revoke: Keycache, tmp_path: Path) -> None:
    tables = '[[issuers]]\nissuer = "https://%s.example"\n' * 2 % ("one", "two")
    (tmp_path / "k.toml").write_text(tables, encoding="utf-8")
    both = {"ISSUER": "", "CONFIG": str(tmp_path / "k.toml")}

    run = revoke("--jti", "one", **both)
    assert (2, True) == (run.code, "one.example, two.example" in run.err)
    assert 0 == revoke("--jti", "one", "--issuer", "two.example", **both).code
    assert revoke("--list", **both).out.startswith("two.example: ")

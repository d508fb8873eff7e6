"""Every setting: its default, both sources, and what is said about wrong ones."""

import pickle
import re
from base64 import urlsafe_b64encode
from pathlib import Path

import pytest

from app.cpus import available_cpus
from app.settings import SETTING_NAMES, Settings
from keycache.errors import ConfigurationError

ISSUER = "https://id.example.com"
KEY = bytes(range(32))
KEY_TEXT = urlsafe_b64encode(KEY).decode().rstrip("=")

DEFAULTS = {
    "TTL": 300,
    "TTL_MIN": 60,
    "TTL_MAX": 86400,
    "REFRESH_AT": 0.8,
    "STALE": 3600,
    "BUDGET": 2,
    "BUDGET_REFILL": 30,
    "NEGATIVE_TTL": 30,
    "NEGATIVE_SIZE": 256,
    "WAIT": 1.5,
    "WAITERS": 64,
    "BACKOFF_MIN": 1,
    "BACKOFF_MAX": 60,
    "FETCH_CONNECT": 2,
    "FETCH_TIMEOUT": 5,
    "FETCH_BYTES": 524288,
    "FETCH_KEYS": 100,
    "LEASE": 10,
    "TOKEN_BYTES": 8192,
    "KID_CHARS": 128,
    "ALGORITHMS": ("RS256", "ES256", "PS256", "EdDSA"),
    "REQUIRE": (),
    "TYP": (),
    "LEEWAY": 30,
    "KID_OPTIONAL": False,
    "TOKEN_CACHE": 10000,
    "REDIS_CONNECT": 0.25,
    "REDIS_TIMEOUT": 0.5,
    "POLL": 5,
    "ISSUER": ISSUER,
    "AUDIENCE": ("api",),
    "JWKS_URL": None,
    "REDIS_URL": None,
    "SEAL_KEYS": (),
    "ALLOW_UNSEALED": False,
    "SNAPSHOT": None,
    "JWKS_FILE": None,
    "MAX_LIFETIME": None,
    "SCOPE_CLAIMS": ("scope", "scp"),
    "CA_BUNDLE": None,
    "CLIENT_CERTIFICATE": None,
    "CLIENT_KEY": None,
    "PROXY": None,
    "TRUSTED_PROXIES": (),
    "REVOCATION": False,
    "CONTROL": None,
    "FAST_VERIFY": True,
    "HOST": "127.0.0.1",
    "PORT": 8000,
    "ADMIN_HOST": "127.0.0.1",
    "ADMIN_PORT": 9000,
    "WORKERS": available_cpus(),
    "GRACE": 25,
    "LOG": "auto",
    "LOG_CLAIMS": (),
}

WRONG = [
    ("TTL", "soon", "KEYCACHE_TTL: 'soon' cannot be used; input should be a valid number"),
    ("TTL", "nan", "KEYCACHE_TTL: 'nan' cannot be used; input should be a finite number"),
    ("TTL", "10", "KEYCACHE_TTL: needs 0 < KEYCACHE_TTL_MIN (60) <= KEYCACHE_TTL (10)"),
    ("REFRESH_AT", "1", "KEYCACHE_REFRESH_AT: 1 is not within 0.1 … 0.9"),
    ("STALE", "-1", "KEYCACHE_STALE: -1 s is negative"),
    ("BUDGET", "0", "KEYCACHE_BUDGET: 0 would never fetch"),
    ("BUDGET_REFILL", "0", "KEYCACHE_BUDGET_REFILL: 0 s must be more than 0"),
    ("BACKOFF_MAX", "0.5", "needs 0 < KEYCACHE_BACKOFF_MIN (1) <= KEYCACHE_BACKOFF_MAX (0.5)"),
    ("LEASE", "5", "KEYCACHE_LEASE: KEYCACHE_LEASE (5 s) must be longer than KEYCACHE_FETCH_T"),
    ("ISSUER", "http://id.example.com", "KEYCACHE_ISSUER: 'http://id.example.com' must use https"),
    ("JWKS_URL", "keys", "KEYCACHE_JWKS_URL: 'keys' is not an absolute https URL"),
    ("ALGORITHMS", "HS256", "KEYCACHE_ALGORITHMS: HS256 cannot be used"),
    ("LEEWAY", "301", "KEYCACHE_LEEWAY: 301 s is not within"),
    ("PORT", "65536", "KEYCACHE_PORT: '65536' cannot be used"),
    ("PORT", "9000", "KEYCACHE_ADMIN_PORT: KEYCACHE_PORT and KEYCACHE_ADMIN_PORT are both 9000"),
    ("WORKERS", "0", "KEYCACHE_WORKERS: '0' cannot be used"),
    ("TOKEN_BYTES", "16000", "KEYCACHE_TOKEN_BYTES: KEYCACHE_TOKEN_BYTES (16000) leaves too"),
    ("REDIS_URL", "http://secret", "KEYCACHE_REDIS_URL: not a URL that begins with redis://"),
    ("REDIS_URL", "redis://h", "a Redis is named and no seal key"),
    ("REVOCATION", "1", "KEYCACHE_REVOCATION: needs a Redis that `keycache revoke` can reach"),
    ("SEAL_KEYS", "secret", "KEYCACHE_SEAL_KEYS: key 1 is not the base64url text of 32 bytes"),
    ("TLT", "3", "KEYCACHE_TLT: there is no such setting; did you mean KEYCACHE_TTL?"),
    ("ISSUER_TABLES", "[]", "KEYCACHE_ISSUER_TABLES: there is no such setting"),
    ("CONFIG", "/nowhere.toml", "KEYCACHE_CONFIG: cannot read /nowhere.toml"),
]


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    monkeypatch.setenv("KEYCACHE_ISSUER", ISSUER)
    monkeypatch.setenv("KEYCACHE_AUDIENCE", "api")
    return monkeypatch


def write(path: Path, text: str, environment: pytest.MonkeyPatch) -> None:
    path.write_text(text)
    environment.setenv("KEYCACHE_CONFIG", str(path))


def problems() -> list[str]:
    with pytest.raises(ConfigurationError) as caught:
        Settings.load()
    return list(caught.value.problems)


@pytest.mark.parametrize(("name", "value"), DEFAULTS.items())
def test_default_is_the_one_in_the_design(name: str, value: object) -> None:
    assert getattr(Settings.load(), name.lower()) == value


def test_every_setting_has_its_default_in_this_file() -> None:
    assert {name.upper() for name in SETTING_NAMES} == set(DEFAULTS)


def test_every_setting_says_what_it_is_for() -> None:
    assert [name for name, field in Settings.model_fields.items() if not field.description] == []


@pytest.mark.parametrize(("name", "value", "said"), WRONG)
def test_wrong_setting_is_refused_with_one_sentence(
    name: str, value: str, said: str, environment: pytest.MonkeyPatch
) -> None:
    environment.setenv(f"KEYCACHE_{name}", value)
    found = problems()
    assert [said] == [said for problem in found if said in problem], found
    assert len(found) == 1


def test_all_problems_are_reported_at_once(environment: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / "k.toml"
    write(file, "lease = 1\nlaese = 2\n", environment)
    for name, value in [("TTTL", "1"), ("WAIT", "x"), ("BUDGET", "0"), ("ISSUER", "nonsense")]:
        environment.setenv(f"KEYCACHE_{name}", value)
    said = [re.match(r"(.*?\b[A-Za-z_]+): ", problem)[1] for problem in problems()]  # type: ignore[index]
    expected = ["KEYCACHE_TTTL", "KEYCACHE_WAIT", "KEYCACHE_ISSUER", "KEYCACHE_BUDGET"]
    assert said == [f"{file}:1: lease", f"{file}:2: laese", *expected]


def test_contradiction_with_an_unreadable_value_is_not_reported(
    environment: pytest.MonkeyPatch,
) -> None:
    environment.setenv("KEYCACHE_FETCH_TIMEOUT", "20")
    environment.setenv("KEYCACHE_LEASE", "x")
    assert len(problems()) == 1


@pytest.mark.parametrize("name", ["REDIS_URL", "SEAL_KEYS"])
def test_secret_is_never_repeated_in_a_problem(name: str, environment: pytest.MonkeyPatch) -> None:
    environment.setenv(f"KEYCACHE_{name}", "http://hunter2")
    assert "hunter2" not in str(problems())


def test_secrets_are_not_in_repr(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("KEYCACHE_REDIS_URL", "redis://:hunter2@redis.example.com")
    environment.setenv("KEYCACHE_SEAL_KEYS", KEY_TEXT)
    shown = repr(Settings.load())
    assert ("hunter2" in shown, KEY_TEXT in shown, repr(KEY) in shown) == (False, False, False)


@pytest.mark.parametrize("text", [KEY_TEXT, KEY_TEXT + "="])
def test_seal_key_is_read_with_and_without_padding(
    text: str, environment: pytest.MonkeyPatch
) -> None:
    environment.setenv("KEYCACHE_REDIS_URL", "redis://h")
    environment.setenv("KEYCACHE_SEAL_KEYS", f"{text}, {KEY_TEXT}")
    assert Settings.load().options().seal_keys == (KEY, KEY)


@pytest.mark.parametrize("text", [KEY_TEXT[:-1], KEY_TEXT + "A", KEY_TEXT + "==", "+" * 43])
def test_seal_key_of_another_shape_is_refused(text: str, environment: pytest.MonkeyPatch) -> None:
    environment.setenv("KEYCACHE_SEAL_KEYS", text)
    assert len(problems()) == 1


def test_embedded_server_stands_in_when_no_redis_is_named() -> None:
    options = Settings.load().options(redis_url="unix:///run/valkey.sock", seal_keys=(KEY,))
    assert (options.redis_url, options.seal_keys) == ("unix:///run/valkey.sock", (KEY,))


def test_environment_wins_over_the_file(environment: pytest.MonkeyPatch, tmp_path: Path) -> None:
    write(tmp_path / "k.toml", "ttl = 100\nstale = 7\n", environment)
    environment.setenv("KEYCACHE_TTL", "200")
    settings = Settings.load()
    assert (settings.ttl, settings.stale) == (200, 7)


def test_empty_variable_is_an_unset_one(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("KEYCACHE_REDIS_URL", "")
    assert Settings.load().redis_url is None


def test_tables_name_several_issuers_and_inherit_the_top_level(
    environment: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    environment.delenv("KEYCACHE_ISSUER")
    tables = """
        leeway = 7
        [[issuers]]
        issuer = "https://a.example.com"
        [[issuers]]
        issuer = "https://b.example.com"
        name = "b"
        audience = ["x", "y"]
        leeway = 8
    """
    write(tmp_path / "k.toml", tables, environment)
    made = [(each.name, each.audiences, each.leeway) for each in Settings.load().issuers()]
    assert made == [("a.example.com", ("api",), 7), ("b", ("x", "y"), 8)]


TABLE_PROBLEMS = [
    ('issuer = "http://a"', "[[issuers]] table 1: issuer: 'http://a' must use https"),
    (
        'isuer = "https://a"',
        "[[issuers]] table 1: isuer: there is no such key; did you mean issuer?",
    ),
    (
        'issuer = "https://a"\n[[issuers]]\nissuer = "https://a"\nname="b"',
        "k.toml:4: [[issuers]] table 2: issuer: 'https://a' is that of table 1 too",
    ),
    ('issuer = "https://a"\nleeway = "x"', "[[issuers]] table 1: leeway: 'x' cannot be used"),
]


@pytest.mark.parametrize(("table", "said"), TABLE_PROBLEMS)
def test_wrong_table_is_refused_by_its_number(
    table: str, said: str, environment: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    environment.delenv("KEYCACHE_ISSUER")
    write(tmp_path / "k.toml", f"[[issuers]]\n{table}\n", environment)
    assert said in "\n".join(problems())


def test_one_issuer_beside_tables_is_refused(
    environment: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    write(tmp_path / "k.toml", '[[issuers]]\nissuer = "https://a"\n', environment)
    said = "KEYCACHE_ISSUER: set beside [[issuers]] tables; name it there or here"
    assert problems() == [said]


def test_settings_travel_to_another_process_unchanged(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("KEYCACHE_REDIS_URL", "redis://:pw@h")
    environment.setenv("KEYCACHE_SEAL_KEYS", KEY_TEXT)
    settings = Settings.load()
    assert pickle.loads(pickle.dumps(settings)).options() == settings.options()  # noqa: S301

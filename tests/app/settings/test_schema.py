"""The JSON Schema and the example are current, complete, and agree with what loads."""

import json
import re
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from jsonschema import Draft202012Validator

from app.cli.schema import command
from app.settings import SETTING_NAMES, Settings
from app.settings.schema import schema, schema_text
from keycache.issuer import Fetch
from keycache.rules import Access
from tests.app.settings.conftest import Load, Said

OPS = Path(__file__).resolve().parents[3] / "ops"
EXAMPLE = (OPS / "keycache.example.toml").read_text(encoding="utf-8")
Example = Callable[[str], Settings]
FILES = {
    "corp-ca.pem": "-",
    "client.pem": "-",
    "client.key": "-",
    "devices.jwks.json": "{}",
    "proxy-url": "http://user:password@proxy.corp.example.net:3128\n",
    "seal-keys": "A" * 43 + "," + "B" * 43 + "\n",
    "internal.pem": "-----BEGIN PRIVATE KEY-----\n",
    "internal-previous.pem": "-----BEGIN PRIVATE KEY-----\n",
}


@pytest.fixture
def example(load: Load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Example:
    """Loads the example as somebody changed it, beside the files that it names."""
    for name, text in FILES.items():
        (tmp_path / name).write_text(text)
    monkeypatch.setenv("JWKS_API_KEY", "hunter2")
    monkeypatch.setenv("REDIS_URL", "rediss://redis.example.com")
    return load


def faults(text: str) -> list[str]:
    """What a schema-minded editor says about a file."""
    errors = Draft202012Validator(schema()).iter_errors(tomllib.loads(text))
    return [error.message for error in errors]


def uncommented(text: str) -> str:
    return re.sub(r"^#(?=[a-z_]+ = )", "", text, flags=re.MULTILINE)


def test_schema_is_one() -> None:
    Draft202012Validator.check_schema(schema())


def test_kept_schema_is_the_one_of_the_settings() -> None:
    kept = (OPS / "keycache.schema.json").read_text(encoding="utf-8")
    assert schema_text() == kept, "run ops/docs.py"


def test_command_prints_the_schema() -> None:
    assert json.loads(CliRunner().invoke(command).output) == schema()


def test_example_is_as_the_schema_wants_it() -> None:
    assert [] == faults(uncommented(EXAMPLE))


def test_example_loads(example: Example) -> None:
    settings = example(EXAMPLE)
    rules = settings.rules()
    assert rules is not None
    assert ["main", "staff", "devices"] == [issuer.name for issuer in settings.issuers()]
    assert ["authorization", "access", "session"] == [s.name for s in settings.token_sources()]
    assert [Access.ANONYMOUS, Access.OPTIONAL] == [rule.access for rule in rules.rules[:2]]
    assert 6 == len(rules.rules)


def test_what_the_example_comments_out_is_the_default(example: Example) -> None:
    assert example(EXAMPLE) == example(uncommented(EXAMPLE))


def test_example_has_every_key_there_is() -> None:
    without_claims = re.sub(r"\[issuers\.claims\]\n(.+\n)+", "claims = 1\n", EXAMPLE)
    used = set(re.findall(r"^#?([a-z_]+) =", without_claims, re.MULTILINE))
    known = {*SETTING_NAMES}
    for table in schema()["$defs"].values():
        known |= table["properties"].keys()
    assert set() == used - known
    assert set() == known - used


def test_example_says_how_an_issuer_is_asked(example: Example, tmp_path: Path) -> None:
    main, staff, devices = example(EXAMPLE).issuers()
    assert staff.fetch == Fetch(
        headers=(("X-Api-Key", "hunter2"), ("X-Client", "keycache")),
        ca_bundle=str(tmp_path / "corp-ca.pem"),
        client_certificate=str(tmp_path / "client.pem"),
        client_key=str(tmp_path / "client.key"),
        proxy="http://user:password@proxy.corp.example.net:3128",
    )
    assert (Fetch(), Fetch()) == (main.fetch, devices.fetch)
    assert str(tmp_path / "devices.jwks.json") == devices.jwks_file


# What the schema refuses, the settings refuse; a few of each kind.
WRONG: list[tuple[str, str]] = [
    ("unknown key", 'audience = ["x"]\nttll = 3'),
    ("number in quotation marks", 'ttl = "300"'),
    ("flag in quotation marks", 'kid_optional = "true"'),
    ("number for a text", "host = 7"),
    ("table for a list of tables", '[issuers]\nissuer = "https://a"'),
    ("list of tables for a table", '[[resource]]\nresource = "https://a"'),
    ("unknown key of a table", '[[issuers]]\nissuer = "https://a"\nleewey = 3'),
    ("missing key of a table", "[resource]"),
    ("unknown access", '[[rules]]\npath = "/a"\naccess = "public"'),
    ("secret of two kinds", 'redis_url = { file = "a", env = "b" }'),
    ("number for a header field", '[[issuers]]\nissuer = "https://a"\nheaders = { "X-A" = 7 }'),
    ("port beyond the last", "port = 65536"),
]


@pytest.mark.parametrize("text", [text for _, text in WRONG], ids=[name for name, _ in WRONG])
def test_schema_and_settings_refuse_the_same(text: str, said: Said) -> None:
    assert [] != faults(text)
    assert [] != said(text)


def test_every_key_is_described() -> None:
    tables: dict[str, Any] = {"": schema(), **schema()["$defs"]}
    bare = [
        f"{name}.{key}"
        for name, table in tables.items()
        for key, value in table["properties"].items()
        if "description" not in value
    ]
    assert [] == bare

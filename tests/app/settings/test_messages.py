"""What is said about a file that is wrong: the line, the key, and what would be right."""

from pathlib import Path

import pytest

from tests.app.settings.conftest import Load, Said

SECRET = "hunter2"
KEY = "-----BEGIN PRIVATE KEY-----"
TOP = 'issuer = "https://id.example.com"\ntrusted_proxies = ["127.0.0.1"]\n'
ISSUERS = 'audience = "api"\n[[issuers]]\nissuer = "https://id.example.com"\n'
ACCESS = "'required', 'optional' or 'anonymous'"

WRONG = [
    # A text that is no TOML.
    ("a = 1\nb = [1,\n", "k.toml:2: not TOML: Invalid value"),
    ("a = 1\n[x\n", "k.toml:2: not TOML, column 3: Expected ']' at the end of a table declaration"),
    ("a = 1\na = 2\n", "k.toml:2: not TOML, column 6: Cannot overwrite a value"),
    # Shape.
    (TOP + '[rules]\npath = "/"', "k.toml:3: [rules]: write [[rules]], once for each of them"),
    ('[issuers]\nissuer = "https://a"', "k.toml:1: [issuers]: write [[issuers]], once for each of"),
    (TOP + "[[resource]]", "k.toml:3: [[resource]]: write [resource]; there is only one"),
    (TOP + "issuers = 3", "k.toml:3: [[issuers]]: 3 cannot be used; must be a list"),
    # Names.
    (TOP + "tll = 3", "k.toml:3: tll: there is no such setting; did you mean ttl?"),
    (TOP + "[isuers]", "k.toml:3: isuers: there is no such setting; did you mean issuers?"),
    (
        ISSUERS + "audience_ = 1",
        "k.toml:4: [[issuers]] table 1: audience_: there is no such key; did you mean audience?",
    ),
    (
        TOP + '[resource]\nresource = "https://a"\nresource_nam = "x"',
        "k.toml:5: [resource] resource_nam: there is no such key; did you mean resource_name?",
    ),
    # Types.
    (
        TOP + 'ttl = "300"',
        "k.toml:3: ttl: '300' cannot be used; must be a number, without quotation",
    ),
    (
        TOP + "port = true",
        "k.toml:3: port: true cannot be used; must be a number, without quotation",
    ),
    (
        TOP + "kid_optional = 1",
        "k.toml:3: kid_optional: 1 cannot be used; must be true or false, w",
    ),
    (
        ISSUERS + 'leeway = "1"',
        "k.toml:4: [[issuers]] table 1: leeway: '1' cannot be used; must be",
    ),
    (
        TOP + '[[rules]]\npath = "/"\naccess = "anonymus"',
        (
            "k.toml:5: [[rules]] table 1: access: 'anonymus' cannot be used; input should be"
            f" {ACCESS}; did you mean anonymous?"
        ),
    ),
    (TOP + "[internal_token]", "k.toml:3: [internal_token] issuer: not set; this key is needed"),
    # Files, variables, networks.
    (TOP + 'ca_bundle = "no.pem"', "k.toml:3: ca_bundle: no.pem cannot be read (No such file or"),
    (TOP + 'proxy = { file = "no" }', "k.toml:3: proxy: no cannot be read (No such file or direct"),
    (
        TOP + 'proxy = { env = "NOT_SET" }',
        "k.toml:3: proxy: the environment variable NOT_SET is no",
    ),
    (TOP + 'proxy = { cmd = "id" }', 'k.toml:3: proxy: must be a text, { file = "…" } or { env ='),
    (
        'issuer = "https://id.example.com"\n\ntrusted_proxies = ["10.0.0.1/8", "::/0", "all"]',
        (
            "k.toml:3: trusted_proxies: 10.0.0.1/8 has bits beyond its prefix; write 10.0.0.0/8;"
            " ::/0 would trust everybody; all is no network, as in 10.1.0.0/16"
        ),
    ),
    # Issuers.
    (TOP + "[[rules]]", "k.toml:3: [[rules]] table 1: path: not set; this key is needed"),
    ("issuers = [7]", "k.toml:1: [[issuers]] table 1: 7 cannot be used; must be a table"),
    (ISSUERS + "name = 7", "k.toml:4: [[issuers]] table 1: name: 7 cannot be used; must be a text"),
    (
        'audience = "api"\n[[issuers]]\nname = "a"',
        "k.toml:2: [[issuers]] table 1: issuer: not set; this key is needed",
    ),
    (
        ISSUERS + 'headers = { Host = "x" }',
        "k.toml:4: [[issuers]] table 1: headers: Host is a matt",
    ),
    (
        ISSUERS + "[issuers.claims]\na = []",
        "k.toml:5: [[issuers]] table 1: claim a: must be a stri",
    ),
    (ISSUERS + '[issuers.claims]\n"a." = 1', "k.toml:5: [[issuers]] table 1: 'a.' is no path of a"),
    (
        "leeway = 500\n" + ISSUERS + '[[issuers]]\nissuer = "https://b.example.com"',
        "k.toml:1: leeway: 500 s is not within 0 … 300 s",
    ),
    (
        ISSUERS + '[[issuers]]\nname = "b"\nissuer = "https://id.example.com"',
        "k.toml:6: [[issuers]] table 2: issuer: 'https://id.example.com' is that of table 1 too",
    ),
    # Rules.
    (
        TOP + '[[rules]]\npath = "/a/**"\n[[rules]]\npath = "/a/b"\nscopes = ["x"]',
        "k.toml:5: rule 2 (/a/b) can never be reached: rule 1 (/a/**) covers it",
    ),
    (
        TOP + '[[rules]]\npath = "/a"\naccess = "anonymous"\nscopes = ["x"]',
        "k.toml:3: rule 1 (/a): ",
    ),
    (
        TOP + '[[rules]]\npath = "/a"\nissuers = ["mian"]',
        "k.toml:3: rule 1 (/a): 'mian' is the name",
    ),
    (
        TOP + '[[rules]]\npath = "/a"\nscopes = ["a b"]',
        "k.toml:5: [[rules]] table 1: scopes: 'a b'",
    ),
    # What proxies and upstreams are told.
    (
        TOP + '[identity_headers]\n"X_Sub" = "sub"\n"Vary" = "sub"\n"X-A" = "a."',
        (
            "k.toml:3: [identity_headers] X_Sub cannot be a header field: letters, digits and -;"
            " Vary has a meaning of its own; choose another name; X-A: 'a.' is no path of a claim"
        ),
    ),
    (
        TOP + f'[internal_token]\nissuer = "http://a"\naudience = "b"\nkeys = ["{KEY}"]',
        "k.toml:4: [internal_token] issuer: 'http://a' must use https",
    ),
    (
        TOP + f'[internal_token]\nissuer = "https://a"\naudience = "b"\nkeys = ["{KEY}"]\n'
        'header = "x-auth-subject"',
        "k.toml:7: [internal_token] header: x-auth-subject is one of [identity_headers] too",
    ),
    (
        TOP + '[resource]\nresource = "https://a?b"',
        "k.toml:4: [resource] resource: must have no que",
    ),
]


@pytest.fixture(autouse=True)
def audience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KEYCACHE_AUDIENCE", "api")


@pytest.mark.parametrize(("text", "expected"), WRONG, ids=[text for _, text in WRONG])
def test_problem_has_its_line_its_key_and_its_remedy(text: str, expected: str, said: Said) -> None:
    assert [expected] == [expected for problem in said(text) if problem.startswith(expected)]


@pytest.mark.parametrize(
    "text", [text for text, _ in WRONG if "internal_token]" not in text], ids=str
)
def test_one_mistake_is_one_problem(text: str, said: Said) -> None:
    assert 1 == len(said(text))


def test_problems_come_in_the_order_of_the_file(said: Said) -> None:
    text = ISSUERS + "leeway = 400\n[[rules]]\n[resource]\n[[token_sources]]\n"
    lines = [
        int(problem.split(":")[1]) for problem in said('trusted_proxies = "::1"\nttll = 1\n' + text)
    ]
    assert sorted(lines) == lines
    assert {2, 6, 7, 8, 9} == set(lines)


SECRETS = [
    f'redis_url = "http://{SECRET}"',
    f'redis_url = "{SECRET}"',
    "redis_url = { file = 'secret' }",
    f'seal_keys = ["{SECRET}"]',
    "seal_keys = { file = 'secret' }",
    f'proxy = "ftp://u:{SECRET}@h"',
    f'seal_key = "{SECRET}"',
    f'[[issuers]]\nissuer = "https://u:{SECRET}@a"',
    f'[[issuers]]\nissuer = "https://a"\nheaders = {{ "X-A" = ["{SECRET}"], "a b" = "{SECRET}" }}',
    f'[[issuers]]\nissuer = "https://a"\nheaders = {{ "X-A" = "a\\n{SECRET}" }}',
    f'[[issuers]]\nissuer = "https://a"\nheaders = "{SECRET}"',
    f'[[issuers]]\nissuer = "https://a"\nheader = {{ "X-A" = "{SECRET}" }}',
    f'[[issuers]]\nissuer = "https://a"\nproxy = "http://u:{SECRET}@h/path"',
    f'[internal_token]\nissuer = "https://a"\naudience = "b"\nkeys = ["{SECRET}"]',
]


@pytest.mark.parametrize("text", SECRETS)
def test_secret_is_never_repeated(text: str, said: Said, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text(SECRET)
    assert SECRET not in "\n".join(said(text))


def test_secrets_of_the_file_are_not_in_repr(load: Load) -> None:
    settings = load(
        ISSUERS + f'proxy = "http://u:{SECRET}@h"\nheaders = {{ "X-A" = "{SECRET}" }}\n'
        f'[internal_token]\nissuer = "https://a"\naudience = "b"\nkeys = ["{KEY}{SECRET}"]'
    )
    assert SECRET not in repr(settings)
    assert SECRET not in repr(settings.issuers())

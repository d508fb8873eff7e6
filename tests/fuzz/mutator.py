"""Changes inputs as JSON half of the time: a member gets an odd value, a name, a twin, or goes.

libFuzzer's own changes of octets find what is wrong with spelling; that `"nbf": 1` can also be
`"nbf": "1"` they hardly find in a moment.
"""

import json
from collections.abc import Iterator
from random import Random
from typing import Any

import atheris

SEPARATOR = b"\x1e"
NAMES = (
    *("alg", "kid", "typ", "cty", "crit", "b64", "zip", "enc", "jwk", "x5c"),
    *("iss", "aud", "sub", "exp", "nbf", "iat", "jti", "client_id", "scope"),
    *("keys", "kty", "crv", "use", "key_ops", "n", "e", "x", "y", "d", "k"),
)
VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1, 7, 0.5, -0.0, 1e15, 1e308, 10**30, float("nan"), float("inf")),
    *(1_700_000_000, 1_700_000_001, 1_699_999_999.5, "1700000300"),
    *("", "api", "EdDSA", "RS256", "none", "k", "sig", "enc", "A", "AQAB", "é", "\ud800", "\x00"),
    *([], {}, [None], ["api"], ["verify"], [1], {"a": {}}, [[]], "x" * 129),
)


def mutate(data: bytes, max_size: int, seed: int) -> bytes:
    """One input made of another (what libFuzzer calls a custom mutator)."""
    random = Random(seed)
    kind, content = (data[:1], data[1:]) if data[:1] in (b"e", b"s") else (b"", data)
    parts = content.split(SEPARATOR)
    at = random.randrange(len(parts))
    if random.random() < 0.5:
        try:
            parts[at] = _changed(parts[at], random)
        except (ValueError, RecursionError):
            pass  # no JSON, or not any more
        else:
            return (kind + SEPARATOR.join(parts))[:max_size]
    return bytes(atheris.Mutate(data, max_size))


def _changed(text: bytes, random: Random) -> bytes:
    value = json.loads(text)
    objects = list(_objects(value))
    if not objects:
        raise ValueError("nothing to change")
    chosen = random.choice(objects)
    name = random.choice([*chosen, *NAMES])
    what = random.random()
    if what < 0.2:
        chosen.pop(name, None)
    else:
        chosen[name] = random.choice(VALUES) if what < 0.8 else [chosen.get(name)]
    changed = json.dumps(value, separators=random.choice([(",", ":"), (", ", ": ")]))
    if what > 0.95:  # a member twice
        changed = changed.replace("{", f'{{"{name}":1,', 1)
    return changed.encode()


def _objects(value: Any) -> Iterator[dict[str, Any]]:  # noqa: ANN401 - any JSON
    if isinstance(value, dict):
        yield value
        value = list(value.values())
    if isinstance(value, list):
        for inner in value:
            yield from _objects(inner)

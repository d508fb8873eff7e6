"""Fuzzing for a moment in every run of the suite, and the inputs that are known to be dear."""

import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.fuzz.targets import TARGETS

ROOT = Path(__file__).parent.parent.parent
CORPUS = Path(__file__).parent / "corpus"
SECONDS = 10
SEEDS = sorted(path.relative_to(CORPUS) for path in CORPUS.glob("*/*"))

HEADER, GOOD = b'{"alg":"EdDSA","kid":"k"}\x1e', b'{"iss":"https://issuer.example","x":'
DEAR_VALUES = {
    "lists in lists": b"[" * 2900 + b"]" * 2900,
    "lists that never end": b"[" * 5900,
    "objects in objects": b'{"":' * 1180 + b"1" + b"}" * 1180,
    "many members": b"{" + b",".join(b'"%d":1' % number for number in range(800)) + b"}",
    "many digits": b"9" * 5900,
    "many fractions": b"[" + b"1.1e-300," * 650 + b"1]",
    "many exponents": b"[" + b"1e1," * 1470 + b"1]",
    "many escapes": b'"' + rb"\u0000" * 980 + b'"',
    "many surrogates": b'"' + rb"\ud83d\ude00" * 490 + b'"',
    "many strings": b"[" + b'"",' * 1960 + b"1]",
}
DEAR_TOKENS = {
    "no end of dots": b"r" + b"." * 1_000_000,
    "no end of letters": b"r" + b"A" * 1_000_000,
    "no end of header": b"r" + b"A" * 8000 + b".e30.AAAA",
    "no ASCII": b"r" + b"\xff" * 8192,
    **{
        f"{name}, {how}": kind + HEADER + GOOD + value + b"}"
        for name, value in DEAR_VALUES.items()
        for how, kind in (("signed", b"s"), ("forged", b"e"))
    },
}
RSA = b'{"kty":"RSA","alg":"RS256","e":"AQAB","n":"%s"}'
DEAR_SETS = {
    "lists in lists": b"[" * 500_000,
    "keys in keys": b'{"keys":' * 60_000,
    "many keys": b'{"keys":[' + b"{}," * 170_000 + b"{}]}",
    "the largest modulus": b'{"keys":[' + RSA % (b"_" * 1366) + b"]}",
    "a modulus far too large": b'{"keys":[' + RSA % (b"_" * 500_000) + b"]}",
    "many digits": b'{"keys":[{"kty":' + b"9" * 500_000 + b"}]}",
    "one key many times": b'{"keys":[' + b",".join([RSA % (b"_" * 340 + b"-")] * 20) + b"]}",
    "a long kid": b'{"keys":[{"kty":"RSA","kid":"%s"}]}' % (b"k" * 500_000),
}


@pytest.mark.parametrize("target", TARGETS)
def test_fuzzer_finds_nothing(target: str, tmp_path: Path) -> None:
    found = tmp_path / "found"
    found.mkdir()
    limits = [f"-max_total_time={SECONDS}", "-max_len=9000", f"-artifact_prefix={tmp_path}/"]

    fuzzer = subprocess.run(
        [sys.executable, "-m", "tests.fuzz", target, *limits, found, CORPUS / target],
        cwd=ROOT,
        check=False,
        capture_output=True,
        text=True,
        timeout=100,
    )

    assert 0 == fuzzer.returncode, fuzzer.stdout + fuzzer.stderr
    done = re.search(r"Done (\d+) runs", fuzzer.stderr)
    assert done is not None
    assert int(done[1]) > 100
    # It is guided: the code that it runs through tells it what is new.
    assert any(found.iterdir()), "no input reached anything new: is keycache instrumented?"


@pytest.fixture(scope="module")
def checks() -> Iterator[dict[str, Callable[[bytes], None]]]:
    with ExitStack() as stack:
        yield {name: stack.enter_context(target()) for name, target in TARGETS.items()}


@pytest.mark.parametrize("seed", SEEDS, ids=str)
def test_seed_holds_to_the_property(checks: dict[str, Callable[[bytes], None]], seed: Path) -> None:
    checks[seed.parts[0]]((CORPUS / seed).read_bytes())


@pytest.mark.parametrize("data", DEAR_TOKENS.values(), ids=DEAR_TOKENS.keys())
def test_dear_token_stays_within_the_limits(
    checks: dict[str, Callable[[bytes], None]], data: bytes
) -> None:
    checks["token"](data)


@pytest.mark.parametrize("data", DEAR_SETS.values(), ids=DEAR_SETS.keys())
def test_dear_key_set_stays_within_the_limits(
    checks: dict[str, Callable[[bytes], None]], data: bytes
) -> None:
    assert len(data) < 524288, "more than is fetched"
    checks["jwks"](data)

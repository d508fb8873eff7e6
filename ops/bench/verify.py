"""What a verified token costs: ratios within one run, each the median of paired repeats.

    .venv/bin/python ops/bench/verify.py            all of it; writes VERIFY.md and verify.png here
    .venv/bin/python ops/bench/verify.py --quick    few repeats, prints only, installs nothing

How it measures. Everything compared runs in one process, on the same tokens, in turns: one batch of
each subject makes a repeat, and a ratio is formed within each repeat, so that a machine that slows
down slows both sides. Time is the processor's: nothing here waits, and what else the machine does
is not counted. Every token text is a new object, as it is in a server. Metrics are the real
observer, writing the real files of several processes, its flush included.

What it compares with is installed apart from the project, into `.venv/bench-verify`, from
requirements-verify.txt.
"""

import argparse
import asyncio
import base64
import gc
import importlib
import json
import platform
import subprocess
import sys
import tracemalloc
import warnings
from collections.abc import Awaitable, Callable, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import median
from time import thread_time, time
from typing import Any, NamedTuple

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256
from pybase64 import b64decode

from keycache.authenticator import Authenticator, Trusted
from keycache.cache import Held, KeyCache
from keycache.core import strict_json
from keycache.core.claims import Claims
from keycache.core.freshness import Lifetimes, freshness
from keycache.core.jwks import parse_jwks
from keycache.core.record import Record
from keycache.core.verifier import _CHECKS
from keycache.errors import TokenError
from keycache.events import Observer, Tier, ignore
from keycache.issuer import Issuer
from keycache.token_cache import TokenCache
from metrics import multiproc_dir

HERE = Path(__file__).parent
REQUIREMENTS = HERE / "requirements-verify.txt"
ISSUER, AUDIENCE = "https://login.example.com/", "https://api.example.com"
ALGORITHMS = ("RS256", "ES256", "EdDSA")
NOW = time()
DISTRIBUTIONS = ("cryptography", "PyJWT", "joserfc", "Authlib", "python-jose")
CACHED_TOKENS = 10_000

Batch = Callable[[], Awaitable[None]]


class Scale(NamedTuple):
    """How much is measured: repeats, tokens of each algorithm, look-ups for each token."""

    repeats: int
    tokens: int
    hits: int
    cached: int


FULL, QUICK = Scale(21, 200, 100, CACHED_TOKENS), Scale(2, 10, 10, 200)


class Signer:
    """A key of the issuer, and tokens as an identity provider writes them."""

    def __init__(self, alg: str) -> None:
        self.alg = alg
        self.kid = f"2025-{alg.lower()}-7d1e"
        make: dict[str, Callable[[], Any]] = {
            "RS256": lambda: rsa.generate_private_key(public_exponent=65537, key_size=2048),
            "ES256": lambda: ec.generate_private_key(ec.SECP256R1()),
            "EdDSA": ed25519.Ed25519PrivateKey.generate,
        }
        self.private = make[alg]()
        algorithm: Any = jwt.get_algorithm_by_name(alg)
        public = algorithm.to_jwk(self.private.public_key(), as_dict=True)
        self.jwk: dict[str, Any] = {**public, "kid": self.kid, "alg": alg, "use": "sig"}
        self.jwk.pop("key_ops", None)

    def token(self, number: int, **changes: object) -> str:
        """A token of its own: no two numbers have a claim text in common that matters."""
        claims = {
            "iss": ISSUER,
            "aud": [AUDIENCE, "https://login.example.com/userinfo"],
            "sub": f"auth|{number:024d}",
            "client_id": "7Jk2pVxQ9sLmN4tR8wYzA1bC3dE5fG6h",
            "iat": int(NOW) - 60,
            "exp": int(NOW) + 86400,
            "jti": f"{number:032x}",
            "scope": "openid profile orders:read orders:write",
            "roles": ["customer", "reseller"],
            "tenant": {"id": 4711, "name": "example"},
            **changes,
        }
        header = {"alg": self.alg, "kid": self.kid, "typ": "at+jwt"}
        return jwt.encode(claims, self.private, self.alg, header)

    def bare(self, text: str) -> Callable[[], object]:
        """The check of this token's signature by cryptography, and nothing else."""
        message, _, last = text.rpartition(".")
        signature, data = base64.urlsafe_b64decode(last + "=="), message.encode()
        public = self.private.public_key()
        if self.alg == "RS256":
            scheme, digest = padding.PKCS1v15(), SHA256()
            return lambda: public.verify(signature, data, scheme, digest)
        if self.alg == "ES256":
            r, s = int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:], "big")
            der, ecdsa = encode_dss_signature(r, s), ec.ECDSA(SHA256())
            return lambda: public.verify(der, data, ecdsa)
        return lambda: public.verify(signature, data)


class _Clock:
    def now(self) -> float:
        return time()


def authenticator(signers: Sequence[Signer], observer: Observer, cached: int) -> Authenticator:
    """A worker's authenticator with the keys of all signers in its memory."""
    issuer = Issuer(issuer=ISSUER, audiences=(AUDIENCE,), name="bench")
    cache = KeyCache(
        issuer.name,
        _Clock(),
        observer,
        wait=1.5,
        max_waiters=64,
        negative_ttl=30,
        negative_size=256,
    )
    document = json.dumps({"keys": [signer.jwk for signer in signers]}).encode()
    record = Record(1, NOW, 86400, document, None, None)
    moments = freshness(NOW, 86400, Lifetimes(), 0)
    cache.install(Held(parse_jwks(document, 100), record, moments, Tier.ISSUER))
    return Authenticator(
        {ISSUER: Trusted(issuer, cache)},
        TokenCache(cached),
        _Clock(),
        observer,
        token_bytes=8192,
        kid_chars=128,
    )


# -- what is compared ----------------------------------------------------------------------------


def fresh(texts: Sequence[str], times: int = 1) -> list[str]:
    """Copies: a server sees each token as a new object, whose hash nobody has computed yet."""
    return [text.encode().decode() for _ in range(times) for text in texts]


def bare(signer: Signer, texts: Sequence[str]) -> Batch:
    """The signature checks alone."""
    checks = [signer.bare(text) for text in texts]

    async def run() -> None:
        for check in checks:
            check()

    return run


def least(signer: Signer, texts: Sequence[str]) -> Batch:
    """What no verification in Python can do without, all of it written in C: a token taken apart,
    its JSON read strictly, its signature checked, an object for its claims. Nothing is judged.
    """
    public: Any = parse_jwks(json.dumps({"keys": [signer.jwk]}).encode(), 1).keys[0].public
    check, read, write = _CHECKS[signer.alg], strict_json._read, strict_json._write  # noqa: SLF001

    async def run() -> None:
        for text in texts:
            message, _, last = text.encode("ascii").rpartition(b".")
            middle = message[message.index(b".") + 1 :]
            payload = b64decode(middle + b"==="[: -len(middle) % 4], b"-_", validate=True)
            signature = b64decode(last + b"==="[: -len(last) % 4], b"-_", validate=True)
            claims = read(payload)
            if write(claims) != payload:
                raise AssertionError("the claims are not what was read")
            check(public, message, signature)
            Claims(claims)

    return run


def ours(authenticator: Authenticator, texts: Sequence[str], flush: Callable[[], None]) -> Batch:
    """Authenticate tokens, all of them good."""

    async def run() -> None:
        authenticate = authenticator.authenticate
        for text in texts:
            await authenticate(text)
        flush()

    return run


def refusals(
    authenticator: Authenticator, texts: Sequence[str], flush: Callable[[], None]
) -> Batch:
    """Authenticate tokens, none of them good."""

    async def run() -> None:
        authenticate = authenticator.authenticate
        for text in texts:
            try:
                await authenticate(text)
            except TokenError:
                continue
            raise AssertionError("a forgery was accepted")
        flush()

    return run


def theirs(decode: Callable[[str], object], texts: Sequence[str]) -> Batch:
    """Decode tokens with another library, all of them good."""

    async def run() -> None:
        for text in texts:
            decode(text)

    return run


def pyjwt(signer: Signer) -> Callable[[str], object]:
    """PyJWT, with the key already chosen and the claims we require too."""
    key = jwt.PyJWK(signer.jwk)
    require: Any = {"require": ["exp", "iss", "aud"]}
    return lambda text: jwt.decode(
        text,
        key,
        algorithms=[signer.alg],
        audience=AUDIENCE,
        issuer=ISSUER,
        leeway=30,
        options=require,
    )


def joserfc(signer: Signer) -> Callable[[str], object]:
    """joserfc, with a key set and a claims registry made once."""
    module, jwk = importlib.import_module("joserfc.jwt"), importlib.import_module("joserfc.jwk")
    keys = jwk.KeySet.import_key_set({"keys": [signer.jwk]})
    registry = module.JWTClaimsRegistry(
        leeway=30,
        iss={"essential": True, "value": ISSUER},
        aud={"essential": True, "value": AUDIENCE},
        exp={"essential": True},
    )

    def decode(text: str) -> object:
        token = module.decode(text, keys, algorithms=[signer.alg])
        registry.validate(token.claims)
        return token

    return decode


def authlib(signer: Signer) -> Callable[[str], object]:
    """Authlib, with a key set made once."""
    with warnings.catch_warnings(action="ignore"):
        module = importlib.import_module("authlib.jose")
    keys = module.JsonWebKey.import_key_set({"keys": [signer.jwk]})
    decoder = module.JsonWebToken([signer.alg])
    options = {
        "iss": {"essential": True, "value": ISSUER},
        "aud": {"essential": True, "value": AUDIENCE},
        "exp": {"essential": True},
    }

    def decode(text: str) -> object:
        claims = decoder.decode(text, keys, claims_options=options)
        claims.validate(leeway=30)
        return claims

    return decode


def python_jose(signer: Signer) -> Callable[[str], object]:
    """python-jose, with a key object made once; it has no EdDSA."""
    module, jwk = importlib.import_module("jose.jwt"), importlib.import_module("jose.jwk")
    if signer.alg == "EdDSA":
        raise ImportError("python-jose has no EdDSA")
    key = jwk.construct(signer.jwk, signer.alg)
    options = {"leeway": 30, "require_exp": True, "require_iss": True, "require_aud": True}
    return lambda text: module.decode(
        text, key, algorithms=[signer.alg], audience=AUDIENCE, issuer=ISSUER, options=options
    )


OTHERS = {"PyJWT": pyjwt, "joserfc": joserfc, "Authlib": authlib, "python-jose": python_jose}


# -- measuring -----------------------------------------------------------------------------------


class Timed(NamedTuple):
    """A batch, and for how many tokens it stands."""

    run: Batch
    tokens: int


Times = dict[str, list[float]]
"""Seconds for one token, by subject; the n-th of each were measured together."""


async def measure(subjects: dict[str, Timed], repeats: int) -> Times:
    """Run every subject once to warm up, then all in turns, the order reversed each time."""
    for subject in subjects.values():
        await subject.run()
    gc.collect()
    gc.freeze()  # what was made so far is not what a collection should walk through
    times: Times = {name: [] for name in subjects}
    order = list(subjects)
    for _ in range(repeats):
        for name in order:
            started = thread_time()
            await subjects[name].run()
            times[name].append((thread_time() - started) / subjects[name].tokens)
        order.reverse()
    gc.unfreeze()
    return times


def ratio(times: Times, name: str, base: str) -> float:
    """The median, over the repeats, of one subject's time in multiples of another's."""
    return median(a / b for a, b in zip(times[name], times[base], strict=True))


BARE = "bare signature check"
LEAST = "that, base64 and JSON, nothing judged"
COLD, COLD_METRICS = "keycache, token not seen before", "the same, metrics included"
HIT = "keycache, token seen before, metrics included"
ACCEPTED = "accepted"


async def verification(signers: Sequence[Signer], scale: Scale, observer: Any) -> dict[str, Times]:  # noqa: ANN401 - imported late
    """The times of every subject, by algorithm."""
    plain = authenticator(signers, ignore, 0)
    counting = authenticator(signers, observer, 0)
    remembering = authenticator(signers, observer, CACHED_TOKENS)
    found = {}
    for signer in signers:
        texts = [signer.token(number) for number in range(scale.tokens)]
        hits = fresh(texts, scale.hits)
        subjects = {
            BARE: Timed(bare(signer, texts), len(texts)),
            LEAST: Timed(least(signer, fresh(texts)), len(texts)),
            COLD: Timed(ours(plain, fresh(texts), lambda: None), len(texts)),
            COLD_METRICS: Timed(ours(counting, fresh(texts), observer.flush), len(texts)),
            HIT: Timed(ours(remembering, hits, observer.flush), len(hits)),
        }
        for name, make in OTHERS.items():
            try:
                subjects[name] = Timed(theirs(make(signer), fresh(texts)), len(texts))
            except ImportError:
                continue
        found[signer.alg] = await measure(subjects, scale.repeats)
    return found


def altered(text: str, number: int) -> str:
    """The token with another jti and the old signature: what a forger can write."""
    header, payload, signature = text.split(".")
    claims = json.loads(base64.urlsafe_b64decode(payload + "=="))
    claims["jti"] = f"{number + 1:032x}"
    return f"{header}.{_segment(claims)}.{signature}"


def _segment(value: object) -> str:
    text = json.dumps(value, separators=(",", ":"))
    return base64.urlsafe_b64encode(text.encode()).rstrip(b"=").decode()


async def forgery(signers: Sequence[Signer], scale: Scale, observer: Any) -> dict[str, Times]:  # noqa: ANN401 - imported late
    """The times of refusals and of one acceptance, by algorithm; nothing is cached."""
    counting = authenticator(signers, observer, 0)
    found = {}
    for signer in signers:
        numbers = range(scale.tokens)
        good = [signer.token(number) for number in numbers]
        # As large as a token may be, and of what is slow to read: numbers, small lists.
        large = {"x": [[0.1, "\u00e9"]] * 300}
        large_good = [signer.token(number, **large) for number in numbers]
        unsigned = _segment({"alg": "none", "kid": signer.kid})
        other = Signer(signer.alg)
        other.kid = signer.kid
        kinds = {
            "claims altered": [altered(text, number) for number, text in enumerate(good)],
            "signed with another key": [other.token(number) for number in numbers],
            "expired": [signer.token(number, exp=int(NOW) - 300) for number in numbers],
            "for another audience": [signer.token(number, aud="other") for number in numbers],
            "of another issuer": [signer.token(number, iss="https://other") for number in numbers],
            "alg none": [f"{unsigned}.{text.split('.')[1]}." for text in good],
            "no token at all": ["x" * 700 for _ in numbers],
        }
        subjects = {
            ACCEPTED: Timed(ours(counting, fresh(good), observer.flush), len(good)),
            f"{ACCEPTED}, large": Timed(
                ours(counting, fresh(large_good), observer.flush), len(good)
            ),
        }
        for name, texts in kinds.items():
            subjects[name] = Timed(refusals(counting, fresh(texts), observer.flush), len(texts))
        large_forged = [altered(text, number) for number, text in enumerate(large_good)]
        subjects["claims altered, large"] = Timed(
            refusals(counting, fresh(large_forged), observer.flush), len(good)
        )
        found[signer.alg] = await measure(subjects, scale.repeats)
    return found


async def memory(signers: Sequence[Signer], tokens: int) -> float:
    """The MiB that so many tokens take in the token cache."""
    remembering = authenticator(signers, ignore, tokens)
    signer = signers[-1]
    await remembering.authenticate(signer.token(0))
    gc.collect()
    tracemalloc.start()
    for number in range(1, tokens + 1):
        await remembering.authenticate(signer.token(number))
    gc.collect()
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return held / 2**20


# -- telling -------------------------------------------------------------------------------------


class Target(NamedTuple):
    """What was wanted, what came, and whether that is it."""

    wanted: str
    measured: str
    met: bool


def targets(
    times: dict[str, Times], forged: dict[str, Times], mib: float, count: int
) -> list[Target]:
    """Every figure of the issue beside the one measured."""
    rows = []
    for alg, limit in (("RS256", 1.35), ("ES256", 1.15), ("EdDSA", 1.15)):
        found = ratio(times[alg], COLD, BARE)
        rows.append(
            Target(f"{alg}, cold: at most {limit} × bare", f"{found:.2f} ×", found <= limit)
        )
    for alg in ALGORITHMS:
        found = 1 / ratio(times[alg], HIT, "PyJWT")
        rows.append(
            Target(
                f"{alg}, cached, metrics included: at most 1/20 of PyJWT",
                f"1/{found:.0f}",
                found >= 20,
            )
        )
    for alg in ALGORITHMS:
        worst = max(ratio(forged[alg], name, base) for name, base in _forgeries(forged[alg]))
        rows.append(
            Target(
                f"{alg}, the dearest forgery: at most 1 × an accepted token",
                f"{worst:.2f} ×",
                worst <= 1,
            )
        )
    limit_mib = 20 * count / CACHED_TOKENS
    rows.append(
        Target(
            f"{count:,} cached tokens: at most {limit_mib:g} MiB",
            f"{mib:.1f} MiB",
            mib <= limit_mib,
        )
    )
    return rows


def _forgeries(times: Times) -> list[tuple[str, str]]:
    """Each refusal, with the acceptance of a token of its size."""
    large = f"{ACCEPTED}, large"
    return [
        (name, large if name.endswith("large") else ACCEPTED)
        for name in times
        if not name.startswith(ACCEPTED)
    ]


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown, its columns aligned for those who read it as text."""
    lines = [head, *rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    written = [
        "| "
        + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        + " |"
        for line in lines
    ]
    return "\n".join(
        [written[0], "|" + "|".join("-" * (width + 2) for width in widths) + "|", *written[1:]]
    )


def _cell(times: Times, name: str, base: str) -> str:
    if name not in times:
        return "–"
    return f"{ratio(times, name, base):.3g} × ({median(times[name]) * 1e6:.1f} µs)"


def report(scale: Scale, times: dict[str, Times], forged: dict[str, Times], mib: float) -> str:
    """The whole page."""
    subjects = [BARE, LEAST, COLD, COLD_METRICS, HIT, *OTHERS]
    refused = [
        ("a token accepted", ACCEPTED, ACCEPTED),
        *((name, name, base) for name, base in _forgeries(forged["RS256"])),
    ]
    wanted = [
        (row.wanted, row.measured, "yes" if row.met else "**no**")
        for row in targets(times, forged, mib, scale.cached)
    ]
    return f"""\
# What a verified token costs

Made by `ops/bench/verify.py` from {scale.repeats} paired repeats of {scale.tokens} tokens of each
algorithm; every ratio is the median of the ratios within a repeat. The times in brackets are of one
machine and only say what the ratios are made of.

{_versions()}

## Figures to reach

{table(("wanted", "measured", "reached"), wanted)}

## In multiples of the bare signature check

Each library is given a key object, the issuer, the audience and the leeway, and told to require
exp, iss and aud. – : not installed, or it has no such algorithm. The second row is the least that a
verifier pays which reads claims, made of nothing but calls of C.

{
        table(
            ("", *ALGORITHMS),
            [(name, *(_cell(times[alg], name, BARE) for alg in ALGORITHMS)) for name in subjects],
        )
    }

## Refusals, in multiples of an accepted token

Metrics included, token cache off. `large` is a token of 8 KB, of claims that are slow to read,
against an accepted one with the same claims.

{
        table(
            ("", *ALGORITHMS),
            [
                (label, *(_cell(forged[alg], name, base) for alg in ALGORITHMS))
                for label, name, base in refused
            ],
        )
    }

## Memory

{scale.cached:,} cached tokens with ten claims each hold {mib:.1f} MiB \
({mib * 2**20 / scale.cached:.0f} bytes each).
"""


def _versions() -> str:
    found = [f"Python {platform.python_version()}"]
    for name in DISTRIBUTIONS:
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            found.append(f"{name} not installed")
    return ", ".join(found) + "."


def draw(times: dict[str, Times], path: Path) -> None:
    """The first table as bars, on a logarithmic scale."""
    matplotlib = importlib.import_module("matplotlib")
    matplotlib.use("Agg")
    pyplot = importlib.import_module("matplotlib.pyplot")
    subjects = [HIT, BARE, LEAST, COLD, COLD_METRICS, *OTHERS]
    figure, axes = pyplot.subplots(figsize=(9, 5.5), layout="constrained")
    for place, alg in enumerate(ALGORITHMS):
        present = [(at, name) for at, name in enumerate(subjects) if name in times[alg]]
        bars = axes.barh(
            [at + (place - 1) * 0.27 for at, _ in present],
            [ratio(times[alg], name, BARE) for _, name in present],
            height=0.25,
            label=alg,
        )
        axes.bar_label(bars, fmt="%.2f", padding=3, fontsize=7)
    axes.set_yticks(range(len(subjects)), subjects)
    axes.invert_yaxis()
    axes.set_xscale("log")
    axes.set_xlim(0.02, 8)
    axes.axvline(1, color="black", linewidth=0.8)
    axes.set_xlabel("time for one token, in multiples of the bare signature check (logarithmic)")
    axes.legend()
    figure.savefig(path, dpi=110, metadata={"Software": None})


# -- running -------------------------------------------------------------------------------------


def install_others() -> None:
    """Put what we compare with where the project's own libraries come first."""
    target = Path(sys.prefix, "bench-verify")
    stamp = target / "installed"
    wanted = REQUIREMENTS.read_text()
    if not stamp.exists() or stamp.read_text() != wanted:
        pip = [sys.executable, "-m", "pip", "install", "-qq", "--disable-pip-version-check"]
        options = ["--require-hashes", "--only-binary", ":all:", "--upgrade", "--target"]
        subprocess.run([*pip, *options, target, "-r", REQUIREMENTS], check=True)  # noqa: S603 - our own words
        stamp.write_text(wanted)
    sys.path.append(str(target))


async def run(scale: Scale) -> tuple[str, dict[str, Times]]:
    """Measure everything, and write the page."""
    # After the directory of the metrics has been named, not before.
    from metrics.observer import PrometheusObserver  # noqa: PLC0415

    observer = PrometheusObserver(["bench"])
    signers = [Signer(alg) for alg in ALGORITHMS]
    times = await verification(signers, scale, observer)
    forged = await forgery(signers, scale, observer)
    mib = await memory(signers, scale.cached)
    return report(scale, times, forged, mib), times


def main() -> None:
    """Print the page; unless --quick, write it and the plot beside this file."""
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--quick", action="store_true", help="few repeats, print only")
    quick = arguments.parse_args().quick
    if not quick:
        install_others()
    warnings.simplefilter("ignore")  # what the others have to say about their own future
    directory = multiproc_dir.create()
    multiproc_dir.use(directory, "bench")
    try:
        page, times = asyncio.run(run(QUICK if quick else FULL))
    finally:
        multiproc_dir.remove(directory)
    print(page)
    if not quick:
        (HERE / "VERIFY.md").write_text(f"{page}\n![the first table as bars](verify.png)\n")
        draw(times, HERE / "verify.png")


if __name__ == "__main__":
    main()

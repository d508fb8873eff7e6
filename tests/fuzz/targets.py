"""The property that is fuzzed: claims, or exactly one keycache error, never another exception,
never more than so many seconds of processor time or so many bytes of memory.
"""

import base64
import json
import time
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import NamedTuple, TypeVar

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from jwt.algorithms import OKPAlgorithm

from keycache.core.jwks import parse_jwks
from keycache.core.token import parse_token
from keycache.errors import JWKSError, KeycacheError, Reason
from keycache.events import Rejected, Unverifiable, Verified
from keycache.issuer import POSSIBLE_ALGORITHMS
from tests.fuzz.mutator import SEPARATOR
from tests.keycache.core.forge import issuer
from tests.keycache.one_worker import Worker

Result = TypeVar("Result")


class Limits(NamedTuple):
    """Generous, so that a busy machine fails nobody."""

    seconds: float
    memory: int


TOKEN = Limits(0.25, 2 * 2**20)  # a good one takes 0.1 ms and 20 KB, and none has more than 8 KB
KEY_SET = Limits(
    1.0, 32 * 2**20
)  # a common one takes 1 ms and 50 KB, and none has more than 512 KB

# The same in every run, so that an input that was found can be tried again.
_SECRET = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
_JWK = OKPAlgorithm.to_jwk(_SECRET.public_key(), as_dict=True)


@contextmanager
def tokens() -> Iterator[Callable[[bytes], None]]:
    """Checks one input as a token, by the first octet: `r` the text as it is; `e` header, payload
    and signature before they are encoded; `s` header and payload, to be signed well.
    """
    policy = issuer()
    worker = Worker([policy], token_cache=0)
    worker.publish(policy.issuer, [{**_JWK, "kid": "k", "alg": "EdDSA"}])
    reasons = {*Reason}

    def check(data: bytes) -> None:
        text = _token(data)
        decided = _bounded(lambda: worker.decide(text), TOKEN)
        outcomes = worker.events
        assert len(outcomes) == 1, outcomes
        if isinstance(decided, str):
            assert isinstance(outcomes[0], Rejected | Unverifiable)
            assert decided in reasons or decided == "unavailable"
            return
        assert isinstance(outcomes[0], Verified)
        # What was let in is what the most common of all parsers reads in it, nothing twice.
        payload = base64.urlsafe_b64decode(text.split(".")[1] + "==")
        read = json.loads(payload, object_pairs_hook=_each_once)
        assert json.dumps(decided) == json.dumps(read)
        assert json.dumps(parse_token(text, 8192, 128).payload) == json.dumps(read)

    yield check
    worker.close()


@contextmanager
def key_sets() -> Iterator[Callable[[bytes], None]]:
    """Checks one input as a JWKS document."""

    def check(data: bytes) -> None:
        try:
            key_set = _bounded(lambda: parse_jwks(data, 20), KEY_SET)
        except JWKSError as error:
            assert len(str(error)) < 300  # noqa: PT017 - one of two right ends
            return
        assert key_set.keys
        for key in key_set.keys:
            assert {*key.algorithms} <= {*POSSIBLE_ALGORITHMS}
            assert key.kid is None or key_set.select(key.kid, key.algorithms[0]) is key

    yield check


TARGETS = {"token": tokens, "jwks": key_sets}


def _each_once(pairs: list[tuple[str, object]]) -> dict[str, object]:
    members = dict(pairs)
    assert len(members) == len(pairs), "a member twice"
    return members


def _token(data: bytes) -> str:
    kind, rest = data[:1], data[1:]
    if kind not in (b"e", b"s"):
        # As Sanic hands header bytes on.
        return rest.decode("utf-8", "surrogateescape")
    header, _, rest = rest.partition(SEPARATOR)
    payload, _, signature = rest.partition(SEPARATOR)
    message = _base64url(header) + b"." + _base64url(payload)
    if kind == b"s":
        signature = _SECRET.sign(message)
    return (message + b"." + _base64url(signature)).decode("ascii")


def _base64url(data: bytes) -> bytes:
    return base64.urlsafe_b64encode(data).rstrip(b"=")


def _bounded(run: Callable[[], Result], limits: Limits) -> Result:
    """What it returns or raises; AssertionError when it takes too long, or too much memory.

    Run twice, since memory is traced at the price of time. Time is the processor's, this thread's.
    """
    started = time.thread_time()
    try:
        return run()
    finally:
        seconds = time.thread_time() - started
        assert seconds < limits.seconds, f"took {seconds:.3f} s"
        tracemalloc.start()
        with suppress(KeycacheError):
            run()
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak < limits.memory, f"took {peak} bytes"

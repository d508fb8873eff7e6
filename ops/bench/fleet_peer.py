"""One process of a peer: verifies tokens with the library named, as its documentation says to.

    fleet_peer.py NAME JWKS_URL ISSUER AUDIENCE TTL     (TTL in seconds, 0: the library's default)

Started by fleet_peers.py with the Python of .venv/bench-fleet; needs nothing of this project. Reads
questions from standard input and answers each with one line of JSON, until standard input ends:

    question  {"flood": [tokens, verified all at once],
               "good": [tokens, verified one after the other while the flood lasts]}
    answer    {"flood": [[accepted, seconds], ...], "good": [[accepted, seconds], ...]}
"""

# ruff: noqa: PLC0415 - each library is imported where it is used: a process holds one

import asyncio
import json
import logging
import sys
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

ALGORITHMS = ["RS256"]

AHEAD = 0.01
"""Seconds that the flood begins before the first good token."""

Verify = Callable[[str], Awaitable[object]]


def pyjwt(url: str, issuer: str, audience: str, ttl: float) -> Verify:
    """PyJWT: Usage Examples, "Retrieve RSA signing keys from a JWKS endpoint".

    One PyJWKClient with its defaults, asked for the key of each token. It blocks, so each request
    has a thread, as in a threaded server.
    """
    import jwt

    client = jwt.PyJWKClient(url, **({"lifespan": ttl} if ttl else {}))
    threads = ThreadPoolExecutor(64)

    def decode(token: str) -> object:
        key = client.get_signing_key_from_jwt(token)
        return jwt.decode(token, key, algorithms=ALGORITHMS, audience=audience, issuer=issuer)

    async def verify(token: str) -> object:
        return await asyncio.get_running_loop().run_in_executor(threads, decode, token)

    return verify


def pyjwt_key_fetcher(url: str, issuer: str, audience: str, ttl: float) -> Verify:
    """pyjwt-key-fetcher: README, "Example".

    With "Using static configuration", so that discovery costs nothing, and "Adjusting caching".
    """
    import jwt
    from pyjwt_key_fetcher import AsyncKeyFetcher

    fetcher = AsyncKeyFetcher(
        valid_issuers=[issuer],
        static_issuer_config={issuer: {"jwks_uri": url}},
        **({"cache_ttl": ttl} if ttl else {}),
    )

    async def verify(token: str) -> object:
        key = await fetcher.get_key(token)
        return jwt.decode(token, audience=audience, issuer=issuer, **key)

    return verify


def auth_jwks(url: str, issuer: str, audience: str, ttl: float) -> Verify:
    """auth-jwks: README, "Direct JWKS Endpoint"."""
    from auth_jwks import JWKS

    jwks = JWKS(jwks_uri=url, issuer=issuer, aud=audience, **({"cache_ttl": ttl} if ttl else {}))
    return jwks.verify_token


def oidc_jwt_verifier(url: str, issuer: str, audience: str, ttl: float) -> Verify:
    """oidc-jwt-verifier: README, "Async quickstart", with one verifier for the process."""
    from oidc_jwt_verifier import AuthConfig
    from oidc_jwt_verifier.async_verifier import AsyncJWTVerifier

    verifier = AsyncJWTVerifier(
        AuthConfig(
            issuer=issuer,
            audience=audience,
            jwks_url=url,
            allowed_algs=tuple(ALGORITHMS),
            **({"jwks_cache_ttl_s": ttl} if ttl else {}),
        )
    )
    return verifier.verify_access_token


def jwks_client(url: str, issuer: str, audience: str, ttl: float) -> Verify:
    """jwks-client: README, the first example."""
    from jwks_client import JWKSClient, JWTVerifier

    jwks = JWKSClient(url, **({"ttl": ttl} if ttl else {}))
    return JWTVerifier(jwks, algorithms=ALGORITHMS, audience=audience, issuer=issuer).verify


PEERS = {
    "PyJWT": pyjwt,
    "pyjwt-key-fetcher": pyjwt_key_fetcher,
    "auth-jwks": auth_jwks,
    "oidc-jwt-verifier": oidc_jwt_verifier,
    "jwks-client": jwks_client,
}


async def timed(verify: Verify, token: str) -> tuple[bool, float]:
    """Whether the token was accepted, and after how many seconds that was known."""
    started = time.perf_counter()
    try:
        await verify(token)
    except Exception:  # noqa: BLE001 - each library has its own, and some let others through
        return False, time.perf_counter() - started
    return True, time.perf_counter() - started


async def answer(verify: Verify, question: dict[str, list[str]]) -> dict[str, Any]:
    """Verify what is asked for."""
    flood = asyncio.gather(*(timed(verify, token) for token in question["flood"]))
    good = []
    if question["flood"]:
        await asyncio.sleep(AHEAD)
    for token in question["good"]:
        if good and question["flood"] and flood.done():
            break
        good.append(await timed(verify, token))
        await asyncio.sleep(0.001)
    return {"flood": await flood, "good": good}


async def main(name: str, url: str, issuer: str, audience: str, ttl: str) -> None:
    """Answer until standard input ends."""
    verify = PEERS[name](url, issuer, audience, int(ttl))
    read = partial(asyncio.to_thread, sys.stdin.readline)
    while line := await read():
        print(json.dumps(await answer(verify, json.loads(line))), flush=True)


if __name__ == "__main__":
    logging.disable()  # some write a traceback for each refused token
    asyncio.run(main(*sys.argv[1:]))

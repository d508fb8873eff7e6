"""The least that an HTTP server in Python can do: uvloop and httptools, one constant answer.

python bare_loop.py PORT             answers everybody
python bare_loop.py PORT JWKS_URL    checks the signature of the token, and nothing else of it

Two processes on one port; ops/bench/peers.py starts it. What the second costs beyond the first is
the bare signature check as a server under load does it, base64 and the choice of the key included.
"""

import asyncio
import base64
import json
import os
import signal
import socket
import sys
import urllib.request
from collections.abc import Callable, Sequence
from typing import Any, cast

import httptools
import jwt
import uvloop
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec, padding
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256

WORKERS = 2
BODY = b'{"message":"Access granted"}'
HEAD = b"content-type: application/json\r\ncontent-length: %d\r\n\r\n"
GRANTED = b"HTTP/1.1 200 OK\r\n" + HEAD % len(BODY) + BODY
REFUSED = b"HTTP/1.1 401 Unauthorized\r\n" + HEAD % 0

Check = Callable[[bytes, bytes], None]


class Answering(asyncio.Protocol):
    """Reads requests, and answers each of them the same, or by the signature of its token.

    checks: what checks a message and its signature, by the kid; empty to check nothing.
    """

    def __init__(self, checks: dict[str, Check]) -> None:
        self._checks = checks
        self._token = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin to read."""
        self._transport = cast("asyncio.Transport", transport)
        self._parser: Any = httptools.HttpRequestParser(self)

    def data_received(self, data: bytes) -> None:
        """Parse; what is complete is answered."""
        self._parser.feed_data(data)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Called by the parser."""
        if self._checks and name.lower() == b"authorization":
            self._token = value[7:]

    def on_message_complete(self) -> None:
        """Called by the parser."""
        answer = GRANTED
        if self._checks:
            message, _, signature = self._token.rpartition(b".")
            header, _, _ = message.partition(b".")
            self._token = b""
            try:
                kid = json.loads(base64.urlsafe_b64decode(header + b"=="))["kid"]
                self._checks[kid](base64.urlsafe_b64decode(signature + b"=="), message)
            except (ValueError, KeyError, InvalidSignature):
                answer = REFUSED
        self._transport.write(answer)


def checks(jwks_url: str) -> dict[str, Check]:
    """What checks a signature, by the kid, for the keys of RS256 and ES256 at this address."""
    with urllib.request.urlopen(jwks_url) as answer:  # noqa: S310 - our own words
        found = json.load(answer)["keys"]
    return {key["kid"]: _check(key) for key in found if key["alg"] in ("RS256", "ES256")}


def _check(jwk: dict[str, Any]) -> Check:
    public: Any = jwt.PyJWK(jwk).key
    if jwk["alg"] == "RS256":
        scheme, digest = padding.PKCS1v15(), SHA256()
        return lambda signature, message: public.verify(signature, message, scheme, digest)
    algorithm = ec.ECDSA(SHA256())

    def check(signature: bytes, message: bytes) -> None:
        r, s = (int.from_bytes(half, "big") for half in (signature[:32], signature[32:]))
        public.verify(encode_dss_signature(r, s), message, algorithm)

    return check


async def serve(listener: socket.socket, found: dict[str, Check], children: Sequence[int]) -> None:
    """Until SIGTERM, which the children get as well."""

    def end() -> None:
        for child in children:
            os.kill(child, signal.SIGTERM)
        os._exit(0)

    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, end)
    server = await loop.create_server(lambda: Answering(found), sock=listener)
    await server.serve_forever()


if __name__ == "__main__":
    keys = checks(sys.argv[2]) if len(sys.argv) > 2 else {}
    listener = socket.create_server(("127.0.0.1", int(sys.argv[1])), backlog=128)
    forked: list[int] = []
    for _ in range(WORKERS - 1):
        child = os.fork()
        if child == 0:
            forked = []
            break
        forked.append(child)
    uvloop.run(serve(listener, keys, forked))

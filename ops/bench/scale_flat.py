"""What more issuers and more tokens cost the next request: over HTTP, in all of one worker's time.

The servers run side by side and are loaded in turns, with tokens drawn at random; a ratio is formed
within a round. One worker each, so that every token it is asked about is in its own memory.
"""

import json
import os
import sys
from collections.abc import Mapping
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import time
from typing import NamedTuple

from bench_servers import fill, free_port
from cryptography.hazmat.primitives.asymmetric import ec
from jwt import encode
from jwt.algorithms import ECAlgorithm
from peers_kinds import Command, Kind, Place
from peers_run import Contender, ContenderError

from app.demo.service import command_line, environment

HERE = Path(__file__).parent
AUDIENCE = "bench"
DAY = 86400
SLOWEST = 3000  # requests a second, when a token is sent for the second time
START_TIMEOUT = 180.0  # seconds; ten thousand issuers are read from as many files
ISSUER = "https://{}.id.example.com/"


class Sizes(NamedTuple):
    """Numbers of issuers and of tokens; how many tokens where issuers vary; rounds of a second."""

    issuers: tuple[int, ...]
    tokens: tuple[int, ...]
    drawn: int
    rounds: int


FULL = Sizes((1, 100, 10_000), (1, 1_000, 100_000), 10_000, 7)
QUICK = Sizes((10,), (100,), 50, 1)


class Server(NamedTuple):
    """A worker that knows so many issuers, keeps so many tokens (0: none), and is sent so many.

    differing: no request that it is sent is like another.
    """

    issuers: int
    kept: int
    tokens: int
    differing: bool = False


class _Signer:
    """An issuer: its key in a file, and its tokens."""

    def __init__(self, number: int, folder: Path) -> None:
        self._private = ec.generate_private_key(ec.SECP256R1())
        self._number = number
        self.file = folder / f"{number}.json"
        jwk = ECAlgorithm.to_jwk(self._private.public_key(), as_dict=True)
        key = {**jwk, "kid": str(number), "alg": "ES256", "use": "sig"}
        key.pop("key_ops", None)
        self.file.write_text(json.dumps({"keys": [key]}))

    def token(self, number: int) -> str:
        now = int(time())
        claims = {
            "iss": ISSUER.format(self._number),
            "aud": AUDIENCE,
            "sub": f"user-{number:07d}",
            "iat": now,
            "exp": now + DAY,
            "scope": "read",
        }
        return encode(claims, self._private, "ES256", {"kid": str(self._number)})


def _api(server: Server, folder: Path, place: Place) -> Command:
    """JWTAuth in a Sanic application, its keys from files."""
    code = os.pathsep.join((str(HERE), str(HERE.parent.parent)))
    words = ["-m", "sanic", "scale_api:app", "--host", "127.0.0.1", "--port", str(place.port)]
    return Command(
        [sys.executable, *words, "--single-process", "--no-access-logs", "--no-motd"],
        {
            "PYTHONPATH": code,
            "SANIC_AUTO_EXTEND": "false",
            "BENCH_FOLDER": str(folder),
            "BENCH_ISSUERS": str(server.issuers),
            "BENCH_KEPT": str(server.kept),
        },
    )


def _service(server: Server, folder: Path, place: Place) -> Command:
    """`keycache serve`, for the tokens of one issuer."""
    settings = {
        "ISSUER": ISSUER.format(0),
        "AUDIENCE": AUDIENCE,
        "JWKS_FILE": str(folder / "0.json"),
        "TOKEN_CACHE": str(server.kept),
        "WORKERS": "1",
        "PORT": str(place.port),
        "ADMIN_PORT": "0",
    }
    return Command(command_line("serve"), environment(settings))


def measure(sizes: Sizes) -> dict[Server, list[float]]:
    """µs of processor time for a request, by server, one for each round."""
    with ExitStack() as stack:
        directory = Path(stack.enter_context(TemporaryDirectory(prefix="scale-")))
        keys = directory / "keys"
        keys.mkdir()
        signers = [_Signer(number, keys) for number in range(max(sizes.issuers))]
        kinds = {
            Server(count, kept, sizes.drawn): Kind(
                partial(_api, Server(count, kept, sizes.drawn), keys), bare=""
            )
            for count in sizes.issuers
            for kept in (0, sizes.drawn)
        }
        kept = max(sizes.tokens)
        some = sizes.tokens[len(sizes.tokens) // 2]
        for server in (
            *(Server(1, kept, count) for count in sizes.tokens),
            Server(1, kept, some, differing=True),
        ):
            kinds[server] = Kind(partial(_service, server, keys), bare="", path="/verify")
        running: dict[Server, tuple[Contender, Path]] = {}
        for number, (server, kind) in enumerate(kinds.items()):
            own = directory / str(number)
            own.mkdir()
            texts = [signers[n % server.issuers].token(n) for n in range(server.tokens)]
            file = own / "tokens"
            file.write_text("\n".join(texts))
            place = Place(own, free_port(), ISSUER.format(0), AUDIENCE, "", 0)
            running[server] = (stack.enter_context(Contender(str(server), kind, place)), file)
        for server, (contender, file) in running.items():
            texts = file.read_text().split()
            contender.wait_until_ready(texts[-1], START_TIMEOUT)
            if server.kept:
                fill(contender.place.port, contender.kind.path, texts)
                _send_each(contender, file, server.tokens)
        found: dict[Server, list[float]] = {server: [] for server in kinds}
        for number in range(sizes.rounds):
            for server in list(kinds)[:: 1 if number % 2 else -1]:
                contender, file = running[server]
                mode = "differing" if server.differing else "random"
                found[server].append(contender.load(file, mode, 1).cpu)
        return found


def _send_each(contender: Contender, file: Path, tokens: int) -> None:
    """Send the request that will be measured with every token once, so that none of them is the
    first of its kind. Raises ContenderError when there was no time for that.
    """
    seconds = 2 + tokens // SLOWEST
    if contender.load(file, "rotation", seconds).requests < tokens:
        raise ContenderError(f"not all of {tokens} tokens were sent in {seconds} s")


def ratio(found: Mapping[Server, list[float]], server: Server, base: Server) -> float:
    """The median, over the rounds, of one server's cost in multiples of another's."""
    return median(a / b for a, b in zip(found[server], found[base], strict=True))

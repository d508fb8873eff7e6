"""`keycache demo`: the whole service, against a local issuer that rotates its keys."""

import base64
import os
import secrets
import signal
import socket
import sys
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import click
from rich.console import Console

from app.demo.issuer import DemoIssuer
from app.demo.live import invitation, watch
from app.demo.service import Service, ServiceError
from app.demo.tour import Step, Tour
from app.embedded import EmbeddedValkey, short_parent

WORKERS = 2
PORT, ADMIN_PORT = 8000, 9000
VALKEY_TIMEOUT = 10.0  # seconds
TOUR_BUDGET = 8
"""Forced refreshes that the tour may cause: it does in seconds what would take minutes in earnest,
and so must not wait for the usual budget of two to refill."""


@click.command("demo")
@click.option("--once", is_flag=True, help="Take a scripted tour instead; exit 0 if all agrees.")
def command(*, once: bool) -> None:
    """Run the whole service against a local issuer that rotates its keys.

    Prints lines to paste into another terminal and then shows what is counted, until Ctrl-C.
    Everything is on 127.0.0.1, and ends with it. With --once it takes a tour: valid and bad tokens,
    a rotation, a removed key. Exit codes: 0; 1 when a step of the tour came out differently, or the
    service did not run.
    """
    # However we are asked to end, what we have started ends first.
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)
    try:
        sys.exit(_demo(once=once))
    except KeyboardInterrupt:
        click.echo("\nEnded.")
        sys.exit(1 if once else 0)
    except ServiceError as error:
        click.echo(f"keycache: {error}", err=True)
        sys.exit(1)


def _demo(*, once: bool) -> int:
    with ExitStack() as stack:
        issuer = stack.enter_context(DemoIssuer())
        valkey = stack.enter_context(_valkey())
        settings = {
            "ISSUER": issuer.url,
            "AUDIENCE": issuer.audience,
            "WORKERS": str(WORKERS),
            "REDIS_URL": valkey.url,
            "SEAL_KEYS": base64.urlsafe_b64encode(secrets.token_bytes(32)).decode().rstrip("="),
            "PORT": "0" if once else str(_free(PORT)),
            "ADMIN_PORT": "0" if once else str(_free(ADMIN_PORT)),
        }
        if once:
            settings["BUDGET"] = str(TOUR_BUDGET)
        click.echo(f"Starting an issuer, a Valkey and {WORKERS} workers …")
        service = stack.enter_context(Service(settings))
        click.echo(f"Ready: {service.url}, trusting {issuer.url}\n")
        if once:
            return report(Tour(service, issuer, settings).steps())
        click.echo(f"{invitation(service, issuer)}\n")
        watch(service, issuer, Console())
    return 0


@contextmanager
def _valkey() -> Iterator[EmbeddedValkey]:
    """A Valkey that the service and the operator's commands share, as `keycache serve` starts it.

    Raises ConfigurationError or StoreError when it does not start.
    """
    with TemporaryDirectory(prefix="keycache-demo-", dir=short_parent()) as directory:
        valkey = EmbeddedValkey(Path(directory))
        try:
            os.close(valkey.start())
            valkey.wait_until_ready(VALKEY_TIMEOUT)
            yield valkey
        finally:
            valkey.stop()


def report(steps: Iterable[Step]) -> int:
    """Print a line for each step as it comes; 0 when all agree, else 1."""
    taken = agreed = 0
    for step in steps:
        taken += 1
        agreed += step.agrees
        verdict = "ok    " if step.agrees else "FAILED"
        click.echo(f"{verdict} {step.tried}: expected {step.expected}; came {step.came}")
    click.echo(f"\n{agreed} of {taken} steps came out as expected.")
    return 0 if agreed == taken else 1


def _free(port: int) -> int:
    """This port when it is free, else 0: any."""
    with socket.socket() as probe:
        # As the service does: a port whose last connections are only fading away is free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return 0
    return port

"""`keycache warm`: the keys are in Redis before the first worker needs them."""

import asyncio
import sys
from collections.abc import Sequence
from typing import NamedTuple

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from app.cli.common import chosen, duration, echo_json, issuers_and_options
from keycache.errors import JWKSError, RecordError, UnavailableError
from keycache.events import Result
from keycache.issuer import Issuer
from keycache.runtime import Options, Runtime, Warmed

RESULTS = {
    Result.FETCHED: "fetched",
    Result.NOT_MODIFIED: "confirmed by the issuer",
    Result.SHARED: "already in Redis",
    Result.SUPERSEDED: "a newer answer was already in Redis",
}
"""How each way of becoming warm is told; the others are failures and have their own sentence."""


class Failure(NamedTuple):
    """An issuer whose keys could not be warmed, and why."""

    name: str
    error: str


@click.command("warm")
@click.option(
    "--issuer", "names", multiple=True, metavar="NAME", help="Only this one (repeatable)."
)
@click.option("--force", is_flag=True, help="Ask the issuer even when Redis holds fresh keys.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option(
    "--timeout",
    type=click.FloatRange(min=0, min_open=True),
    default=30.0,
    show_default=True,
    help="Seconds to wait for an issuer.",
)
def command(names: tuple[str, ...], *, force: bool, as_json: bool, timeout: float) -> None:
    """Load every issuer's keys into Redis, before the workers need them.

    Goes the way that the workers go: the same lease, the same checks, the same sealed record. Exit
    codes: 0 all keys are fresh; 1 some issuer could not be warmed; 2 the configuration or Redis is
    wrong.
    """
    issuers, options = issuers_and_options()
    outcomes = asyncio.run(_warm_all(chosen(issuers, names), options, force=force, seconds=timeout))
    failures = [outcome for outcome in outcomes if isinstance(outcome, Failure)]
    if as_json:
        echo_json({"ok": not failures, "issuers": [_document(outcome) for outcome in outcomes]})
    else:
        for outcome in outcomes:
            click.echo(_line(outcome), err=isinstance(outcome, Failure))
    sys.exit(1 if failures else 0)


async def _warm_all(
    issuers: Sequence[Issuer], options: Options, *, force: bool, seconds: float
) -> list[Warmed | Failure]:
    """Warm them at the same time; raises StoreError when Redis does not answer."""
    console = Console(stderr=True)
    columns = (TextColumn("Warming"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    runtime = Runtime(issuers, options)
    with Progress(
        *columns, console=console, transient=True, disable=not console.is_terminal
    ) as bar:
        task = bar.add_task("", total=len(issuers))

        async def warm(issuer: Issuer) -> Warmed | Failure:
            try:
                async with asyncio.timeout(seconds):
                    return await runtime.warm(issuer, force=force)
            except TimeoutError:
                return Failure(issuer.name, f"no fresh keys within {duration(seconds)}")
            except (JWKSError, RecordError, UnavailableError) as error:
                return Failure(issuer.name, str(error))
            finally:
                bar.advance(task)

        try:
            return await asyncio.gather(*map(warm, issuers))
        finally:
            await runtime.close()


def _line(outcome: Warmed | Failure) -> str:
    if isinstance(outcome, Failure):
        return f"{outcome.name}: FAILED: {outcome.error}"
    return (
        f"{outcome.name}: {outcome.keys} keys, version {outcome.version},"
        f" {RESULTS.get(outcome.result, outcome.result)} in {duration(outcome.seconds)}"
    )


def _document(outcome: Warmed | Failure) -> dict[str, object]:
    if isinstance(outcome, Failure):
        return {"issuer": outcome.name, "ok": False, "error": outcome.error}
    return {
        "issuer": outcome.name,
        "ok": True,
        "result": outcome.result,
        "keys": outcome.keys,
        "version": outcome.version,
        "seconds": round(outcome.seconds, 6),
    }

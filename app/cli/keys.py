"""`keycache keys`: what the shared cache holds, key by key, and what it had to leave out."""

import asyncio
import sys
import time
from collections.abc import Sequence
from typing import NamedTuple

import click
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from app.cli.common import duration, echo_json, issuers_and_options
from keycache.core.decision import Age
from keycache.errors import JWKSError, RecordError
from keycache.issuer import Issuer
from keycache.runtime import Inspection, Options, Runtime

USABLE = (Age.FRESH, Age.DUE)
PLAIN_WIDTH = 240  # columns when nobody looks: a line a key, for grep


class Nothing(NamedTuple):
    """An issuer of which the shared cache has no usable record, and why."""

    name: str
    error: str


@click.command("keys")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(*, as_json: bool) -> None:
    """Show the keys that the shared cache holds.

    Asks Redis only, never an issuer. Exit codes: 0 every issuer has fresh keys; 1 some issuer's are
    stale, dead or missing; 2 the configuration or Redis is wrong.
    """
    issuers, options = issuers_and_options()
    found = asyncio.run(_inspect_all(issuers, options))
    if as_json:
        echo_json({"ok": _ok(found), "issuers": [_document(entry) for entry in found]})
    else:
        terminal = sys.stdout.isatty()
        console = Console(width=None if terminal else PLAIN_WIDTH, highlight=False)
        console.print(_table(found, time.time(), terminal=terminal))
    sys.exit(0 if _ok(found) else 1)


async def _inspect_all(issuers: Sequence[Issuer], options: Options) -> list[Inspection | Nothing]:
    runtime = Runtime(issuers, options)

    async def inspect(issuer: Issuer) -> Inspection | Nothing:
        try:
            found = await runtime.inspect(issuer)
        except (RecordError, JWKSError) as error:
            return Nothing(issuer.name, f"its record is refused: {error}")
        return found or Nothing(issuer.name, "nothing is stored (`keycache warm` loads it)")

    try:
        return await asyncio.gather(*map(inspect, issuers))
    finally:
        await runtime.close()


def _ok(found: Sequence[Inspection | Nothing]) -> bool:
    return all(isinstance(entry, Inspection) and entry.age in USABLE for entry in found)


def _table(found: Sequence[Inspection | Nothing], now: float, *, terminal: bool) -> Table:
    table = Table(box=SIMPLE_HEAD if terminal else None, pad_edge=False)
    for title in ("ISSUER", "KID", "KTY", "ALG", "SIZE", "AGE", "STATE", "VERSION"):
        table.add_column(title, overflow="fold")
    for entry in found:
        if isinstance(entry, Nothing):
            table.add_row(entry.name, "-", "-", "-", "-", "-", entry.error)
            continue
        # As Text: a kid is the issuer's word, and rich would read "[red]" in it as an order.
        age = duration(max(0.0, now - entry.fetched_at))
        for key in entry.keys:
            table.add_row(
                entry.name,
                Text(key.kid or "-"),
                key.kty,
                ",".join(key.algorithms),
                str(key.size),
                age,
                entry.age.value,
                str(entry.version),
            )
        for skipped in entry.skipped:
            kid = Text(skipped.kid or "-")
            table.add_row(entry.name, kid, "-", "-", "-", age, f"skipped: {skipped.reason}")
    return table


def _document(entry: Inspection | Nothing) -> dict[str, object]:
    if isinstance(entry, Nothing):
        return {"issuer": entry.name, "error": entry.error}
    return {
        "issuer": entry.name,
        "state": entry.age.value,
        "version": entry.version,
        "fetched_at": entry.fetched_at,
        "fresh_until": entry.fresh_until,
        "stale_until": entry.stale_until,
        "keys": [
            {"kid": key.kid, "kty": key.kty, "algorithms": list(key.algorithms), "size": key.size}
            for key in entry.keys
        ],
        "skipped": [{"kid": key.kid, "reason": key.reason} for key in entry.skipped],
    }

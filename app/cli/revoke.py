"""`keycache revoke`: tokens that leaked are refused by every worker, before they expire."""

import asyncio
import sys
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime

import click

from app.cli.common import chosen, echo_json, issuers_and_options
from keycache.core.revocation import Kind, Revocation, digest_of
from keycache.errors import ConfigurationError, JWKSError, RecordError
from keycache.issuer import Issuer
from keycache.runtime import Options, Runtime


def _moment(_: click.Context, __: click.Parameter, text: str | None) -> float | None:
    """Seconds since the epoch, or a date and time of RFC 3339 with its zone."""
    if text is None:
        return None
    with suppress(ValueError):
        return float(text)
    with suppress(ValueError):
        moment = datetime.fromisoformat(text)
        if moment.tzinfo is not None:
            return moment.timestamp()
    raise click.BadParameter(f"{text!r} is no time, as in 2026-11-22T03:00:00Z, and no seconds")


@click.command("revoke")
@click.option("--issuer", "name", metavar="NAME", help="Whose tokens; needed if there are several.")
@click.option("--jti", metavar="ID", help="Refuse the token with this jti.")
@click.option("--sub", metavar="SUBJECT", help="Refuse the tokens with this sub issued until now.")
@click.option(
    "--before",
    metavar="TIME",
    callback=_moment,
    help="With --sub: issued until then, as in 2026-11-22T03:00:00Z or in seconds.",
)
@click.option(
    "--for",
    "seconds",
    type=float,
    metavar="SECONDS",
    help="How long a token lives.  [default: MAX_LIFETIME, or a day]",
)
@click.option("--list", "only_list", is_flag=True, help="Show what is revoked; change nothing.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(  # noqa: PLR0913 - one for each option
    name: str | None,
    jti: str | None,
    sub: str | None,
    before: float | None,
    seconds: float | None,
    *,
    only_list: bool,
    as_json: bool,
) -> None:
    """Refuse tokens before they expire, on every worker of every host.

    Needs KEYCACHE_REVOCATION=1 here and there. The answer is then 401 with the reason `revoked`,
    usually within a second. What is revoked is kept for as long as a token lives, and cannot be
    taken back: who should go on gets a new token. Redis and --list have digests, never the jti or
    sub; --list with --jti or --sub asks for that one. Exit codes: 0 revoked, or listed; 1 not
    possible, or not in the list; 2 the configuration or Redis is wrong.
    """
    tokens = [(kind, text) for kind, text in ((Kind.JTI, jti), (Kind.SUB, sub)) if text is not None]
    if len(tokens) > 1 or not (tokens or only_list):
        raise click.UsageError("name either --jti or --sub")
    if before is not None and (sub is None or only_list):
        raise click.UsageError("--before goes with --sub")
    issuers, options = issuers_and_options()
    if not options.revocation:
        raise ConfigurationError(
            ["no worker would look: set KEYCACHE_REVOCATION=1, here as for the service"]
        )
    issuers = chosen(issuers, [name] if name else [])
    if only_list:
        found = asyncio.run(_listed(issuers, options))
        wanted = [digest_of(kind, text) for kind, text in tokens]
        found = [(issuer, each) for issuer, each in found if not wanted or each.digest in wanted]
    elif len(issuers) > 1:
        raise click.UsageError(
            f"name the --issuer; there are {', '.join(issuer.name for issuer in issuers)}"
        )
    else:
        found = [
            (issuers[0].name, asyncio.run(_revoke(issuers[0], options, tokens[0], before, seconds)))
        ]
    if as_json:
        echo_json([{"issuer": issuer, **_document(each)} for issuer, each in found])
    else:
        for issuer, each in found:
            click.echo(_line(issuer, each))
        if not found:
            click.echo("nothing like that is revoked" if tokens else "nothing is revoked")
    sys.exit(1 if tokens and not found else 0)


async def _listed(issuers: Sequence[Issuer], options: Options) -> list[tuple[str, Revocation]]:
    runtime = Runtime(issuers, options)
    try:
        found = []
        for issuer in issuers:
            try:
                found += [(issuer.name, each) for each in await runtime.revoked(issuer)]
            except RecordError as error:
                raise _refused(issuer, error) from error
        return found
    finally:
        await runtime.close()


async def _revoke(
    issuer: Issuer,
    options: Options,
    tokens: tuple[Kind, str],
    before: float | None,
    seconds: float | None,
) -> Revocation:
    runtime = Runtime([issuer], options)
    try:
        # With another seal key than the workers have, nobody would see what we write. The keys of
        # this issuer show that, and say so; that they cannot be read otherwise is not our business.
        with suppress(JWKSError):
            await runtime.inspect(issuer)
        return await runtime.revoke(issuer, *tokens, before=before, seconds=seconds)
    except RecordError as error:
        raise _refused(issuer, error) from error
    finally:
        await runtime.close()


def _refused(issuer: Issuer, error: RecordError) -> click.ClickException:
    return click.ClickException(
        f"{issuer.name}: what Redis holds is refused: {error}; do the workers have other"
        " KEYCACHE_SEAL_KEYS?"
    )


def _line(issuer: str, revocation: Revocation) -> str:
    until, said = _time(revocation.until), _time(revocation.revoked_at)
    which = f"{revocation.kind} {revocation.digest}"
    if revocation.before is not None:
        which += f" issued until {_time(revocation.before)}"
    return f"{issuer}: {which}: refused since {said}, remembered until {until}"


def _document(revocation: Revocation) -> dict[str, object]:
    return {
        "claim": revocation.kind,
        "digest": revocation.digest,
        "before": revocation.before,
        "revoked_at": revocation.revoked_at,
        "until": revocation.until,
    }


def _time(moment: float) -> str:
    return datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")

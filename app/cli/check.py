"""`keycache check`: would the service work here? Configuration, rules, Redis, issuers, clocks."""

import asyncio
import sys
from typing import NamedTuple, NoReturn

import click

from app.cli.common import config_option, duration, echo_json
from app.cli.rule_words import asks
from app.settings import SETTING_NAMES, Settings
from app.settings.reading import read_file
from keycache.errors import JWKSError, Reason, StoreError, TokenError
from keycache.issuer import Issuer
from keycache.rules import RuleTable
from keycache.runtime import Options, probe, probe_store

OK, WARNING, FAILED = "ok", "warning", "FAILED"
CLOCK_WARNING = 5.0  # seconds; NTP keeps hosts within milliseconds, so this is already a fault
CLOCK_PRECISION = 1.0  # seconds; a Date header says no more


class Finding(NamedTuple):
    """What was looked at, how it is (OK, WARNING or FAILED), and what was seen."""

    subject: str
    status: str
    details: str


@click.command("check")
@config_option
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option(
    "--request",
    metavar="'METHOD PATH'",
    help="Say which rule decides about this request, and nothing else.",
)
def command(*, as_json: bool, request: str | None) -> None:
    """Check the configuration, Redis and every issuer.

    Changes nothing. Exit codes: 0 the service would work (warnings included); 1 some issuer cannot
    be used; 2 the configuration or Redis is wrong. With --request, which asks nobody: 0 a rule
    decides about it, 1 it is refused whoever sends it.
    """
    settings = Settings.load()
    rules = settings.rules()
    if request is not None:
        _say_which_rule(rules, request, as_json=as_json)
    issuers, options = settings.issuers(), settings.options()
    store, *others = asyncio.run(_look(issuers, options))
    names = ", ".join(issuer.name for issuer in issuers)
    findings = [Finding("configuration", OK, f"issuers: {names}")]
    for number, rule in enumerate(rules.rules if rules else (), 1):
        findings.append(Finding(f"rule {number}", OK, f"{rule}: {asks(rule)}"))
    findings += [store, *others]
    if as_json:
        ok = all(finding.status != FAILED for finding in findings)
        echo_json({"ok": ok, "findings": [finding._asdict() for finding in findings]})
    else:
        width = max(len(finding.subject) for finding in findings)
        for subject, status, details in findings:
            click.echo(f"{subject:{width}}  {status:7}  {details}")
    if store.status == FAILED:
        sys.exit(2)
    sys.exit(1 if any(finding.status == FAILED for finding in others) else 0)


def _say_which_rule(rules: RuleTable | None, request: str, *, as_json: bool) -> NoReturn:
    """Print the rule of a request such as `GET /api/reports?page=2`, and end."""
    method, _, target = request.strip().rpartition(" ")
    path = target.partition("?")[0]
    if not path.startswith("/"):
        raise click.BadParameter("write it as 'GET /path'", param_hint="--request")
    sent = f"{method.strip() or 'GET'} {path}"
    decision = _decision(rules, method.strip() or "GET", path)
    if as_json:
        echo_json({"request": sent} | decision)
    elif "refused" in decision:
        click.echo(f"{sent}: refused, {decision['refused']}")
    else:
        click.echo(f"{sent}: rule {decision['rule']} ({decision['where']})" if rules else sent)
        click.echo(f"asks for {decision['asks']}")
    sys.exit(1 if "refused" in decision else 0)


def _decision(rules: RuleTable | None, method: str, path: str) -> dict[str, object]:
    """The number of the rule, its place in the file and what it asks; or why none may decide."""
    if rules is None:
        return {"rule": None, "where": None, "asks": "a good token (there are no rules)"}
    try:
        rule = rules.choose(method, path)
    except TokenError as error:
        return {"refused": error.reason}
    if rule is None:
        return {"refused": Reason.NO_RULE}
    number = rules.rules.index(rule)
    where = read_file(SETTING_NAMES).at(("rules", number)).rstrip(": ")
    return {"rule": number + 1, "where": where, "asks": asks(rule)}


async def _look(issuers: tuple[Issuer, ...], options: Options) -> list[Finding]:
    """The shared cache, then all issuers at once, in their order.

    The shared cache alone, so that nothing else in this process is timed with it.
    """
    store = await _check_store(options)
    return [store, *await asyncio.gather(*(_check_issuer(issuer, options) for issuer in issuers))]


async def _check_store(options: Options) -> Finding:
    if options.redis_url is None:
        return Finding("redis", OK, "none is named: the service starts its own, for one host")
    try:
        found = await probe_store(options)
    except StoreError as error:
        return Finding("redis", FAILED, str(error))
    seen = f"{found.server}, answers in {found.seconds * 1000:.1f} ms"
    if not found.writable:
        return Finding("redis", FAILED, f"{seen}, but refuses writes (a replica, or its ACL?)")
    return Finding("redis", OK, f"{seen}, accepts writes")


async def _check_issuer(issuer: Issuer, options: Options) -> Finding:
    try:
        found = await probe(issuer, options)
    except JWKSError as error:
        return Finding(issuer.name, FAILED, str(error))
    seen = f"{len(found.keys)} keys at {found.jwks_url} in {duration(found.seconds)}"
    status = OK
    if found.skipped:
        skipped = ", ".join(f"{key.kid or '-'} ({key.reason})" for key in found.skipped)
        status, seen = WARNING, f"{seen}; skipped: {skipped}"
    if issuer.jwks_file is not None:
        return Finding(issuer.name, status, seen)
    if found.date_offset is None:
        return Finding(issuer.name, status, f"{seen}; no Date header, so its clock is unknown")
    offset = abs(found.date_offset)
    if offset < CLOCK_PRECISION:
        return Finding(issuer.name, status, f"{seen}; its clock agrees with ours")
    side = "ahead of" if found.date_offset > 0 else "behind"
    seen = f"{seen}; its clock is {duration(offset)} {side} ours"
    if offset > issuer.leeway:
        seen = f"{seen}, more than the leeway of {duration(issuer.leeway)}: good tokens are refused"
        return Finding(issuer.name, FAILED, seen)
    return Finding(issuer.name, WARNING if offset > CLOCK_WARNING else status, seen)

"""What the commands for the shared cache have in common: their settings, and how they print."""

import json
import os
from collections.abc import Iterable

import click

from app.settings import CONFIG, Settings
from keycache.errors import ConfigurationError
from keycache.issuer import Issuer
from keycache.runtime import Options


def _use(_context: click.Context, _parameter: click.Parameter, path: str | None) -> None:
    if path is not None:
        os.environ[CONFIG] = path


config_option = click.option(
    "--config",
    metavar="FILE",
    callback=_use,
    expose_value=False,
    help="A TOML file with settings (or KEYCACHE_CONFIG).",
)
"""For commands that read settings: the same as the variable."""


def issuers_and_options() -> tuple[tuple[Issuer, ...], Options]:
    """The issuers and the options for the Redis that is named.

    Raises ConfigurationError for wrong settings, and when no Redis is named: the embedded one lives
    and dies with the service, so that there is nothing a command could share with it.
    """
    settings = Settings.load()
    options = settings.options()
    if options.redis_url is None:
        raise ConfigurationError(
            ["no Redis is named, so there is nothing shared to look at: set KEYCACHE_REDIS_URL"]
        )
    return settings.issuers(), options


def chosen(issuers: Iterable[Issuer], names: Iterable[str]) -> tuple[Issuer, ...]:
    """The issuers of these names, all when there are no names. Raises click.BadParameter."""
    by_name = {issuer.name: issuer for issuer in issuers}
    unknown = [name for name in names if name not in by_name]
    if unknown:
        raise click.BadParameter(
            f"no issuer is configured as {', '.join(unknown)}; there are {', '.join(by_name)}",
            param_hint="--issuer",
        )
    return tuple(by_name[name] for name in dict.fromkeys(names)) or tuple(by_name.values())


def echo_json(document: object) -> None:
    """Print a document for a program to read."""
    click.echo(json.dumps(document, indent=2, ensure_ascii=True))


def duration(seconds: float) -> str:
    """A duration as a person says it: `0.8 s`, `45 s`, `12 min`, `3.5 h`."""
    if seconds < 10:
        return f"{seconds:.2g} s"
    if seconds < 120:
        return f"{seconds:.0f} s"
    if seconds < 7200:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"

"""`keycache`: lists the commands, imports only the one chosen, and turns errors into exit codes.

Exit codes of every command: 0 all is well; 1 something that was asked for could not be had; 2 the
configuration or the shared cache is wrong (2 is also what click gives for a wrong option).
"""

import importlib
import sys

import click

COMMANDS = {
    "serve": "Run the service: /protected and /verify, with /metrics beside them.",
    "warm": "Load every issuer's keys into Redis, before the workers need them.",
    "keys": "Show the keys that the shared cache holds.",
    "revoke": "Refuse tokens before they expire, on every worker of every host.",
    "check": "Check the configuration, Redis and every issuer.",
    "reload": "Have the running service take its settings anew; say whether it did.",
    "schema": "Print the JSON Schema of the configuration file, for editors.",
    "seal-key": "Print a new key for KEYCACHE_SEAL_KEYS.",
    "demo": "Run the whole service against a local issuer that rotates its keys.",
}
"""What `keycache --help` lists. Kept here, so that listing imports none of them."""


class LazyGroup(click.Group):
    """A group whose commands are `app.cli.<name>:command`, imported when chosen."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names, in the order of the table."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the command chosen; None when there is no such command."""
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f"app.cli.{cmd_name.replace('-', '_')}")
        command: click.Command = module.command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the table; click's own way would import every command for its help."""
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="sanic-keycache", prog_name="keycache")
def keycache() -> None:
    """Verify JSON Web Tokens in many Sanic workers, with signing keys they all share."""


def main() -> None:
    """Run the command line and exit; an operator's mistake is a sentence, never a traceback."""
    try:
        keycache(prog_name="keycache")
    except Exception as error:
        # Imported here, because `keycache seal-key` and `--help` need none of the library.
        errors = importlib.import_module("keycache.errors")
        if not isinstance(error, errors.KeycacheError):
            raise
        if isinstance(error, errors.ConfigurationError):
            problems, code = error.problems, 2
        elif isinstance(error, errors.StoreError):
            problems, code = (f"KEYCACHE_REDIS_URL: that Redis cannot be used: {error}",), 2
        else:
            problems, code = (str(error),), 1
        for problem in problems:
            click.echo(f"keycache: {problem}", err=True)
        sys.exit(code)


if __name__ == "__main__":
    main()

"""`keycache schema`: the JSON Schema of the configuration file, for editors."""

import click

from app.settings.schema import schema_text


@click.command("schema")
def command() -> None:
    """Print the JSON Schema of the file that KEYCACHE_CONFIG names.

    An editor completes and checks such a file when its first line is `#:schema ./NAME`.
    """
    click.echo(schema_text(), nl=False)

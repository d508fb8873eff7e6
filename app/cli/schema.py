"""`keycache schema`: the JSON Schema of the configuration file, for editors."""

import click

from app.settings.schema import schema_text


@click.command("schema")
def command() -> None:
    """Print the JSON Schema of the configuration file, for editors.

    An editor completes and checks the file that KEYCACHE_CONFIG names when the first line of that
    file is `#:schema ./NAME`.
    """
    click.echo(schema_text(), nl=False)

"""`keycache seal-key`: a new key that seals records in the shared cache."""

import base64
import secrets

import click


@click.command("seal-key")
def command() -> None:
    """Print a new key for KEYCACHE_SEAL_KEYS.

    32 random bytes as base64url without padding (43 characters), alone on the last line of standard
    output, so that `KEYCACHE_SEAL_KEYS=$(keycache seal-key)` works. To change the key, put the new
    one first and keep the previous one behind it, separated by a comma, until every host has both.
    """
    click.echo(
        "Give every host the same KEYCACHE_SEAL_KEYS; it is as secret as a password:", err=True
    )
    click.echo(base64.urlsafe_b64encode(secrets.token_bytes(32)).rstrip(b"=").decode())

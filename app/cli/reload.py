"""`keycache reload`: have the running service take its settings anew, and say how that went."""

import json
import socket
import sys
from pathlib import Path

import click

from app.cli.common import config_option
from app.control import REQUEST, default_path
from app.settings import SETTING_NAMES
from app.settings.fields import Fields
from app.settings.reading import read_environment, read_file

FIRST_ANSWER = 30.0
"""Seconds in which a service that lives has read its settings; a reload itself may take longer."""


@click.command("reload")
@config_option
def command() -> None:
    """Have the running service take its settings anew; say whether it did.

    No request is dropped. It asks the service on this host that was started with the same
    KEYCACHE_CONTROL, or else with the same KEYCACHE_ADMIN_PORT, by the same user. Exit codes: 0
    every worker has the new settings; 1 there is no such service, or its new workers could not
    start; 2 it refused the settings, and everything goes on as before.
    """
    path = _path()
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as service:
            service.settimeout(FIRST_ANSWER)
            service.connect(str(path))
            service.sendall(REQUEST)
            sys.exit(_listen(service))
    except OSError as error:
        click.echo(
            f"keycache: no service answers at {path} ({error}); name its socket with"
            " KEYCACHE_CONTROL, ask as the same user, or send its supervisor SIGHUP",
            err=True,
        )
        sys.exit(1)


def _listen(service: socket.socket) -> int:
    """Print what the service says until it is over; the exit code."""
    begun = False
    with service.makefile(encoding="utf-8") as answers:
        for line in answers:
            answer = json.loads(line)
            ok = answer.get("ok")
            for said in answer["said"]:
                click.echo(said if ok is not False else f"keycache: {said}", err=ok is False)
            if ok is not None:
                return 0 if ok else 1 if begun else 2
            begun = begun or bool(answer["said"])
            service.settimeout(None)  # as long as the requests in flight take
    click.echo("keycache: the service ended before the reload did", err=True)
    return 1


def _path() -> Path:
    """Where the service listens. Settings that are wrong otherwise are for the service to judge."""
    file = read_file(SETTING_NAMES)
    values = file.content | read_environment(SETTING_NAMES)
    control = values.get("control")
    if control:
        return (Path(file.path).parent / str(control)).absolute()
    return default_path(int(values.get("admin_port", Fields.model_fields["admin_port"].default)))

"""`keycache serve`: run the service until SIGTERM or Ctrl-C."""

import multiprocessing
import sys

import click

from app.cli.common import config_option
from app.logs import configure_logging
from app.settings import Settings
from app.supervisor import Supervisor
from app.web.entry import work


@click.command("serve")
@config_option
def command() -> None:
    """Run the service: /protected and /verify, with /metrics beside them.

    It needs KEYCACHE_ISSUER and KEYCACHE_AUDIENCE. Exit status: 0 after a clean stop, 1 when
    requests had to be cut or the workers could not start, 2 when the configuration is wrong.
    """
    multiprocessing.current_process().name = "supervisor"
    settings = Settings.load()
    configure_logging(settings.log)
    sys.exit(Supervisor(settings, work, preload=["app.web.api"]).run())

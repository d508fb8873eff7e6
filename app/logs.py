"""How the service logs: plain lines on stderr, times in UTC."""

import logging
import sys
import time


def configure_logging() -> None:
    """Send every log line of this process to stderr, one format for all.

    Sanic's own loggers speak from WARNING on: its lines below that repeat whole URLs, and a
    query string may hold a token that somebody put there by mistake.
    """
    formatter = logging.Formatter(
        "%(asctime)s.%(msecs)03dZ %(levelname)-7s %(processName)s: %(message)s",
        datefmt="%Y-%m-%dT%H:%M:%S",
    )
    formatter.converter = time.gmtime
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(formatter)
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.INFO)
    for name in ("sanic", "httpx", "httpcore"):  # the last two log every URL that they fetch
        logging.getLogger(name).setLevel(logging.WARNING)

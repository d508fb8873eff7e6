"""How the service logs: a line for each thing that happened, on stderr, for people or for machines.

    console  2025-11-21T23:40:00.123Z INFO    worker-0: refused reason=expired status=401 …
    json     {"time": "2025-11-21T23:40:00.123Z", "level": "info", "process": "worker-0",
              "logger": "keycache.refusals", "message": "refused", "reason": "expired", …}

The standard logging module does it: what is logged is rare (an accepted token never is), and every
library that we use already speaks to it. Facts beside the message are given as
`extra={"fields": {...}}`. Nothing that a sender wrote can begin a new line or forge a field.
"""

import json
import logging
import sys
import time
from typing import Literal

Style = Literal["auto", "console", "json"]


def configure_logging(style: Style) -> None:
    """Send every log line of this process to stderr; `auto`: console on a terminal, else json.

    Sanic's own loggers speak from WARNING on: its lines below that repeat whole URLs, and a
    query string may hold a token that somebody put there by mistake.
    """
    console = style == "console" or (style == "auto" and sys.stderr.isatty())
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(ConsoleFormatter() if console else JSONFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.INFO)
    for name in ("sanic", "httpx", "httpcore"):  # the last two log every URL that they fetch
        logging.getLogger(name).setLevel(logging.WARNING)


class ConsoleFormatter(logging.Formatter):
    """A line for a person; only a stack trace, which is ours, has more lines."""

    def format(self, record: logging.LogRecord) -> str:
        """See logging.Formatter."""
        facts = "".join(f" {name}={_readable(value)}" for name, value in _fields(record).items())
        line = (
            f"{_time(record)} {record.levelname:<7} {record.processName}:"
            f" {_one_line(record.getMessage())}{facts}"
        )
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


class JSONFormatter(logging.Formatter):
    """One JSON object a line, in ASCII."""

    def format(self, record: logging.LogRecord) -> str:
        """See logging.Formatter."""
        line = {
            "time": _time(record),
            "level": record.levelname.lower(),
            "process": record.processName,
            "logger": record.name,
            "message": record.getMessage(),
            **_fields(record),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


def _fields(record: logging.LogRecord) -> dict[str, object]:
    fields: dict[str, object] = getattr(record, "fields", {})
    return fields


def _time(record: logging.LogRecord) -> str:
    """RFC 3339, in UTC."""
    seconds = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
    return f"{seconds}.{int(record.msecs):03d}Z"


def _readable(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    text = value if isinstance(value, str) else json.dumps(value, default=str)
    plain = text.isascii() and text.isprintable() and not any(char in text for char in ' "=')
    return text if plain and text else json.dumps(text)


def _one_line(text: str) -> str:
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)

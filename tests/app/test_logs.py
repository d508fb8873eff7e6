"""Log lines: one for each thing, that a person or a program can read, and that nobody can forge."""

import json
import logging
from typing import Any

import pytest

from app.logs import ConsoleFormatter, JSONFormatter


def record(message: str, **fields: object) -> logging.LogRecord:
    made = logging.LogRecord("keycache.test", logging.INFO, "", 0, message, (), None)
    made.created, made.msecs, made.processName = 1_700_000_000.25, 250.0, "worker-0"
    made.fields = fields
    return made


def read(line: str) -> Any:  # noqa: ANN401 - whatever was written
    return json.loads(line)


def test_json_line_has_the_message_and_its_fields() -> None:
    line = JSONFormatter().format(record("refused", reason="expired", status=401))
    assert {
        "time": "2023-11-14T22:13:20.250Z",
        "level": "info",
        "process": "worker-0",
        "logger": "keycache.test",
        "message": "refused",
        "reason": "expired",
        "status": 401,
    } == read(line)


def test_console_line_has_the_message_and_its_fields() -> None:
    line = ConsoleFormatter().format(record("refused", reason="expired", status=401, seconds=0.25))
    assert (
        "2023-11-14T22:13:20.250Z INFO    worker-0: refused reason=expired status=401 seconds=0.25"
        == line
    )


@pytest.mark.parametrize("formatter", [ConsoleFormatter(), JSONFormatter()])
@pytest.mark.parametrize("text", ["a\nb", "a\r\nb", "a\x1b[2Jb", "a\u2028b"])
def test_text_from_outside_cannot_begin_a_line(formatter: logging.Formatter, text: str) -> None:
    line = formatter.format(record(text, details=text))
    assert [line] == line.splitlines()
    assert line.isprintable()


def test_text_from_outside_cannot_forge_a_field() -> None:
    line = ConsoleFormatter().format(record("refused", details="x status=200"))
    assert line.endswith('details="x status=200"')


@pytest.mark.parametrize("formatter", [ConsoleFormatter(), JSONFormatter()])
def test_stack_trace_of_a_bug_is_logged(formatter: logging.Formatter) -> None:
    made = record("failed")
    try:
        raise ValueError("a bug")
    except ValueError as error:
        made.exc_info = (ValueError, error, error.__traceback__)
    assert "ValueError: a bug" in formatter.format(made)

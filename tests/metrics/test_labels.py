"""Labels have values from closed lists."""

import ast
import inspect

import pytest

from keycache.core import record
from metrics import labels


@pytest.mark.parametrize(
    ("code", "label"),
    [
        (0, "none"),
        (200, "200"),
        (201, "other"),
        (304, "304"),
        (301, "3xx"),
        (404, "4xx"),
        (503, "5xx"),
        (599, "5xx"),
        (600, "other"),
        (99, "other"),
    ],
)
def test_status_has_one_of_a_few_labels(code: int, label: str) -> None:
    assert label == labels.status(code)


def test_every_code_of_a_refused_record_is_listed() -> None:
    raised = {
        call.args[0].value
        for call in ast.walk(ast.parse(inspect.getsource(record)))
        if isinstance(call, ast.Call)
        and isinstance(call.func, ast.Name)
        and call.func.id == "RecordError"
        and isinstance(call.args[0], ast.Constant)
    }
    assert set(labels.RECORD_CODES) == raised


def test_value_outside_its_list_becomes_other() -> None:
    assert ["a", "other"] == [labels.known(value, ("a", "b")) for value in ("a", "c")]

"""Labels have values from closed lists."""

import pytest

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


def test_value_outside_its_list_becomes_other() -> None:
    assert ["a", "other"] == [labels.known(value, ("a", "b")) for value in ("a", "c")]

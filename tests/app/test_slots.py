"""When something that ended is started again: a policy without processes or clocks."""

import pytest

from app.slots import QUICK_DEATH, Lives, pause_before_restart


@pytest.mark.parametrize(
    ("deaths", "seconds"),
    [(0, 0), (1, 0), (2, 0.5), (3, 1), (4, 2), (5, 4), (6, 8), (7, 16), (8, 30), (2000, 30)],
)
def test_pauses_grow_up_to_a_limit(deaths: int, seconds: float) -> None:
    assert seconds == pause_before_restart(deaths)


def test_long_life_ends_the_growth_of_pauses() -> None:
    lives = Lives()
    for now in (0.0, 1.0, 2.0):
        lives.started(now)
        lives.ended(now)
    lives.started(10.0)
    assert lives.ended(10.0 + QUICK_DEATH) == 0.0


def test_start_is_due_after_the_pause() -> None:
    lives = Lives()
    for now in (100.0, 101.0):
        lives.started(now)
        lives.ended(now)
    assert lives.start_at == 101.5

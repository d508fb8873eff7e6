"""Histories of the fleet in virtual time: invariants hold, and planted bugs are caught."""

import msgspec
import pytest

from keycache.events import Event
from tests.simulation.histories import play
from tests.simulation.mutants import MUTANTS, Mutant
from tests.simulation.world import Worker, World

HISTORIES = 2000
AT_ONCE = 100
ENOUGH = 150
"""Histories within which every mutant must be caught."""


@pytest.mark.parametrize("first", range(0, HISTORIES, AT_ONCE))
def test_every_invariant_holds_in_thousands_of_histories(first: int) -> None:
    played = map(play, range(first, first + AT_ONCE))
    assert [] == [broken for broken in played if broken]


def test_one_seed_is_one_history(monkeypatch: pytest.MonkeyPatch) -> None:
    histories: list[list[str]] = []
    noted = World.noted

    def record(self: World, worker: Worker, event: Event) -> None:
        fields = event if isinstance(event, tuple) else msgspec.structs.astuple(event)
        facts = [fact for fact in fields if not isinstance(fact, float)]  # not what time it took
        histories[-1].append(f"{self.now():.6f} {worker.name} {type(event).__name__} {facts}")
        noted(self, worker, event)

    monkeypatch.setattr(World, "noted", record)
    for _ in range(2):
        histories.append([])
        assert play(7) is None
    assert len(histories[0]) > 100
    assert histories[0] == histories[1]


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_planted_bug_is_caught(mutant: Mutant) -> None:
    broken = ""
    with mutant.plant():
        for seed in range(ENOUGH):
            broken = play(seed) or ""
            if broken.partition(":")[0] in mutant.caught_by:
                return
    pytest.fail(f"{mutant.what}: not caught in {ENOUGH} histories (last: {broken or 'nothing'})")

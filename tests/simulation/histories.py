"""Histories: one from a seed, or many on all processors."""

import os
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

from tests.simulation.loop import run
from tests.simulation.world import BrokenError, World

MINUTES = 2.0


async def _play(seed: int) -> None:
    await World(seed, minutes=MINUTES).play()


def play(seed: int) -> str | None:
    """Play one history; the invariant that broke, as a sentence, or None."""
    try:
        run(_play(seed))
    except BrokenError as broken:
        return str(broken)
    return None


def play_many(first: int, count: int) -> list[str]:
    """Play `count` histories on all processors; a sentence for each that broke."""
    seeds = range(first, first + count)
    processes = len(os.sched_getaffinity(0))
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        return [broken for broken in pool.map(play, seeds, chunksize=20) if broken]

"""Fuzzes, guided by coverage, until stopped: python -m tests.fuzz token [libFuzzer's options]

    python -m tests.fuzz token -max_total_time=600 new_inputs/ tests/fuzz/corpus/token
    python -m tests.fuzz token crash-1234      tries one input again

An input that breaks the property (see targets.py) ends it and is written to a file crash-...
"""

import sys

import atheris

from tests.fuzz.mutator import mutate

with atheris.instrument_imports(include=["keycache"]):
    from tests.fuzz.targets import TARGETS


def main() -> None:
    """Fuzz the target that is named first."""
    with TARGETS[sys.argv.pop(1)]() as check:
        atheris.Setup(sys.argv, check, custom_mutator=mutate)
        atheris.Fuzz()


main()

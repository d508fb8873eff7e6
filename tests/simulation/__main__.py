"""Play histories from the shell: `python -m tests.simulation [first seed] [how many]`.

Prints every history that breaks an invariant. A seed that failed plays the same again, exactly:
`python -m tests.simulation 4711 1`.
"""

import sys

from tests.simulation.histories import play_many


def main() -> int:
    words = [*sys.argv[1:], *("0", "1000")[len(sys.argv) - 1 :]]
    first, count = int(words[0]), int(words[1])
    broken = play_many(first, count)
    for sentence in broken:
        print(sentence)
    print(f"{count} histories, {len(broken)} broken")
    return 1 if broken else 0


if __name__ == "__main__":
    raise SystemExit(main())

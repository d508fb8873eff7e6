"""The number of CPUs, from the affinity mask and from cgroup v2 files."""

import os
from pathlib import Path

import pytest

from app.cpus import available_cpus

MASK = len(os.sched_getaffinity(0))


def tree(root: Path, **cpu_max: str) -> Path:
    """A cgroup tree `/a/b`, and the file that says we are in it."""
    inner = root / "cgroup" / "a" / "b"
    inner.mkdir(parents=True)
    for place, content in cpu_max.items():
        (inner if place == "b" else inner.parent).joinpath("cpu.max").write_text(content)
    own = root / "own"
    own.write_text("0::/a/b\n")
    return own


QUOTAS = [
    ({"b": "max 100000"}, MASK),
    ({"b": "100000 100000"}, 1),
    ({"b": "10000 100000"}, 1),  # a tenth of a CPU is one worker
    ({"b": "max 100000", "a": "50000 100000"}, 1),  # the parent's quota holds for us
    ({"b": "150000 100000"}, min(2, MASK)),
    ({"b": "6400000 100000"}, MASK),  # more than there are
    ({}, MASK),
]


@pytest.mark.parametrize(("files", "expected"), QUOTAS)
def test_least_quota_on_the_way_to_the_root_counts(
    files: dict[str, str], expected: int, tmp_path: Path
) -> None:
    own = tree(tmp_path, **files)
    assert expected == available_cpus(tmp_path / "cgroup", own)


def test_affinity_mask_alone_counts_without_cgroup_v2(tmp_path: Path) -> None:
    assert available_cpus(tmp_path / "nothing", tmp_path / "nowhere") == MASK

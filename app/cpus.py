"""How many CPUs this process may use: the default number of workers."""

import math
import os
from pathlib import Path

CGROUP_ROOT = Path("/sys/fs/cgroup")
OWN_CGROUP = Path("/proc/self/cgroup")


def available_cpus(cgroup_root: Path = CGROUP_ROOT, own_cgroup: Path = OWN_CGROUP) -> int:
    """The CPUs of this process's affinity mask, or its cgroup v2 quota where that is less.

    At least 1. A quota of one and a half CPUs counts as two, as in the JVM, .NET and Go.
    """
    return max(1, min(len(os.sched_getaffinity(0)), _quota(cgroup_root, own_cgroup)))


def _quota(root: Path, own: Path) -> int:
    """The least `cpu.max` from our cgroup up to the root: every one of them holds for us."""
    directory = root / _own_path(own).lstrip("/")
    quotas = []
    while directory.is_relative_to(root):
        try:
            share, period = (directory / "cpu.max").read_text().split()
        except (OSError, ValueError):
            share, period = "max", "1"  # the root has no such file; nor has cgroup v1
        if share != "max":
            quotas.append(math.ceil(int(share) / int(period)))
        directory = directory.parent
    return min(quotas, default=os.cpu_count() or 1)


def _own_path(own: Path) -> str:
    try:
        lines = own.read_text().splitlines()
    except OSError:
        return ""
    return next((line[3:] for line in lines if line.startswith("0::")), "")

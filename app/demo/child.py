"""Runs `keycache` in a process that ends with the one that started it, however that one ends.

A demo that is killed cannot end its service, and would leave it on its ports. So the kernel is
asked to send SIGTERM, on which the service drains as it always does.
"""

import ctypes
import os
import signal
import sys

from app.cli.main import main

PR_SET_PDEATHSIG = 1  # prctl(2)


def end_with(parent: int) -> None:
    """Have this process sent SIGTERM when `parent`, which started it, ends. Raises OSError."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl")
    if os.getppid() != parent:  # it ended before we could ask
        sys.exit(1)


if __name__ == "__main__":
    end_with(int(sys.argv.pop(1)))
    main()

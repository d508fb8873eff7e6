"""What a service manager is told: ready, reloading, stopping, still alive (sd_notify(3)).

The protocol is one datagram to the socket named by NOTIFY_SOCKET, so it is written here; the wheel
that has it was last released in 2017 and has no types. Without that variable nothing is said.
"""

import os
import socket
import time
from contextlib import suppress


def notify(*states: str) -> None:
    """Send states such as `READY=1`; quiet when nobody has asked for them, or nobody listens."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return
    if address.startswith("@"):  # Linux's abstract names, as sd_notify(3) writes them
        address = "\0" + address[1:]
    with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        sender.settimeout(1)
        sender.sendto("\n".join(states).encode(), address)


def reloading() -> None:
    """Say that a reload has begun; the next `READY=1` ends it."""
    # The time lets Type=notify-reload tell this answer from that to an earlier reload.
    notify("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")


def watchdog_pause() -> float | None:
    """Seconds between two signs of life: half of what WatchdogSec= allows; None: nobody watches."""
    us = str(os.getpid())
    limit = os.environ.get("WATCHDOG_USEC", "")
    if os.environ.get("WATCHDOG_PID", us) != us or not limit.isdecimal() or int(limit) == 0:
        return None
    return int(limit) / 2e6

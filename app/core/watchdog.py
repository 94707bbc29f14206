"""systemd's watchdog (sd_notify(3)): "I am up", then every few seconds "I still am". Without systemd it does nothing."""

import asyncio
import contextlib
import os
import socket
from collections.abc import Callable

SHORTEST = 1.0  # seconds


def notify(state: str) -> bool:
    """Tell systemd one line, as `READY=1`. Whether there was anybody to tell; a supervisor that is gone is none of our troubles."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return False
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as wire, contextlib.suppress(OSError):
        # A leading @ stands for the NUL of Linux' abstract names (unix(7)).
        wire.sendto(state.encode(), "\0" + address[1:] if address[0] == "@" else address)
        return True
    return False


async def keep_watchdog(is_well: Callable[[], bool]) -> None:
    """Report as long as `is_well`; a process that is not, or whose loop hangs, is started again by systemd. Runs until it is cancelled."""
    if not notify("READY=1"):
        return
    every = int(os.environ.get("WATCHDOG_USEC") or 0) / 1e6 / 3  # three times in the time that systemd waits
    while every:
        await asyncio.sleep(max(SHORTEST, every))
        if is_well():
            notify("WATCHDOG=1")

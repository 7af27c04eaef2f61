"""Makes `serve` end in time, even when a thread does not end."""

import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from types import FrameType

GRACE_S = 4  # for running requests; then they are cancelled
LAST_S = 9.0  # for the whole shutdown
STARTING_S = 1.0  # before anything is served: a start cannot be cancelled

logger = logging.getLogger(__name__)

_exiting = threading.Lock()


def end_in_time(last_s: Callable[[], float] = lambda: LAST_S) -> None:
    """Make this process exit at most `last_s` after SIGINT or SIGTERM.

    A thread that computes or waits for a disk cannot be stopped, and would block the end; all
    acknowledged writes are in the store by then. Call it in the main thread, after other signal
    handlers are set.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _timed(signal.getsignal(number), last_s))


def exit_after(seconds: float, code: int = 0) -> None:
    """Exit after this time with this code; only the first call has an effect."""
    if _exiting.acquire(blocking=False):
        threading.Thread(target=_exit, args=(seconds, code), daemon=True).start()


def _timed(
    before: "Callable[[int, FrameType | None], object] | int | None", last_s: Callable[[], float]
) -> "Callable[[int, FrameType | None], object]":
    def handle(number: int, frame: FrameType | None) -> None:
        exit_after(last_s())
        if callable(before):
            before(number, frame)

    return handle


def _exit(seconds: float, code: int) -> None:
    time.sleep(seconds)
    running = [thread.name for thread in threading.enumerate() if not thread.daemon]
    logger.warning("the process ends without waiting for %s", ", ".join(running))
    logging.shutdown()
    sys.stderr.flush()
    os._exit(code)

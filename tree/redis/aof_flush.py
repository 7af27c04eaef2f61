"""Flushes the append-only file of the embedded store to the disk every second.

The server could do that itself (`appendfsync everysec`). But while its flush is under way it keeps
acknowledged writes in memory for up to two seconds, on a busy disk one write in fourteen (Valkey
9.1, 2026-11), and loses them when it is killed then. With `appendfsync no` it hands every write to
the system before it acknowledges it; the flush is done here.
"""

import logging
import os
import time
from contextlib import suppress
from pathlib import Path
from threading import Event, Thread

_EVERY_S = 1.0
_FILES = "appendonlydir/*.incr.aof"

_log = logging.getLogger(__name__)


class AofFlusher:
    """A thread that flushes the files in `folder` until `stop`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._enough = Event()
        self.flushed_at = 0.0
        """All writes acknowledged before this time are on the disk (monotonic clock, seconds)."""
        Thread(target=self._run, name="embedded-store-flush", daemon=True).start()

    def stop(self) -> None:
        """Stop after a flush under way; the server itself flushes when it ends."""
        self._enough.set()

    def _run(self) -> None:
        while not self._enough.wait(_EVERY_S):
            began = time.monotonic()
            try:
                for file in self._folder.glob(_FILES):  # two, while the server rewrites one
                    with suppress(FileNotFoundError):
                        _flush(file)
            except OSError as error:
                _log.error("the disk does not take what the store has written: %s", error)
            else:
                self.flushed_at = began


def _flush(file: Path) -> None:
    descriptor = os.open(file, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

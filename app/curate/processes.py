"""`WorkerProcesses`: processes that compute for this one, and end with it."""

import os
import shutil
import signal
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import Pipe, get_context, parent_process
from multiprocessing.connection import Connection, wait
from pathlib import Path
from threading import Thread

_DEATH_S = 0.1  # a killed process closes its pipe a moment before it is gone


class WorkerProcesses:
    """`width` processes, which start at the first use of `pool`.

    The modules `preload` are imported once for all of them. `nice` lowers their priority. When this
    process is killed, they remove the folder `leftovers` and end.
    """

    def __init__(
        self,
        width: int,
        *,
        preload: Sequence[str] = (),
        nice: int = 0,
        leftovers: Path | None = None,
    ) -> None:
        context = get_context("forkserver")
        context.set_forkserver_preload(list(preload))
        self._theirs, self._ours = Pipe(duplex=False)
        self.pool = ProcessPoolExecutor(
            width, context, initializer=_start, initargs=(self._theirs, nice, leftovers)
        )

    def stop(self) -> None:
        """End the processes at once, in the middle of a task, too."""
        self.pool.shutdown(wait=False, cancel_futures=True)
        self._ours.close()
        self._theirs.close()


# -- in such a process


def _start(held: Connection, nice: int, leftovers: Path | None) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent
    os.nice(nice)
    Thread(target=_end, args=(held, leftovers), daemon=True).start()


def _end(held: Connection, leftovers: Path | None) -> None:
    """End once the parent closes its end of the pipe, through which nothing is sent."""
    parent = parent_process()
    sentinels = [parent.sentinel] if parent else []
    wait([held, *sentinels])
    if leftovers is not None and wait(sentinels, _DEATH_S):
        shutil.rmtree(leftovers, ignore_errors=True)
    os._exit(1)

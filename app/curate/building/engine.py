"""`Engine`: where the tasks of a build run. Here: on the cores of this machine."""

import asyncio
import os
import tempfile
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from functools import lru_cache, partial
from itertools import count
from pathlib import Path
from typing import Generic, Protocol, TypeVar

import joblib

from app.curate.processes import WorkerProcesses
from app.curate.threads import JOBS
from app.jobs import JobFailed
from app.settings import Settings

_IN_PROCESS_BELOW = 5_000  # items; starting workers takes longer than the work
_NICENESS = 10  # requests win the cores
_ATTEMPTS = 3
_PRELOADED = ("app.curate.building.tasks", "sklearn.utils.extmath")

_T = TypeVar("_T")
_T_co = TypeVar("_T_co", covariant=True)


@dataclass(frozen=True, slots=True)
class Shared(Generic[_T_co]):
    """A value that many tasks get; it is sent to each process once."""

    value: _T_co
    reference: object  # is sent to a task in place of the value


class Engine(Protocol):
    """Runs tasks, which are functions of a module without side effects."""

    @property
    def width(self) -> int:
        """How many tasks run at once."""
        ...

    async def share(self, value: _T) -> Shared[_T]:
        """The value, ready for tasks. Use `value` of the result from then on, to free memory."""
        ...

    async def run(self, task: Callable[..., _T], *args: object) -> _T:
        """What `task` returns, or raises. It gets the value of an argument that is `Shared`.

        Raises JobFailed when no worker can run it.
        """
        ...


OpenEngine = Callable[[int], AbstractAsyncContextManager[Engine]]
"""An engine for a catalogue of so many items, stopped when the block is left."""


def engine_for(settings: Settings) -> OpenEngine:
    """How to open the engine of the settings."""
    if settings.build_engine == "ray":
        from app.curate.building.ray_engine import ray_engine

        return lambda _items: ray_engine(settings.ray_address)
    return local(settings.build_processes, folder=settings.builds)


def local(
    processes: int = 0, *, folder: Path | None = None, in_process_below: int = _IN_PROCESS_BELOW
) -> OpenEngine:
    """How to open an engine on the cores of this machine; 0 for one process per core.

    A thread builds a catalogue of fewer items than `in_process_below`. Shared values are files
    below `folder` until the build ends, some 400 B an item.
    """
    return partial(_local, processes, folder, in_process_below)


@asynccontextmanager
async def _local(
    processes: int, folder: Path | None, in_process_below: int, items: int
) -> AsyncIterator[Engine]:
    """Processes of low priority for a large catalogue, a thread for a small one."""
    if items < in_process_below:
        thread = ThreadPoolExecutor(1, thread_name_prefix="build")
        try:
            yield InProcess(thread)
        finally:  # the event loop does not wait for a task that still runs
            thread.shutdown(wait=False, cancel_futures=True)
        return
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="unillmrec-build-", dir=folder) as own:
        engine = Processes(processes or os.cpu_count() or 1, Path(own))
        try:
            yield engine
        finally:
            engine.stop()


class InProcess:
    """See Engine."""

    width = 1

    def __init__(self, thread: Executor) -> None:
        self._thread = thread

    async def share(self, value: _T) -> Shared[_T]:
        """See Engine."""
        return Shared(value, None)

    async def run(self, task: Callable[..., _T], *args: object) -> _T:
        """See Engine."""
        values = [arg.value if isinstance(arg, Shared) else arg for arg in args]
        return await asyncio.get_running_loop().run_in_executor(self._thread, task, *values)


class Processes:
    """See Engine. Shared values lie in files, which every process maps into its memory."""

    def __init__(self, width: int, folder: Path) -> None:
        self.width = width
        self._folder = folder
        self._numbers = count()
        self._processes = self._started()

    async def share(self, value: _T) -> Shared[_T]:
        """See Engine. The arrays of the value are read-only views of the file."""
        file = _File(str(self._folder / str(next(self._numbers))))
        await JOBS.run(joblib.dump, value, file.path)
        view = await JOBS.run(joblib.load, file.path, mmap_mode="r")
        return Shared(view, file)

    async def run(self, task: Callable[..., _T], *args: object) -> _T:
        """See Engine. When a process is killed, new ones start and run the lost tasks again."""
        sent = [arg.reference if isinstance(arg, Shared) else arg for arg in args]
        for _ in range(_ATTEMPTS):
            processes = self._processes
            try:  # in a thread: starting a process waits for its imports
                future = await JOBS.run(processes.pool.submit, _called, task, sent)
                return await asyncio.wrap_future(future)
            except BrokenProcessPool:
                if self._processes is processes:
                    processes.stop()
                    self._processes = self._started()
        raise JobFailed(
            "workers_lost",
            f"the processes of the build were killed {_ATTEMPTS} times, as when memory runs out: "
            "set UNILLMREC_BUILD_PROCESSES to a smaller number",
        )

    def stop(self) -> None:
        """End the processes."""
        self._processes.stop()

    def _started(self) -> WorkerProcesses:
        return WorkerProcesses(
            self.width, preload=_PRELOADED, nice=_NICENESS, leftovers=self._folder
        )


# -- in a worker process


@dataclass(frozen=True, slots=True)
class _File:
    path: str


@lru_cache(maxsize=4)
def _mapped(path: str) -> object:
    return joblib.load(path, mmap_mode="r")


def _called(task: Callable[..., _T], args: list[object]) -> _T:
    return task(*(_mapped(arg.path) if isinstance(arg, _File) else arg for arg in args))

"""`Engine`: where the work of a build is done. Here: the cores of this machine."""

import asyncio
import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from functools import lru_cache, partial
from itertools import count
from multiprocessing import connection, get_context, parent_process
from pathlib import Path
from threading import Thread
from typing import Generic, Protocol, TypeVar

import joblib

from app.jobs import JobFailed
from app.settings import Settings

_IN_PROCESS_BELOW = 5_000  # items; starting workers takes longer than the work
_NICENESS = 10  # requests win the cores
_ATTEMPTS = 3

_T = TypeVar("_T")
_T_co = TypeVar("_T_co", covariant=True)


@dataclass(frozen=True, slots=True)
class Shared(Generic[_T_co]):
    """A value that tasks get without another copy of it on the way."""

    value: _T_co
    ticket: object  # what travels in its place


class Engine(Protocol):
    """Runs tasks, which are functions of a module without side effects."""

    @property
    def width(self) -> int:
        """How many tasks run at once."""
        ...

    async def share(self, value: _T) -> Shared[_T]:
        """Bring a value to where tasks run. From then on use `value` of what is returned."""
        ...

    async def run(self, task: Callable[..., _T], *args: object) -> _T:
        """What `task` returns; where an argument is `Shared`, it gets the value.

        What the task raises is raised here. Raises JobFailed when there is nobody to do it.
        """
        ...


OpenEngine = Callable[[int], AbstractAsyncContextManager[Engine]]
"""An engine for a catalogue of so many items, stopped when the block is left."""


def engine_for(settings: Settings) -> OpenEngine:
    """How to open the engine that the settings name."""
    if settings.build_engine == "ray":
        from app.curate.building.ray_engine import ray_engine

        return lambda _items: ray_engine(settings.ray_address)
    return local(settings.build_processes, folder=settings.builds)


def local(
    processes: int = 0, *, folder: Path | None = None, alone_below: int = _IN_PROCESS_BELOW
) -> OpenEngine:
    """How to open an engine on the cores of this machine; 0 for one process per core.

    A catalogue of fewer items than `alone_below` is left to a thread. What the processes share
    lies below `folder`, some 400 B an item, until the build is done.
    """
    return partial(_local, processes, folder, alone_below)


async def together(work: Iterable[Coroutine[None, None, _T]]) -> list[_T]:
    """What each of them returns, in order; when one fails, the others are cancelled."""
    tasks = [asyncio.create_task(one) for one in work]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@asynccontextmanager
async def _local(
    processes: int, folder: Path | None, alone_below: int, items: int
) -> AsyncIterator[Engine]:
    """Processes of low priority for a large catalogue, a thread for a small one."""
    if items < alone_below:
        with ThreadPoolExecutor(1, thread_name_prefix="build") as thread:
            yield InProcess(thread)
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
        self._pool = self._started()

    async def share(self, value: _T) -> Shared[_T]:
        """See Engine. The arrays of the value are read-only views of the file."""
        file = _File(str(self._folder / str(next(self._numbers))))
        await asyncio.to_thread(joblib.dump, value, file.path)
        view = await asyncio.to_thread(joblib.load, file.path, mmap_mode="r")
        return Shared(view, file)

    async def run(self, task: Callable[..., _T], *args: object) -> _T:
        """See Engine. When a process is killed, the rest begin anew and do its task again."""
        sent = [arg.ticket if isinstance(arg, Shared) else arg for arg in args]
        for _ in range(_ATTEMPTS):
            pool = self._pool
            try:  # in a thread: starting a process waits for its imports
                future = await asyncio.to_thread(pool.submit, _called, task, sent)
                return await asyncio.wrap_future(future)
            except BrokenProcessPool:
                if self._pool is pool:
                    self._pool = self._started()
        raise JobFailed(
            "workers_lost",
            f"the processes of the build were killed {_ATTEMPTS} times, as when memory runs out: "
            "set UNILLMREC_BUILD_PROCESSES to a smaller number",
        )

    def stop(self) -> None:
        """Let go of the processes; each ends with the task that it is at."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _started(self) -> ProcessPoolExecutor:
        context = get_context("forkserver")
        context.set_forkserver_preload(
            ["app.curate.building.work", "sklearn.feature_extraction.text"]
        )
        return ProcessPoolExecutor(
            self.width, context, initializer=_settle_in, initargs=(self._folder,)
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


def _settle_in(folder: Path) -> None:
    os.nice(_NICENESS)
    Thread(target=_end_with_parent, args=(folder,), daemon=True).start()


def _end_with_parent(folder: Path) -> None:
    """When the process that sends the tasks is killed, workers would wait for ever."""
    if parent := parent_process():
        connection.wait([parent.sentinel])
        shutil.rmtree(folder, ignore_errors=True)
        os._exit(1)

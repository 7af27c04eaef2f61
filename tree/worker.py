"""Work in the background: failures are logged, queues are limited, and the end cannot hang.

The only module that makes tasks; elsewhere they are made by `asyncio.TaskGroup`, or here.
"""

import asyncio
import logging
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Collection, Coroutine, Iterable, Iterator
from contextlib import suppress
from typing import Any, Generic, Literal, TypeAlias, TypeVar

from tree.errors import CatalogDeleted, StoreUnavailable, TreeError

_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.1, 30.0  # after a failure; it doubles
_END_S = 1.0  # for cancelled tasks to end
_AGAIN_S = 0.05  # until it is cancelled again: some client libraries swallow a cancellation

_log = logging.getLogger(__name__)

_T = TypeVar("_T")
Work: TypeAlias = Coroutine[Any, Any, _T]


class Closed(StoreUnavailable):
    """The worker is closed, because the process ends or the catalogue is deleted."""

    def __init__(self) -> None:
        super().__init__("this was closed before it was done: retry")


class Background:
    """Tasks that run on their own. Their errors are logged, except those of the types `quiet`."""

    def __init__(
        self, name: str, quiet: type[Exception] | tuple[type[Exception], ...] = ()
    ) -> None:
        self._name = name
        self._quiet = quiet
        self._tasks: set[asyncio.Task[Any]] = set()

    def __len__(self) -> int:
        """How many tasks are running."""
        return sum(not task.done() for task in self._tasks)

    def start(self, work: Work[_T]) -> asyncio.Task[_T]:
        """Begin `work`."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def persist(self, work: Callable[[], Work[None]]) -> asyncio.Task[None]:
        """Begin `work`, and begin it again after a pause whenever it fails."""
        return self.start(_persistent(_Failures(self._name), work))

    async def within(self, seconds: float, work: Work[_T]) -> _T:
        """What `work` returns. Raises TimeoutError when the time is up, whether or not it ends.

        It is cancelled then, again and again: of 60 reads of a silent store one loses its first
        cancellation in Python 3.11's `asyncio.wait_for` (2026-12), and would last 5 s longer.
        """
        task = self.start(work)
        try:
            done, _ = await asyncio.wait([task], timeout=max(0.0, seconds))
        finally:
            if not task.done():
                self.start(_cancelled(task))
        if not done:
            raise TimeoutError
        return task.result()

    async def settled(self) -> None:
        """Wait until no task is running."""
        while tasks := {task for task in self._tasks if not task.done()}:
            await asyncio.wait(tasks)

    async def aclose(self, timeout_s: float = 0.0) -> None:
        """Wait `timeout_s` for running tasks, then cancel them.

        Returns at most a second after that, also when a task ignores its cancellation.
        """
        tasks = {task for task in self._tasks if not task.done()}
        if tasks and timeout_s > 0:
            _, tasks = await asyncio.wait(tasks, timeout=timeout_s)
        deadline = time.monotonic() + _END_S
        while tasks and time.monotonic() < deadline:
            for task in tasks:
                task.cancel()
            _, tasks = await asyncio.wait(tasks, timeout=_AGAIN_S)
        if tasks:
            _log.error("%s does not end and is left running: %s", self._name, tasks)

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        error = None if task.cancelled() else task.exception()
        if error and not isinstance(error, self._quiet):
            _log_failure(self._name, error)


class Worker(Generic[_T]):
    """Works on the items of its queue, in a task that only runs while there are some.

    An item that is put again moves to the end. It leaves the queue before it is worked on: a
    failure is logged, and the item is not tried again. The pauses grow while every item fails.
    """

    def __init__(
        self,
        name: str,
        work: Callable[[list[_T]], Awaitable[None]],
        *,
        most: int,
        full: Literal["drop", "refuse"] = "drop",
        pick: Callable[[Collection[_T]], Iterable[_T]] | None = None,
        window_s: float = 0.0,
    ) -> None:
        """A worker whose queue holds at most `most` items.

        A full queue drops the oldest item or refuses the new one. `pick` chooses the items of one
        call of `work`, by default the oldest one. After the first item the worker waits `window_s`
        for more.
        """
        self._name = name
        self._work = work
        self._most = most
        self._full = full
        self._pick = pick or _oldest
        self._window_s = window_s
        # Not a dict, which steps over every removed entry to find the oldest one.
        self._waiting: OrderedDict[_T, None] = OrderedDict()
        self._tasks = Background(name)
        self._closing = asyncio.Event()

    def __len__(self) -> int:
        """How many items are in the queue."""
        return len(self._waiting)

    def __iter__(self) -> Iterator[_T]:
        """The items in the queue, the oldest first."""
        return iter(self._waiting)

    @property
    def closing(self) -> bool:
        """Whether it is closing, so that nothing more is accepted."""
        return self._closing.is_set()

    def put(self, items: Iterable[_T]) -> bool:
        """Add items to the queue; False if some of them are refused."""
        for item in items:
            if self.closing or (self._full == "refuse" and len(self) >= self._most):
                return False
            self._waiting.pop(item, None)
            self._waiting[item] = None
            if len(self) > self._most:
                del self._waiting[next(iter(self._waiting))]
        if self._waiting and not len(self._tasks):
            self._tasks.start(self._run())
        return True

    def take(self, items: Iterable[_T]) -> list[_T]:
        """Remove `items` from the queue; returns those that were in it."""
        taken = [item for item in items if item in self._waiting]
        for item in taken:
            self._waiting.pop(item, None)
        return taken

    def clear(self) -> list[_T]:
        """Empty the queue; returns what was in it."""
        return self.take(list(self._waiting))

    async def rest(self, seconds: float) -> None:
        """Sleep, but no longer than until the worker is closed."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._closing.wait()

    async def settled(self) -> None:
        """Wait until the queue is empty and nothing is worked on."""
        await self._tasks.settled()

    async def aclose(self, timeout_s: float = 0.0) -> list[_T]:
        """Accept nothing more, and work on the queue for `timeout_s`: see Background.

        Returns the items that are left.
        """
        self._closing.set()
        await self._tasks.aclose(timeout_s)
        return self.clear()

    async def _run(self) -> None:
        failures = _Failures(self._name)
        await self.rest(self._window_s)
        while self._waiting:
            taken = self.take(list(self._pick(self._waiting)))
            if error := await _failure(self._work(taken)):
                await self.rest(failures.pause_s(error))
            else:
                failures.over()


class SingleFlight(Generic[_T]):
    """One computation for all callers that want its result while it runs, or within `fresh_s`.

    Waiting callers get its error. Without callers it is logged, except for the types `quiet`.
    """

    def __init__(
        self,
        name: str,
        work: Callable[[], Work[_T]],
        quiet: type[Exception] = TreeError,
        fresh_s: float = 0.0,
    ) -> None:
        self._work = work
        self._fresh_s = fresh_s
        self._began = float("-inf")
        self._tasks = Background(name, quiet)
        self._last: asyncio.Task[_T] | None = None

    def begin(self, *, anew: bool = True) -> asyncio.Task[_T]:
        """The running task, or a new one; a finished one may be returned unless `anew`.

        Do not await it directly, as a cancelled caller would cancel it for all: see `result_of`.
        """
        is_old = time.monotonic() - self._began >= self._fresh_s
        if self._last is None or (anew and is_old and self._last.done()):
            self._began = time.monotonic()
            self._last = self._tasks.start(self._work())
        return self._last

    async def aclose(self) -> None:
        """Cancel the running task; see Background."""
        await self._tasks.aclose()


async def result_of(task: asyncio.Task[_T], timeout_s: float | None = None) -> _T:
    """The result of a task that others wait for, too.

    Raises TimeoutError, while the task continues, and Closed when it has been cancelled.
    """
    done, _ = await asyncio.wait([task], timeout=timeout_s)
    if not done:
        raise TimeoutError
    if task.cancelled():
        raise Closed
    return task.result()


async def together(work: Iterable[Work[_T]]) -> list[_T]:
    """The results, in order. The first error cancels the others, and is raised."""
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(one) for one in work]
    except BaseExceptionGroup as errors:
        raise errors.exceptions[0] from None
    return [task.result() for task in tasks]


async def undivided(work: Work[_T], unwanted: Callable[[_T], None] = lambda _: None) -> _T:
    """The result of `work`, which a cancellation of the caller does not interrupt.

    The caller is cancelled when it has ended; `unwanted` gets the result then.
    """
    task = asyncio.create_task(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        while not task.done():
            with suppress(asyncio.CancelledError):
                await asyncio.wait([task])
        if not task.cancelled() and not task.exception():
            unwanted(task.result())
        raise


async def _cancelled(task: "asyncio.Task[Any]") -> None:
    """Cancel a task until it has ended."""
    while not task.done():
        task.cancel()
        await asyncio.wait([task], timeout=_AGAIN_S)


class _Failures:
    """Repeated failures: each message is logged once, and the pauses grow."""

    def __init__(self, name: str) -> None:
        self._name = name
        self.over()

    def over(self) -> None:
        """Begin again, after a success."""
        self._pause_s = 0.0
        self._logged = ""

    def pause_s(self, error: BaseException) -> float:
        """How long to wait after one more failure."""
        self._pause_s = min(max(2 * self._pause_s, _FIRST_PAUSE_S), _LONGEST_PAUSE_S)
        if (message := f"{type(error).__name__}: {error}") != self._logged:
            self._logged = message
            _log_failure(self._name, error)
        return self._pause_s


async def _failure(work: Awaitable[None]) -> BaseException | None:
    """The error of `work`, or None; a cancellation that was not meant for this task is one."""
    try:
        await work
    except asyncio.CancelledError as error:
        if (task := asyncio.current_task()) and task.cancelling():
            raise
        return error
    except Exception as error:  # noqa: BLE001 - the caller logs it
        return error
    return None


async def _persistent(failures: _Failures, work: Callable[[], Work[None]]) -> None:
    began = time.monotonic()
    while error := await _failure(work()):
        if time.monotonic() - began > _LONGEST_PAUSE_S:
            failures.over()
        await asyncio.sleep(failures.pause_s(error))
        began = time.monotonic()


def _oldest(waiting: Collection[_T]) -> Iterable[_T]:
    return (next(iter(waiting)),)


def _log_failure(name: str, error: BaseException) -> None:
    """Log outages of other services in one line, and our own mistakes with a traceback."""
    if isinstance(error, CatalogDeleted):
        _log.debug("%s: %s", name, error)  # nothing is left to do
    elif isinstance(error, TreeError):
        _log.warning("%s: %s", name, error)
    else:
        _log.error("%s failed", name, exc_info=error)

"""`CommitQueue`: changes that arrive together share a commit."""

import asyncio
from collections import deque
from collections.abc import (
    Awaitable,
    Callable,
    Collection,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
    Set,
)
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Generic, TypeVar

from app.curate.writes.sizes import SMALL_ITEMS
from tree.errors import StoreUnreachable
from tree.worker import Closed, Worker

_MOST_WAITING = 20_000  # items; more are refused, so that memory is bounded
# To follow an item in a commit of 2,000 takes three quarters of what it takes in one of 1,000
# (2026-11, 100k items).
_SHARED_ITEMS = 2_000

_T = TypeVar("_T")


class TooManyWrites(Exception):
    """More arrives than can be written: try again in a moment."""


@dataclass(frozen=True, slots=True, eq=False)
class _QueuedChange(Generic[_T]):
    change: _T
    ids: Set[str]  # of the items that it changes
    done: asyncio.Future[dict[str, bool]]


class CommitQueue(Generic[_T]):
    """Groups changes into commits, and tells each caller the result of its own change.

    `commit` gets changes that have no item in common, and returns one result per item. Changes of
    the same item are committed in the order in which they came. Memory is bounded.
    """

    def __init__(
        self, commit: Callable[[Sequence[_T]], Awaitable[Mapping[str, bool]]], window_s: float
    ) -> None:
        """The first change after a pause waits `window_s` for others to share its commit."""
        self._commit = commit
        self._worker = Worker[_QueuedChange[_T]](
            "writes", self._work,
            most=_MOST_WAITING, full="refuse", pick=self._next_group, window_s=window_s,
        )  # fmt: skip
        self._small_went_first = False  # in the last group, while older changes wait
        self._announced = 0

    @property
    def announced(self) -> int:
        """How many items are being prepared: their changes arrive soon."""
        return self._announced

    @contextmanager
    def announce(self, items: int) -> Iterator[None]:
        """Count items as waiting while they are prepared. Raises TooManyWrites."""
        waiting = self._announced + sum(len(entry.ids) for entry in self._worker)
        if waiting > _MOST_WAITING:
            raise TooManyWrites(f"{waiting:,} items wait to be written: send more slowly")
        self._announced += items
        try:
            yield
        finally:
            self._announced -= items

    async def add(self, change: _T, ids: Set[str]) -> dict[str, bool]:
        """The result for each of `ids`, once the change is committed.

        A cancelled caller does not stop the change. Raises TooManyWrites, Closed, and what
        `commit` raises for this change.
        """
        return await asyncio.shield(self.submit(change, ids))

    def submit(self, change: _T, ids: Set[str]) -> asyncio.Future[dict[str, bool]]:
        """See `add`; for callers that need no result."""
        if self._worker.closing:
            raise Closed
        entry = _QueuedChange(change, ids, asyncio.get_running_loop().create_future())
        if not self._worker.put([entry]):
            raise TooManyWrites(f"{len(self._worker):,} writes wait: send more slowly")
        return entry.done

    async def aclose(self, timeout_s: float) -> None:
        """Commit what waits, as far as `timeout_s` allows. The rest fails with Closed."""
        _fail(await self._worker.aclose(timeout_s), Closed())

    def _next_group(self, waiting: Collection[_QueuedChange[_T]]) -> list[_QueuedChange[_T]]:
        """The oldest changes that fit one commit and have no item in common.

        Every other time small changes go first, except those of an item that an older one changes.
        """
        older: set[str] = set()
        small: list[_QueuedChange[_T]] = []
        for entry in waiting:
            if len(entry.ids) <= SMALL_ITEMS and not older & entry.ids:
                small.append(entry)
            older |= entry.ids
        group: list[_QueuedChange[_T]] = []
        ids: set[str] = set()
        small_first = bool(small) and not self._small_went_first
        for entry in small if small_first else waiting:
            if group and (len(ids) + len(entry.ids) > _SHARED_ITEMS or ids & entry.ids):
                break
            group.append(entry)
            ids |= entry.ids
        self._small_went_first = small_first and len(group) < len(waiting)
        return group

    async def _work(self, group: Sequence[_QueuedChange[_T]]) -> None:
        """Commit a group. Where that fails each change is tried alone: others must not suffer."""
        tries: deque[Sequence[_QueuedChange[_T]]] = deque([group])
        while tries:
            entries = tries.popleft()
            try:
                done = await self._commit([entry.change for entry in entries])
            except (StoreUnreachable, asyncio.CancelledError) as error:
                # The others would each wait as long, one after the other.
                others = [*(entry for more in tries for entry in more), *self._worker.clear()]
                lost = error if isinstance(error, StoreUnreachable) else Closed()
                _fail([*entries, *others], lost)
                if not isinstance(error, StoreUnreachable):
                    raise
                return
            except Exception as error:  # noqa: BLE001 - belongs to the caller who waits
                if len(entries) > 1:
                    tries.extend([entry] for entry in entries)
                else:
                    _fail(entries, error)
            else:
                for entry in entries:
                    if not entry.done.done():
                        ids = entry.ids & done.keys()
                        entry.done.set_result({item: done[item] for item in ids})


def _fail(entries: Iterable[_QueuedChange[_T]], error: Exception) -> None:
    for entry in entries:
        if not entry.done.done():
            entry.done.set_exception(error)
            entry.done.exception()  # retrieved here, for callers that no longer wait

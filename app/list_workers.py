"""`WorkerAnswers`: the lists of a run are made by tasks of an engine, on other machines, too."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from threading import Thread

from pydantic import JsonValue

from app.composition import services
from app.curate.building.engine import Engine
from app.lists import AnsweredPart, OwnAnswers, RequestLines, RunLimits
from app.settings import Settings
from tree.errors import StoreUnavailable

_AHEAD = 2  # parts for each worker: none waits until the list before its own is written


@dataclass(frozen=True, slots=True)
class WorkerOrder:
    """What a worker needs to make lists: sent with every task, passwords in the settings included.

    `request` has the fields that each request starts with. Raises StoreUnavailable for a store that
    only this machine can reach.
    """

    settings: Settings
    catalog: str
    request: Mapping[str, JsonValue]

    def __post_init__(self) -> None:
        if self.settings.redis_url is None:
            raise StoreUnavailable(
                "workers on other machines cannot reach the store in the data folder: set "
                "UNILLMREC_REDIS_URL to a store that all of them reach"
            )


class WorkerAnswers:
    """See ListAnswers. Lists are made by tasks, whose processes read the store themselves."""

    def __init__(self, engine: Engine, order: WorkerOrder) -> None:
        """The tasks run on `engine`."""
        self.request = order.request
        self.width = _AHEAD * engine.width
        self._engine = engine
        self._order = order

    async def answer(self, lines: RequestLines, limits: RunLimits) -> AnsweredPart:
        """See ListAnswers. What a lost worker had is answered by another one.

        A maximum in `limits` is ignored, as no worker knows what the others spend. Raises
        JobFailed, StoreUnavailable.
        """
        answered, cost_usd = await self._engine.run(answer_lines, self._order, lines)
        limits.spent_usd += cost_usd
        return answered


@asynccontextmanager
async def opened_answers(order: WorkerOrder) -> AsyncIterator[OwnAnswers]:
    """The lists of a process of its own, over the store of `order`. Raises StoreUnavailable."""
    async with services(order.settings, create=False) as parts:
        found = await parts.catalogs.get(order.catalog)
        yield OwnAnswers(found.recommender, order.request)


# -- in a worker process

_workers: list["_Worker"] = []  # one for each order, so for each run


def answer_lines(order: WorkerOrder, lines: RequestLines) -> tuple[AnsweredPart, float]:
    """The lists of some requests, and what they cost in dollars.

    The first call in a process opens the service, which stays open until the process ends.
    """
    worker = next((one for one in _workers if one.order == order), None)
    if worker is None:
        worker = _Worker(order)
        _workers.append(worker)
    return worker.answer(lines)


def close_workers() -> None:
    """Close the service in this process, which the next task opens again."""
    while _workers:
        _workers.pop().close()


class _Worker:
    """The service, in a thread whose event loop keeps the catalogue up to date between tasks."""

    def __init__(self, order: WorkerOrder) -> None:
        self.order = order
        self._context = opened_answers(order)
        self._loop = asyncio.new_event_loop()
        self._thread = Thread(target=self._loop.run_forever, name="lists", daemon=True)
        self._thread.start()
        opening = asyncio.run_coroutine_threadsafe(self._context.__aenter__(), self._loop)
        try:
            self._answers = opening.result()
        except BaseException:
            self._stop()
            raise

    def answer(self, lines: RequestLines) -> tuple[AnsweredPart, float]:
        limits = RunLimits()
        work = self._answers.answer(lines, limits)
        answered = asyncio.run_coroutine_threadsafe(work, self._loop).result()
        return answered, limits.spent_usd

    def close(self) -> None:
        leaving = self._context.__aexit__(None, None, None)
        asyncio.run_coroutine_threadsafe(leaving, self._loop).result()
        self._stop()

    def _stop(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

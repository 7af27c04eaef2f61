"""`EmbedderStore`: what embedders keep in the store, for the threads that they run in."""

import asyncio
import logging
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, TypeVar

from app.storage.documents import Documents
from app.storage.vectors import RedisVectors
from app.throttled_log import ThrottledLog
from tree.errors import TreeError

T = TypeVar("T")

VECTOR_TTL_S = 7_776_000  # 90 days
_STORE_S = 5.0  # for a thread to wait for the store

_outages = ThrottledLog(logging.getLogger(__name__))


@dataclass(frozen=True, slots=True)
class EmbedderStore:
    """The parts of the store that embedders use, and the event loop that they belong to."""

    loop: asyncio.AbstractEventLoop
    documents: Documents  # with what was learned about endpoints
    vectors: Callable[[str], RedisVectors]  # of a catalogue, by its id
    vector_ttl_s: int = VECTOR_TTL_S  # 0: vectors are not kept

    def wait(self, work: Coroutine[Any, Any, T]) -> T | None:
        """The result of `work`, for a thread; None where the store gives none in time.

        An outage of the store costs calls to a model and nothing else. On an event loop, which
        must not wait, nothing is done.
        """
        if self.loop.is_closed() or _on_event_loop():
            work.close()
            return None
        future = asyncio.run_coroutine_threadsafe(work, self.loop)
        try:
            return future.result(_STORE_S)
        except TimeoutError:
            future.cancel()
            _outages.warning("embedders keep nothing: %s", TimeoutError("the store is too slow"))
        except TreeError as error:
            _outages.warning("embedders keep nothing: %s", error)
        return None


def _on_event_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True

"""`BatchEncoder`: encodes large batches of texts in a process of its own."""

import asyncio
import logging
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress

from app.curate.processes import WorkerProcesses
from app.embedders import (
    Embedder,
    EmbedderCache,
    EmbeddingAccount,
    LexicalEmbedder,
    base_of,
    embedder_for,
)
from tree.node import Space
from tree.passage import Text
from tree.vectors import Int8Matrix
from tree.worker import Background

_LARGE = 256  # texts; a smaller batch is encoded in a thread
_SPACES = 4
_ITEM_TIMEOUT_S, _BATCH_TIMEOUT_S = 10.0, 30.0  # for writes whose texts a remote embedder encodes
_BATCHES_WITHOUT_TIMEOUT = 2  # at a time; the other threads are for writes that a client waits for

_log = logging.getLogger(__name__)


class BatchEncoder:
    """Encodes the texts of writes, and leaves the interpreter of this process to requests.

    The other process starts with the first large batch. A thread encodes until that process is
    ready, and after it is lost. Remote embedders are only asked from this process, which has
    their keys.
    """

    def __init__(self, embedders: EmbedderCache) -> None:
        self._embedders = embedders
        self._processes: WorkerProcesses | None = None
        self._starting: asyncio.Task[None] | None = None
        self._tasks = Background("starting the process that encodes texts")
        self._without_timeout = asyncio.Semaphore(_BATCHES_WITHOUT_TIMEOUT)

    async def encode_batch(
        self, space: Space, texts: Sequence[Text], timeout_s: float | None = None
    ) -> Int8Matrix:
        """The vectors of many texts: see Embedder. A local embedder ignores `timeout_s`."""
        is_local = self.is_local(space)
        if is_local and len(texts) >= _LARGE and self._ready():
            try:
                return await self._in_other_process(space, list(texts))
            except BrokenProcessPool:
                _log.warning("the process that encodes texts was lost; another one is started")
                await self.aclose()
        if is_local or timeout_s is not None:
            return await self._embedders.encode_batch(space, texts, timeout_s)
        async with self._without_timeout:
            return await self._embedders.encode_batch(space, texts)

    async def encode_interactive(self, space: Space, texts: Sequence[Text]) -> Int8Matrix:
        """The vectors of a few texts of a write that a client waits for. See EmbedderCache."""
        return await self._embedders.encode_interactive(space, texts, _ITEM_TIMEOUT_S, writing=True)

    def account(self, catalog_id: str) -> EmbeddingAccount:
        """See EmbedderCache."""
        return self._embedders.account(catalog_id)

    def is_fast(self, space: Space) -> bool:
        """See Embedder."""
        return self._embedders.of(space).is_fast

    def is_local(self, space: Space) -> bool:
        """See EmbedderKind."""
        return self._embedders.is_local(base_of(space).embedder)

    def batch_timeout_s(self, space: Space) -> float | None:
        """How long a batch may take that a client waits for; None, no limit, when it is local."""
        return None if self.is_local(space) else _BATCH_TIMEOUT_S

    async def aclose(self) -> None:
        """End the other process."""
        processes, self._processes, self._starting = self._processes, None, None
        await self._tasks.aclose()
        if processes is not None:
            processes.stop()

    def _ready(self) -> bool:
        if self._processes is None:
            self._processes = WorkerProcesses(1)
            self._starting = self._tasks.start(self._started(self._processes.pool))
        return self._starting is not None and self._starting.done()

    async def _started(self, pool: ProcessPoolExecutor) -> None:
        with suppress(BrokenProcessPool):  # the first batch finds out
            await asyncio.get_running_loop().run_in_executor(pool, _warm)

    async def _in_other_process(self, space: Space, texts: list[Text]) -> Int8Matrix:
        """The space, megabytes large, is sent only when the other process does not have it."""
        if self._processes is None:
            raise BrokenProcessPool("it has been closed")
        run, pool = asyncio.get_running_loop().run_in_executor, self._processes.pool
        rows = await run(pool, _encode, space.fingerprint, None, texts)
        if rows is None:
            rows = await run(pool, _encode, space.fingerprint, space, texts)
        assert rows is not None
        return rows


# -- in the other process

_known: dict[str, Embedder] = {}  # by the fingerprint of its space; the newest four


def _encode(fingerprint: str, space: Space | None, texts: list[Text]) -> Int8Matrix | None:
    """The vectors; None when this process does not have the space, and none is given."""
    if space is not None:
        _known[fingerprint] = embedder_for(space)
        while len(_known) > _SPACES:
            del _known[next(iter(_known))]
    embedder = _known.get(fingerprint)
    return None if embedder is None else embedder.encode(texts)


def _warm() -> None:
    LexicalEmbedder().encode(["warm"])

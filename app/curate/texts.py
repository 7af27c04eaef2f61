"""`TextReader`: the vectors of large batches of texts, made in a process of its own."""

import asyncio
import ctypes
import logging
import os
import signal
import sys
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from multiprocessing import get_context

from tree.embedders import Embedder, EmbedderCache, LexicalEmbedder, embedder_for
from tree.node import Space
from tree.vectors import Int8Matrix

_WORTH = 256  # texts; fewer are read in a thread
_SPACES = 4
_PATIENCE_S, _PATIENCE_FOR_MANY_S = 10.0, 30.0  # of whoever writes an item, or a batch
_UNHURRIED = 2  # batches that nobody waits for; the other threads are for those who do
_PR_SET_PDEATHSIG = 1

_log = logging.getLogger(__name__)


class TextReader:
    """Embeds texts without holding up this process, whose interpreter serves readers.

    The other process starts with the first large batch; until it is there, and when it is lost, a
    thread does the work. It never has an embedder that needs access: keys stay in this process.
    """

    def __init__(self, embedders: EmbedderCache) -> None:
        self._embedders = embedders
        self._pool: ProcessPoolExecutor | None = None
        self._starting: asyncio.Task[None] | None = None
        self._unhurried = asyncio.Semaphore(_UNHURRIED)

    async def encode(
        self, space: Space, texts: Sequence[str], timeout_s: float | None = None
    ) -> Int8Matrix:
        """Many texts, however long that takes unless `timeout_s`. See Embedder."""
        anywhere = self.anywhere(space)
        if anywhere and len(texts) >= _WORTH and self._ready():
            try:
                return await self._elsewhere(space, list(texts))
            except BrokenProcessPool:
                _log.warning("the process that reads texts was lost; another one is started")
                await self.aclose()
        if anywhere or timeout_s is not None:
            return await self._embedders.patiently(space, texts, timeout_s)
        async with self._unhurried:
            return await self._embedders.patiently(space, texts)

    async def soon(self, space: Space, texts: Sequence[str]) -> Int8Matrix:
        """A few texts that somebody waits for. See EmbedderCache."""
        return await self._embedders.soon(space, texts, _PATIENCE_S, writing=True)

    def quick(self, space: Space) -> bool:
        """Whether a few texts are embedded in no time: see Embedder."""
        return self._embedders.of(space).quick

    def anywhere(self, space: Space) -> bool:
        """Whether the vectors are computed on this machine, not asked of elsewhere."""
        return self._embedders.anywhere(space.embedder)

    def patience_s(self, space: Space) -> float | None:
        """How long a batch may take that others wait for to write: what is computed, any time."""
        return None if self.anywhere(space) else _PATIENCE_FOR_MANY_S

    async def aclose(self) -> None:
        """Let the other process end."""
        pool, self._pool, self._starting = self._pool, None, None
        if pool is not None:
            await asyncio.to_thread(pool.shutdown, cancel_futures=True)

    def _ready(self) -> bool:
        if self._pool is None:
            self._pool = ProcessPoolExecutor(
                1, mp_context=get_context("forkserver"), initializer=_tied
            )
            self._starting = asyncio.create_task(self._started(self._pool))
        return self._starting is not None and self._starting.done()

    async def _started(self, pool: ProcessPoolExecutor) -> None:
        with suppress(BrokenProcessPool):  # the first batch finds out
            await asyncio.get_running_loop().run_in_executor(pool, _warm)

    async def _elsewhere(self, space: Space, texts: list[str]) -> Int8Matrix:
        """The space goes along only when the other process does not have it: it takes megabytes."""
        run, pool = asyncio.get_running_loop().run_in_executor, self._pool
        rows = await run(pool, _encode, space.fingerprint, None, texts)
        if rows is None:
            rows = await run(pool, _encode, space.fingerprint, space, texts)
        assert rows is not None
        return rows


# -- in the other process

_known: dict[str, Embedder] = {}  # by the fingerprint of its space; the newest few


def _encode(fingerprint: str, space: Space | None, texts: list[str]) -> Int8Matrix | None:
    """None when the space is needed, too."""
    if space is not None:
        _known[fingerprint] = embedder_for(space)
        while len(_known) > _SPACES:
            del _known[next(iter(_known))]
    embedder = _known.get(fingerprint)
    return None if embedder is None else embedder.encode(texts)


def _warm() -> None:
    LexicalEmbedder().encode(["warm"])


def _tied() -> None:
    """It ends with whoever started it, however that ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if sys.platform == "linux":
        parent = os.getppid()
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)

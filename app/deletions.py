"""`Deletions`: delete catalogues with all their keys and jobs; any process can finish one."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from functools import partial

from app.jobs import Jobs
from app.registry import Deletion, Registry, UnknownCatalog
from app.storage.leases import Leases
from tree.errors import StoreUnavailable
from tree.worker import Background

logger = logging.getLogger(__name__)

_STOP_S = 15.0  # how long a deletion waits for jobs; their writes are refused in any case
_POLL_S = 0.1
_LEASE_S = 5.0  # after this, another process may finish a deletion
_DEFERRED_S = 60.0  # after this, another process may begin a deletion that was deferred


class Deletions:
    """The deletions that this process runs, and those that other processes left unfinished.

    `drop` removes the keys of a catalogue; `begun` is called first for every deletion.
    """

    def __init__(
        self,
        registry: Registry,
        jobs: Jobs,
        drop: Callable[[str], Awaitable[None]],
        begun: Callable[[Deletion], None],
    ) -> None:
        self._registry = registry
        self._leases = Leases(registry.documents)
        self._jobs = jobs
        self._drop = drop
        self._begun = begun
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._background = Background("deleting a catalogue", quiet=UnknownCatalog)

    async def delete(self, name: str) -> None:
        """Delete a catalogue, or wait for its deletion in progress; returns when all is gone.

        Continues when the caller is cancelled. Raises UnknownCatalog.
        """
        await asyncio.shield(self._background.start(self._delete(name)))

    async def finish(self, deletion: Deletion) -> None:
        """Finish a deletion whose record is marked already."""
        await asyncio.shield(self._task(deletion))

    async def finish_orphans(self) -> None:
        """Begin to finish the deletions whose process has died."""
        for deletion in await self._registry.unfinished():
            if await self._leases.holder(_lease(deletion)) is None:
                logger.warning("the deletion of catalogue %s is finished here", deletion.name)
                self._task(deletion)

    @asynccontextmanager
    async def deferred(self, deletion: Deletion) -> AsyncIterator[None]:
        """While the block runs, no process begins this deletion."""
        alive = Background(f"deferring the deletion of {deletion.name}")
        alive.persist(partial(self._defer, deletion))
        try:
            yield
        finally:
            await alive.aclose()

    async def aclose(self) -> None:
        """Stop; another process or the next start finishes deletions in progress."""
        await self._background.aclose()

    async def _delete(self, name: str) -> None:
        await self.finish(await self._registry.mark_deleted(name))

    def _task(self, deletion: Deletion) -> asyncio.Task[None]:
        task = self._tasks.get(deletion.name)
        if task is None:
            task = self._tasks[deletion.name] = self._background.start(self._run(deletion))
        return task

    async def _run(self, deletion: Deletion) -> None:
        try:
            await self._finish(deletion)
        finally:
            self._tasks.pop(deletion.name, None)

    async def _finish(self, deletion: Deletion) -> None:
        self._begun(deletion)
        with suppress(StoreUnavailable):  # a full store refuses these writes, but not the deletion
            await self._leases.seize(_lease(deletion), "", _LEASE_S)
            await self._cancel_jobs(deletion)
        for catalog_id in deletion.ids:
            await self._drop(catalog_id)
        with suppress(StoreUnavailable):
            await self._wait_for_jobs(deletion)
        await self._registry.remove(deletion)
        logger.info("catalogue %s is deleted", deletion.name)

    async def _defer(self, deletion: Deletion) -> None:
        while True:
            await self._leases.seize(_lease(deletion), "", _DEFERRED_S)
            await asyncio.sleep(_DEFERRED_S / 10)

    async def _cancel_jobs(self, deletion: Deletion) -> int:
        """Cancel the jobs of the catalogue; how many had not ended."""
        jobs = [job for job in await self._jobs.list() if job.catalog_id in deletion.ids]
        open_ = [job.id for job in jobs if not job.ended]
        for job_id in open_:
            await self._jobs.cancel(job_id)
        return len(open_)

    async def _wait_for_jobs(self, deletion: Deletion) -> None:
        deadline = time.monotonic() + _STOP_S
        while await self._cancel_jobs(deletion) and time.monotonic() < deadline:  # noqa: ASYNC110 - the store has no event for it
            await asyncio.sleep(_POLL_S)


def _lease(deletion: Deletion) -> str:
    return f"deletion:{deletion.name}"

"""`JobStore`: jobs as documents of the store, and requests to cancel them."""

import asyncio
import logging
from collections.abc import AsyncIterator

from pydantic import ValidationError

from app.jobs.job import Job
from app.storage.documents import Documents

logger = logging.getLogger(__name__)

_CANCEL_TTL_S = 3_600.0
_BYTES_AT_ONCE = 262_144  # parsing this many bytes of jobs takes about 5 ms


class JobStore:
    """The jobs of all processes. Every method raises StoreUnavailable."""

    def __init__(self, documents: Documents, ttl_s: float) -> None:
        self._documents = documents
        self._ttl_s = ttl_s

    async def read(self, job_id: str) -> Job | None:
        """The job as it is stored; None when it is missing or cannot be read."""
        data = await self._documents.get("job", job_id)
        return None if data is None else _parsed(job_id, data)

    async def save(self, job: Job) -> Job:
        """Store the job; the job with its next revision."""
        job = job.model_copy(update={"revision": job.revision + 1})
        await self._documents.put("job", job.id, job.model_dump_json().encode(), self._ttl_s)
        return job

    async def list(self, catalog: str | None = None) -> list[Job]:
        """Jobs without the long parts of their results, the newest first."""
        found: list[Job] = []
        size = 0
        async for job_id, data in self._documents.list("job"):
            job = _parsed(job_id, data)
            if job is not None and catalog in (None, job.catalog):
                found.append(job.shown().brief())
            size += len(data)
            if size > _BYTES_AT_ONCE:
                await asyncio.sleep(0)  # other requests get the event loop
                size = 0
        return sorted(found, key=lambda job: (job.created_at, job.id), reverse=True)

    async def mark_open(self, job: Job) -> None:
        """Count the job among those that have not ended."""
        await self._documents.put("open", job.id, b"", self._ttl_s)

    async def open_jobs(self) -> AsyncIterator[Job]:
        """The jobs that have not ended, in any process."""
        async for job_id, _ in self._documents.list("open"):
            job = await self.read(job_id)
            if job is None:  # not saved yet, or expired: the mark expires too
                continue
            if job.ended:
                await self._documents.delete("open", job_id)
            else:
                yield job

    async def request_cancel(self, job_id: str) -> None:
        """Ask the process that runs the job to cancel it: its next heartbeat sees this."""
        await self._documents.put("cancel", job_id, b"", _CANCEL_TTL_S)

    async def cancel_requested(self, job_id: str) -> bool:
        """Whether a cancellation of the job was requested."""
        return await self._documents.get("cancel", job_id) is not None

    async def remove_marks(self, job_id: str) -> None:
        """The job has ended: it is not open, and no cancellation waits for it."""
        await self._documents.delete("open", job_id)
        await self._documents.delete("cancel", job_id)


def _parsed(job_id: str, data: bytes) -> Job | None:
    try:
        return Job.model_validate_json(data)
    except ValidationError as error:  # written by another version of this service
        logger.warning("job %s cannot be read: %s", job_id, error)
        return None

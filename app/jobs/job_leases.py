"""`JobLeases`: which process runs a job."""

from app.jobs.job import Job, JobType
from app.storage.documents import Documents
from app.storage.leases import Leases

# Of the jobs of a catalogue that share a lease, one runs at a time.
SHARED_LEASES: dict[JobType, str] = {
    "rebuild": "tree",
    "activation": "tree",
    "tuning": "tree",
    "placement": "staged",
    "enrichment": "lines",
}


class JobLeases:
    """See Leases: of jobs."""

    def __init__(self, documents: Documents, lease_s: float) -> None:
        """`lease_s`: how long a lease lasts that is not renewed."""
        self._leases = Leases(documents)
        self._lease_s = lease_s

    async def take(self, job: Job) -> bool:
        """Whether this process now has the lease of `job`; False while another has it."""
        return await self._leases.take(_name(job), job.id, self._lease_s)

    async def renew(self, job: Job) -> bool:
        """Whether this process still has it; False when it ran out and another has taken it."""
        return await self._leases.renew(_name(job), job.id, self._lease_s)

    async def release(self, job: Job) -> None:
        """Give it up; a lease that another process has stays."""
        await self._leases.release(_name(job), job.id, self._lease_s)

    async def holder(self, job: Job) -> str | None:
        """The id of the job for which any process has the lease of `job`."""
        return await self._leases.holder(_name(job))


def share_lease(one: Job, other: Job) -> bool:
    """Whether two jobs cannot run at the same time."""
    return _name(one) == _name(other)


def _name(job: Job) -> str:
    if job.type in SHARED_LEASES:
        return f"{SHARED_LEASES[job.type]}:{job.catalog_id}"
    return job.id

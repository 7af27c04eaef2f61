"""`Leases`: which process is at a job. A lease runs out unless its holder renews it."""

from secrets import token_hex

from tree.store.documents import Documents

LEASE_S = 10.0


class Leases:
    """The leases that this process takes, renews and releases.

    Every method raises StoreUnavailable.
    """

    def __init__(self, documents: Documents) -> None:
        self._documents = documents
        self._owner = token_hex(8)

    async def take(self, name: str, job_id: str) -> bool:
        """False when somebody else holds it."""
        return await self._documents.put_new("lease", name, self._content(job_id), LEASE_S)

    async def renew(self, name: str, job_id: str) -> bool:
        """False when it ran out and is somebody else's now."""
        if await self._documents.renew("lease", name, self._content(job_id), LEASE_S):
            return True
        return await self.take(name, job_id)

    async def release(self, name: str, job_id: str) -> None:
        """Let go of it; one that is somebody else's stays."""
        if await self._documents.renew("lease", name, self._content(job_id), LEASE_S):
            await self._documents.delete("lease", name)

    async def holder(self, name: str) -> str | None:
        """The job for which it is held, by whichever process."""
        content = await self._documents.get("lease", name)
        return None if content is None else content.decode().partition(" ")[0]

    def _content(self, job_id: str) -> bytes:
        return f"{job_id} {self._owner}".encode()

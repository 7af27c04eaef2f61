"""`Leases`: rights that one process has at a time. A lease runs out unless it is renewed."""

from secrets import token_hex

from app.storage.documents import Documents


class Leases:
    """The leases that this process takes, renews and releases, by their names.

    `holder` says for what a lease is taken. Every method raises StoreUnavailable.
    """

    def __init__(self, documents: Documents) -> None:
        self._documents = documents
        self._owner = token_hex(8)

    async def take(self, name: str, holder: str, lasts_s: float) -> bool:
        """Whether this process now has the lease; False while another has it."""
        return await self._documents.put_new("lease", name, self._content(holder), lasts_s)

    async def seize(self, name: str, holder: str, lasts_s: float) -> None:
        """Take the lease, also from another process."""
        await self._documents.put("lease", name, self._content(holder), lasts_s)

    async def renew(self, name: str, holder: str, lasts_s: float) -> bool:
        """Whether this process still has the lease; False when another has taken it since."""
        renewed = await self._documents.renew("lease", name, self._content(holder), lasts_s)
        return renewed or await self.take(name, holder, lasts_s)

    async def release(self, name: str, holder: str, lasts_s: float) -> None:
        """Give the lease up; one that another process has stays."""
        if await self._documents.renew("lease", name, self._content(holder), lasts_s):
            await self._documents.delete("lease", name)

    async def holder(self, name: str) -> str | None:
        """The holder for which any process has the lease; None while it is free."""
        content = await self._documents.get("lease", name)
        return None if content is None else content.decode().partition(" ")[0]

    def _content(self, holder: str) -> bytes:
        return f"{holder} {self._owner}".encode()

"""`LineClaims`: who asks for which lines now, and which were asked for in vain."""

import asyncio
from collections.abc import Collection, Mapping
from typing import cast

from app.curate.enrichment.line_check import Refusal
from app.storage.documents import Documents

_CLAIMED_S = 600.0  # longer than the calls for one batch take
_FAILED_S = 86_400.0  # then a line is asked for again


class LineClaims:
    """Lines that two processes want at once are asked for by one of them.

    `holder` names who claims, such as a job: another process that continues it has its claims. The
    claims of others that were killed expire. Every method raises StoreUnavailable.
    """

    def __init__(self, documents: Documents, holder: str) -> None:
        self._documents = documents
        self._holder = holder.encode()

    async def take(self, digests: Collection[str]) -> set[str]:
        """The lines that this holder may ask for; another one asks for the rest now."""
        taken = await asyncio.gather(*map(self._take, digests))
        return {digest for digest, is_mine in zip(digests, taken, strict=True) if is_mine}

    async def _take(self, digest: str) -> bool:
        name = _name(digest)
        if await self._documents.put_new("lease", name, self._holder, _CLAIMED_S):
            return True
        return await self._documents.renew("lease", name, self._holder, _CLAIMED_S)

    async def release(self, digests: Collection[str]) -> None:
        """Give claims of this holder up."""
        await asyncio.gather(*(self._documents.delete("lease", _name(one)) for one in digests))

    async def failed(self, digests: Collection[str]) -> dict[str, Refusal]:
        """The lines that nobody asks for today, with the reasons."""
        found = await asyncio.gather(*(self._documents.get("unwritten", one) for one in digests))
        return {
            digest: cast(Refusal, reason.decode())
            for digest, reason in zip(digests, found, strict=True)
            if reason is not None
        }

    async def mark_failed(self, reasons: Mapping[str, Refusal]) -> None:
        """Let nobody ask for these lines until tomorrow."""
        await asyncio.gather(
            *(
                self._documents.put("unwritten", digest, reason.encode(), _FAILED_S)
                for digest, reason in reasons.items()
            )
        )


def _name(digest: str) -> str:
    return f"line:{digest}"

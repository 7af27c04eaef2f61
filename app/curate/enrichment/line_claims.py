"""`LineClaims`: who asks for which lines now, and which were asked for in vain."""

import asyncio
from collections.abc import Collection, Mapping
from hashlib import sha256
from typing import cast

from app.curate.enrichment.line_check import Refusal
from app.storage.documents import Documents

_CLAIMED_S = 600.0  # longer than the calls for one batch take
_FAILED_S = 86_400.0  # then the background work asks for a line again


class LineClaims:
    """Lines that two processes want at once are asked for by one of them.

    `holder` names who claims, such as a job: another process that continues it has its claims. The
    claims of others that were killed expire. Claims are shared by all catalogues, as the lines
    are; what was asked for in vain is known in one `scope`, such as a catalogue and a model: what
    one model cannot describe, another one may. Every method raises StoreUnavailable.
    """

    def __init__(self, documents: Documents, holder: str, scope: str) -> None:
        self._documents = documents
        self._holder = holder.encode()
        self._scope = scope

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

    async def failed(self, digests: Collection[str], *, own: bool) -> dict[str, Refusal]:
        """The lines that were asked for in vain today, with the reasons; `own`: by this holder."""
        found = await asyncio.gather(
            *(self._documents.get("unwritten", self._mark(one)) for one in digests)
        )
        failed = {}
        for digest, mark in zip(digests, found, strict=True):
            if mark is not None:
                reason, _, holder = mark.partition(b" ")
                if not own or holder == self._holder:
                    failed[digest] = cast(Refusal, reason.decode())
        return failed

    async def mark_failed(self, reasons: Mapping[str, Refusal]) -> None:
        """Note until tomorrow that these lines were asked for in vain."""
        await asyncio.gather(
            *(
                self._documents.put(
                    "unwritten",
                    self._mark(digest),
                    reason.encode() + b" " + self._holder,
                    _FAILED_S,
                )
                for digest, reason in reasons.items()
            )
        )

    def _mark(self, digest: str) -> str:
        return sha256(f"{self._scope}\0{digest}".encode()).hexdigest()[:32]


def _name(digest: str) -> str:
    return f"line:{digest}"

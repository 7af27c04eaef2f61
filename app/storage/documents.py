"""`Documents`: small JSON documents of the application, most of which expire."""

import time
from collections.abc import AsyncIterator, Sequence
from typing import Protocol

from app.storage.keys import DocumentKind, document_lifetime
from tree.redis.keys import Lifetime


class Documents(Protocol):
    """Documents by kind and id. Those of kind "catalog" stay; the other kinds need a TTL.

    Every method raises StoreUnavailable when the store does not answer; `put` and `put_new` raise
    ValueError when the TTL does not fit the kind. A damaged document that expires counts as gone,
    and is logged; for one that stays, `get` raises CorruptSnapshot.
    """

    async def put(
        self, kind: DocumentKind, document_id: str, data: bytes, ttl_s: float | None
    ) -> None:
        """Write a document, in place of the one of that id."""
        ...

    async def put_new(
        self, kind: DocumentKind, document_id: str, data: bytes, ttl_s: float | None
    ) -> bool:
        """Write a document unless there is one of that id; whether it was written."""
        ...

    async def renew(self, kind: DocumentKind, document_id: str, data: bytes, ttl_s: float) -> bool:
        """Let a document with this `data` live on; False when it is gone or has other data.

        `list` may leave it out after its first TTL.
        """
        ...

    async def swap(
        self, kind: DocumentKind, document_id: str, before: bytes | None, data: bytes | None
    ) -> bool:
        """Write `data` in place of `before`; False when something else is stored by now.

        With `data` None the document is removed; with `before` None it must be damaged. For the
        kinds that stay. A full store does not refuse it.
        """
        ...

    async def get(self, kind: DocumentKind, document_id: str) -> bytes | None:
        """The document; None when there is none."""
        ...

    async def delete(self, kind: DocumentKind, document_id: str) -> bool:
        """Whether there was one to delete."""
        ...

    def list(self, kind: DocumentKind) -> AsyncIterator[tuple[str, bytes]]:
        """All documents of a kind with their ids; those that expire last come first.

        Damaged ones are left out.
        """
        ...

    async def ids(self, kind: DocumentKind) -> Sequence[str]:
        """The ids of all documents of a kind, also damaged ones; some may be gone by now."""
        ...

    def flaws(self) -> AsyncIterator[tuple[int, Sequence[str]]]:
        """Check all documents: in batches, how many were read, and what is wrong with them."""
        ...


class MemoryDocuments:
    """See Documents. Gone with the process."""

    def __init__(self) -> None:
        self._kept: dict[tuple[DocumentKind, str], tuple[float, bytes]] = {}

    async def put(
        self, kind: DocumentKind, document_id: str, data: bytes, ttl_s: float | None
    ) -> None:
        """See Documents."""
        check_ttl(kind, ttl_s)
        expires_at = float("inf") if ttl_s is None else time.monotonic() + ttl_s
        self._kept[kind, document_id] = expires_at, data

    async def put_new(
        self, kind: DocumentKind, document_id: str, data: bytes, ttl_s: float | None
    ) -> bool:
        """See Documents."""
        check_ttl(kind, ttl_s)
        if await self.get(kind, document_id) is not None:
            return False
        await self.put(kind, document_id, data, ttl_s)
        return True

    async def renew(self, kind: DocumentKind, document_id: str, data: bytes, ttl_s: float) -> bool:
        """See Documents."""
        if await self.get(kind, document_id) != data:
            return False
        await self.put(kind, document_id, data, ttl_s)
        return True

    async def swap(
        self, kind: DocumentKind, document_id: str, before: bytes | None, data: bytes | None
    ) -> bool:
        """See Documents. Nothing is damaged here."""
        check_ttl(kind, None)
        if before is None or await self.get(kind, document_id) != before:
            return False
        await self.delete(kind, document_id)
        if data is not None:
            await self.put(kind, document_id, data, None)
        return True

    async def get(self, kind: DocumentKind, document_id: str) -> bytes | None:
        """See Documents."""
        self._forget()
        _, data = self._kept.get((kind, document_id), (0.0, None))
        return data

    async def delete(self, kind: DocumentKind, document_id: str) -> bool:
        """See Documents."""
        self._forget()
        return self._kept.pop((kind, document_id), None) is not None

    async def list(self, kind: DocumentKind) -> AsyncIterator[tuple[str, bytes]]:
        """See Documents."""
        self._forget()
        latest = sorted(self._kept.items(), key=lambda entry: entry[1][0], reverse=True)
        for (its_kind, document_id), (_, data) in latest:
            if its_kind == kind:
                yield document_id, data

    async def ids(self, kind: DocumentKind) -> Sequence[str]:
        """See Documents."""
        return [document_id async for document_id, _ in self.list(kind)]

    async def flaws(self) -> AsyncIterator[tuple[int, Sequence[str]]]:
        """See Documents. Memory is not damaged."""
        yield len(self._kept), []

    def _forget(self) -> None:
        now = time.monotonic()
        self._kept = {name: entry for name, entry in self._kept.items() if entry[0] > now}


def check_ttl(kind: DocumentKind, ttl_s: float | None) -> None:
    """Raises ValueError when the TTL does not fit the kind."""
    stays = document_lifetime(kind) is Lifetime.PERMANENT
    if stays and ttl_s is not None:
        raise ValueError(f"documents of kind {kind!r} stay: they take no TTL")
    if not stays and (ttl_s is None or ttl_s <= 0):
        raise ValueError(f"documents of kind {kind!r} need a TTL above 0 seconds")

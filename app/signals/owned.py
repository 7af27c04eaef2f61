"""`OwnedDocuments`: documents that are noted as a user's, so that they can go with the user."""

from collections.abc import AsyncIterator, Sequence

from tree.errors import StoreUnavailable
from tree.store.documents import Documents
from tree.store.feedback import Feedback
from tree.store.keys import DOCUMENT_KINDS, DocumentKind

_LONGEST_S = 2_592_000.0  # that a trace or a profile may be kept


class OwnedDocuments:
    """See Documents. What is written or found here is noted as `user_id`'s first.

    What lost its note while it was written, because the user was erased, goes as well: no document
    outlives its note.
    """

    def __init__(self, documents: Documents, feedback: Feedback, user_id: str) -> None:
        self._documents = documents
        self._feedback = feedback
        self._user_id = user_id

    async def put(
        self, kind: DocumentKind, document_id: str, data: bytes, ttl_s: float | None
    ) -> None:
        """See Documents."""
        await self._note(kind, document_id, ttl_s)
        await self._documents.put(kind, document_id, data, ttl_s)
        await self._keep_noted(kind, document_id)

    async def put_new(
        self, kind: DocumentKind, document_id: str, data: bytes, ttl_s: float | None
    ) -> bool:
        """See Documents."""
        await self._note(kind, document_id, ttl_s)
        new = await self._documents.put_new(kind, document_id, data, ttl_s)
        await self._keep_noted(kind, document_id)
        return new

    async def renew(self, kind: DocumentKind, document_id: str, data: bytes, ttl_s: float) -> bool:
        """See Documents."""
        await self._note(kind, document_id, ttl_s)
        renewed = await self._documents.renew(kind, document_id, data, ttl_s)
        await self._keep_noted(kind, document_id)
        return renewed

    async def get(self, kind: DocumentKind, document_id: str) -> bytes | None:
        """See Documents. What another user's request has left, and this one uses, is both's.

        What cannot be noted, in a store that is full, is not used.
        """
        found = await self._documents.get(kind, document_id)
        if found is not None:
            try:
                await self._note(kind, document_id, None)
            except StoreUnavailable:
                return None
        return found

    async def delete(self, kind: DocumentKind, document_id: str) -> bool:
        """See Documents."""
        return await self._documents.delete(kind, document_id)

    def list(self, kind: DocumentKind) -> AsyncIterator[tuple[str, bytes]]:
        """See Documents."""
        return self._documents.list(kind)

    def flaws(self) -> AsyncIterator[tuple[int, Sequence[str]]]:
        """See Documents."""
        return self._documents.flaws()

    async def _note(self, kind: DocumentKind, document_id: str, ttl_s: float | None) -> None:
        await self._feedback.own(self._user_id, _name(kind, document_id), ttl_s or _LONGEST_S)

    async def _keep_noted(self, kind: DocumentKind, document_id: str) -> None:
        if not await self._feedback.owns(self._user_id, _name(kind, document_id)):
            await self._documents.delete(kind, document_id)


async def erase(feedback: Feedback, documents: Documents, user_id: str) -> None:
    """Forget a user, and all documents that came about for them. Raises StoreUnavailable.

    The notes go after the documents: an erasure that is cut short can be asked for again. Then the
    documents go once more: one that was written in between may have seen its note just before it
    went. What comes about later than that finds no note, and goes by itself.
    """
    names = await feedback.owned(user_id)
    await _delete(documents, names)
    await feedback.erase(user_id, names)
    await _delete(documents, names)


async def _delete(documents: Documents, names: Sequence[str]) -> None:
    for name in names:
        kind, _, document_id = name.partition(" ")
        for known in DOCUMENT_KINDS:
            if known == kind:
                await documents.delete(known, document_id)


def _name(kind: DocumentKind, document_id: str) -> str:
    return f"{kind} {document_id}"

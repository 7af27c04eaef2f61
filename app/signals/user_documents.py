"""`UserDocuments`: documents that are made for a user, and erased with the user."""

from collections.abc import AsyncIterator, Sequence

from app.storage.documents import Documents
from app.storage.feedback import Feedback
from app.storage.keys import DOCUMENT_KINDS, DocumentKind
from tree.errors import StoreUnavailable

_LONGEST_S = 2_592_000.0  # that a trace or a profile may be kept


class UserDocuments:
    """See Documents. Each document that is written or read here is first noted for `user_id`.

    A document whose note is gone after it was written, because the user was erased meanwhile, is
    deleted: no document outlives its note.
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

    async def swap(
        self, kind: DocumentKind, document_id: str, before: bytes | None, data: bytes | None
    ) -> bool:
        """See Documents. Documents that stay belong to no user."""
        return await self._documents.swap(kind, document_id, before, data)

    async def get(self, kind: DocumentKind, document_id: str) -> bytes | None:
        """See Documents. A document of another user that this user reads, too, belongs to both.

        A document that cannot be noted, because the store is full, is not used.
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

    async def ids(self, kind: DocumentKind) -> Sequence[str]:
        """See Documents."""
        return await self._documents.ids(kind)

    def flaws(self) -> AsyncIterator[tuple[int, Sequence[str]]]:
        """See Documents."""
        return self._documents.flaws()

    async def _note(self, kind: DocumentKind, document_id: str, ttl_s: float | None) -> None:
        await self._feedback.add_document(
            self._user_id, _name(kind, document_id), ttl_s or _LONGEST_S
        )

    async def _keep_noted(self, kind: DocumentKind, document_id: str) -> None:
        if not await self._feedback.has_document(self._user_id, _name(kind, document_id)):
            await self._documents.delete(kind, document_id)


async def erase(feedback: Feedback, documents: Documents, user_id: str) -> None:
    """Forget a user, and delete all documents that were made for them. Raises StoreUnavailable.

    The notes are deleted after the documents, so that an erasure that was cut short can be
    repeated. Then the documents are deleted once more: one may have been written in between, by a
    request that saw its note just before. A document that is written later finds no note, and is
    deleted by its writer.
    """
    names = await feedback.documents_of(user_id)
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

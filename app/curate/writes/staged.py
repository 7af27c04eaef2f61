"""`StagedPlacement`: staged items of an import get their place in the tree."""

from collections.abc import Collection

from app.curate.writes.batch import ItemChange
from app.curate.writes.commit_queue import CommitQueue
from app.curate.writes.item_encoder import ItemEncoder
from app.curate.writes.vector_cache import ItemVectorCache
from tree.store.protocol import StagingArea
from tree.worker import together

_SLICES_AT_ONCE = 2  # of an import, encoded side by side by a slow embedder


class StagedPlacement:
    """Places staged items through the commit queue; no commit waits for their vectors."""

    def __init__(
        self, store: StagingArea, encoder: ItemEncoder, queue: CommitQueue[ItemChange]
    ) -> None:
        self._store = store
        self._encoder = encoder
        self._queue = queue

    async def place(self, ids: Collection[str]) -> int:
        """How many of these items were still staged, and have their place now.

        Items that are deleted or written meanwhile are left alone.
        """
        before = 0
        if not await self._encoder.is_slow():
            before = await self._commit(ids, ItemVectorCache())
            if not await self._encoder.is_slow():  # in the space that was committed to
                return before
        size, waiting = await self._encoder.slice_items(), list(ids)
        slices = [waiting[start : start + size] for start in range(0, len(waiting), size)]
        failed: list[Exception] = []

        async def place_slices() -> int:
            placed = 0
            while slices and not failed:
                try:
                    placed += await self._place_slice(slices.pop(0))
                except Exception as error:  # noqa: BLE001 - raised when all have ended
                    failed.append(error)
            return placed

        placed = await together(place_slices() for _ in range(_SLICES_AT_ONCE))
        if failed:
            raise failed[0]
        return before + sum(placed)

    async def _place_slice(self, ids: Collection[str]) -> int:
        """See `place`. Waits for a slow embedder as long as it takes."""
        vectors, placed = ItemVectorCache(), 0
        while items := list((await self._store.staged_items(ids)).values()):
            await self._encoder.encode_without_deadline(vectors, items)
            placed += await self._commit([item.id for item in items], vectors)
        return placed

    async def _commit(self, ids: Collection[str], vectors: ItemVectorCache) -> int:
        change = ItemChange(places=frozenset(ids), vectors=vectors)
        return len(await self._queue.add(change, change.ids))

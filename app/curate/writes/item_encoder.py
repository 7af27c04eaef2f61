"""`ItemEncoder`: the vectors of items that are about to be written."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import partial

from app.curate.batch_encoder import BatchEncoder
from app.curate.writes.sizes import COMMIT_ITEMS, SMALL_ITEMS, have_long_texts
from app.curate.writes.vector_cache import ItemVectorCache
from app.embedders import counting_for
from tree.errors import EmbedderUnavailable
from tree.item import Item
from tree.node import Space
from tree.snapshot import SemanticTree
from tree.store.protocol import WritableStore

# Of an import, sent to a remote embedder at once. A slow or failed slice does not affect the
# others.
_SLICE_ITEMS = 128


class NotEncoded(Exception):
    """A text or the space has changed since the vectors were made."""


class ItemEncoder:
    """Fills the vector caches of writes; waits as long as the caller of each write can wait."""

    def __init__(self, catalog_id: str, store: WritableStore, batch_encoder: BatchEncoder) -> None:
        self._catalog = catalog_id
        self._store = store
        self._batch_encoder = batch_encoder
        self._turn = asyncio.Lock()  # one batch is encoded while another one is committed

    async def is_slow(self) -> bool:
        """Whether even a few texts take time, in the space of a recent version."""
        return not self._batch_encoder.is_fast(await self._space())

    async def slice_items(self) -> int:
        """How many items of an import to encode at once."""
        return COMMIT_ITEMS if self._batch_encoder.is_local(await self._space()) else _SLICE_ITEMS

    async def _space(self) -> Space:
        """The space of a recent version; the newest may have another one."""
        return (self._store.seen() or await self._store.load()).space

    async def prepare(self, vectors: ItemVectorCache, items: Sequence[Item]) -> None:
        """Encode what would hold up a commit: many texts, long ones, and all for a slow embedder.

        Others are encoded when the commit is planned. A caller whose texts cannot be encoded gets
        the error before its items share a commit with others. Raises EmbedderUnavailable.
        """
        many = len(items) > SMALL_ITEMS
        if not (many or have_long_texts(items) or (items and await self.is_slow())):
            return
        space = (await self._store.load()).space
        if not self._batch_encoder.is_fast(space):
            await self._reuse(vectors, items)
        if not vectors.missing(space.fingerprint, items):
            return
        if not many:
            await self._encode(space, vectors, items)
            return
        timeout_s = self._batch_encoder.batch_timeout_s(space)
        try:
            async with asyncio.timeout(timeout_s), self._turn:
                await self._encode(space, vectors, items)
        except TimeoutError as error:
            raise EmbedderUnavailable(
                f"the embedder has not answered within {timeout_s:.0f} s, in which it was asked "
                "for other batches, too"
            ) from error

    async def complete(
        self, tree: SemanticTree, vectors: ItemVectorCache, items: Sequence[Item]
    ) -> None:
        """Encode what is still missing for `tree`, for a slow embedder: its space or a text may
        have changed since `prepare`."""
        if not self._batch_encoder.is_fast(tree.space):
            await self._encode(tree.space, vectors, items)

    async def encode_without_deadline(
        self, vectors: ItemVectorCache, items: Sequence[Item]
    ) -> None:
        """Encode texts that no caller waits for, however long that takes."""
        space = (await self._store.load()).space
        if fresh := vectors.missing(space.fingerprint, items):
            async with self._counting(fresh):
                rows = await self._batch_encoder.encode_batch(
                    space, [item.passage for item in fresh]
                )
            vectors.add(space.fingerprint, fresh, rows)

    def ready(
        self, tree: SemanticTree, vectors: ItemVectorCache, items: dict[str, Item]
    ) -> dict[str, Item]:
        """The items that can be planned for `tree` without waiting for the embedder."""
        if self._batch_encoder.is_fast(tree.space):
            return items
        missing = vectors.missing(tree.space.fingerprint, list(items.values()))
        passages = {item.passage for item in missing}
        return {name: item for name, item in items.items() if item.passage not in passages}

    async def _encode(self, space: Space, vectors: ItemVectorCache, items: Sequence[Item]) -> None:
        if not (fresh := vectors.missing(space.fingerprint, items)):
            return
        passages = [item.passage for item in fresh]
        async with self._counting(fresh):
            if len(items) <= SMALL_ITEMS:
                rows = await self._batch_encoder.encode_interactive(space, passages)
            else:
                rows = await self._batch_encoder.encode_batch(
                    space, passages, self._batch_encoder.batch_timeout_s(space)
                )
        vectors.add(space.fingerprint, fresh, rows)

    @asynccontextmanager
    async def _counting(self, items: Sequence[Item]) -> AsyncIterator[None]:
        """Count texts for the job that runs, or for this write alone; name those refused."""
        with counting_for(
            self._catalog, partial(self._batch_encoder.account, self._catalog)
        ) as own:
            yield
        own.name_refused([item.id for item in items], [item.passage for item in items])
        await own.save_refused()

    async def _reuse(self, vectors: ItemVectorCache, items: Sequence[Item]) -> None:
        """Take the vectors of items that read as before from the tree: each may cost money."""
        ids = [item.id for item in items]
        tree = await self._store.load()
        records = await self._store.items(ids)
        staged = await self._store.staged_items(ids)  # their vectors are older
        if await self._store.load() is not tree:  # the records may be newer than the vectors
            return
        rows = {
            item: row
            for item, row in zip(ids, tree.rows_of(ids), strict=True)
            if row is not None and item in records and item not in staged
        }
        kept = self._batch_encoder.account(self._catalog).kept
        refused = set() if kept is None else set(await kept.refused_items())
        same = [
            item
            for item in items
            if item.id in rows
            and item.passage == records[item.id].passage
            and item.id not in refused  # its text is asked for again after a day
        ]
        known = tree.rows.vectors[[rows[item.id] for item in same]]
        vectors.add(tree.space.fingerprint, same, known)

"""`VectorReader`: the vectors of items that are about to be written."""

import asyncio
from collections.abc import Sequence

from app.curate.placement import Vectors
from app.curate.texts import TextReader
from tree.errors import EmbedderUnavailable
from tree.item import Item
from tree.node import Space
from tree.snapshot import SemanticTree
from tree.store.protocol import TreeStore

COMMIT_ITEMS = 1_000
INLINE_ITEMS = 8  # a larger plan would hold up the event loop
# Items whose texts are asked of elsewhere in one go while they get their place: what others in
# the import do not get, or not in time, costs these nothing.
_SLICE_ITEMS = 128


class VectorReader:
    """Reads texts that are not known, as patiently as whoever waits for them."""

    def __init__(self, store: TreeStore, texts: TextReader) -> None:
        self._store = store
        self._texts = texts
        self._reading = asyncio.Lock()  # one batch is read while another is committed, not more

    async def slow(self) -> bool:
        """Whether even a few texts take time, in the space of a tree in use lately."""
        return not self._texts.quick(await self._space())

    async def _space(self) -> Space:
        """That of a tree in use lately; the newest may have another."""
        return (self._store.seen() or await self._store.load()).space

    async def read(self, vectors: Vectors, items: Sequence[Item]) -> None:
        """Read the texts of items while another commit is under way: many, and all that take
        time. What fails, fails before it waits with others for a commit.

        Raises EmbedderUnavailable.
        """
        many = len(items) > INLINE_ITEMS
        if not items or not (many or await self.slow()):
            return
        space = (await self._store.load()).space
        if not self._texts.quick(space):
            await self._recall(vectors, items)
        if not vectors.unknown(space.fingerprint, items):
            return
        if not many:
            await self._learn(space, vectors, items)
            return
        patience_s = self._texts.patience_s(space)
        try:
            async with asyncio.timeout(patience_s), self._reading:
                await self._learn(space, vectors, items)
        except TimeoutError as error:
            raise EmbedderUnavailable(
                f"the embedder has not answered within {patience_s:.0f} s, in which it was asked "
                "for other batches, too"
            ) from error

    async def reread(self, tree: SemanticTree, vectors: Vectors, items: Sequence[Item]) -> None:
        """Read what takes time and is not known: another space is in use, or another text."""
        if not self._texts.quick(tree.space):
            await self._learn(tree.space, vectors, items)

    async def _learn(self, space: Space, vectors: Vectors, items: Sequence[Item]) -> None:
        if not (fresh := vectors.unknown(space.fingerprint, items)):
            return
        texts = [item.text for item in fresh]
        if len(items) <= INLINE_ITEMS:
            rows = await self._texts.soon(space, texts)
        else:
            rows = await self._texts.encode(space, texts, self._texts.patience_s(space))
        vectors.learn(space.fingerprint, fresh, rows)

    async def _recall(self, vectors: Vectors, items: Sequence[Item]) -> None:
        """Learn what the tree says of items whose text is as it was: vectors may cost money."""
        ids = [item.id for item in items]
        tree = await self._store.load()
        records = await self._store.items(ids)
        staged = await self._store.waiting(ids)  # their vectors in the tree are of an older text
        if await self._store.load() is not tree:  # the records may be newer than the vectors
            return
        rows = {
            item: row
            for item, row in zip(ids, tree.rows_of(ids), strict=True)
            if row is not None and item in records and item not in staged
        }
        same = [item for item in items if item.id in rows and item.text == records[item.id].text]
        known = tree.rows.vectors[[rows[item.id] for item in same]]
        vectors.learn(tree.space.fingerprint, same, known)

    async def at_once(self) -> int:
        """How many items to read for, at leisure."""
        return COMMIT_ITEMS if self._texts.anywhere(await self._space()) else _SLICE_ITEMS

    async def read_at_leisure(self, vectors: Vectors, items: Sequence[Item]) -> None:
        """Read the texts of items that nobody waits for, however long that takes."""
        space = (await self._store.load()).space
        if fresh := vectors.unknown(space.fingerprint, items):
            rows = await self._texts.encode(space, [item.text for item in fresh])
            vectors.learn(space.fingerprint, fresh, rows)

    def ready(
        self, tree: SemanticTree, vectors: Vectors, items: dict[str, Item]
    ) -> dict[str, Item]:
        """Without those whose text has to be read first, which takes time."""
        if self._texts.quick(tree.space):
            return items
        fresh = vectors.unknown(tree.space.fingerprint, list(items.values()))
        unread = {item.text for item in fresh}
        return {name: item for name, item in items.items() if item.text not in unread}

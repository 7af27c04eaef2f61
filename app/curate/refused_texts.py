"""`RefusedTexts`: items without a vector get one as soon as their embedder takes their texts."""

import logging
import time

import numpy as np

from app.curate.threads import JOBS
from app.curate.writes import Writer
from app.embedders import EmbedderCache, counting
from tree.snapshot import SemanticTree
from tree.store.protocol import WritableStore

_PAUSE_S = 3_600.0  # between two looks; a text itself is asked for once a day: see KeptVectors
_MOST = 1_000  # items at a time

logger = logging.getLogger(__name__)


class RefusedTexts:
    """The items of one catalogue whose texts a remote embedder has refused."""

    def __init__(
        self, catalog_id: str, store: WritableStore, embedders: EmbedderCache, writer: Writer
    ) -> None:
        self._catalog = catalog_id
        self._store = store
        self._embedders = embedders
        self._writer = writer
        self._next = time.monotonic() + _PAUSE_S

    async def ask_again_if_due(self) -> None:
        """See `ask_again`: at most once an hour."""
        if time.monotonic() >= self._next:
            self._next = time.monotonic() + _PAUSE_S
            await self.ask_again()

    async def ask_again(self) -> None:
        """Ask for the texts that were refused at least a day ago. Raises EmbedderUnavailable."""
        tree = self._store.seen()
        if tree is None or self._embedders.is_local(tree.space.embedder):
            return
        ids = await JOBS.run(_without_vector, tree)
        items = [item for item in (await self._store.items(ids)).values() if item.text.strip()]
        if not items:
            return
        with counting(self._embedders.account(self._catalog)):
            rows = await self._embedders.encode_batch(tree.space, [item.passage for item in items])
        accepted = [item for item, row in zip(items, rows, strict=True) if row.any()]
        for item in accepted:
            await self._writer.patch(item.id, lambda newest: newest)
        if accepted:
            logger.info("the embedder takes the texts of %d items by now", len(accepted))


def _without_vector(tree: SemanticTree) -> list[str]:
    ids = list(tree.item_ids())
    rows = np.array([row for row in tree.rows_of(ids) if row is not None], np.int64)
    blank = np.flatnonzero(~tree.rows.vectors[rows].any(axis=1))
    return [ids[at] for at in blank[:_MOST]]

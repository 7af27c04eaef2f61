"""`RefusedTexts`: items whose texts were refused get a vector once their embedder takes them."""

import logging
import time

from app.curate.writes import Writer
from app.embedders import EmbedderCache, counting
from tree.store.protocol import WritableStore

_PAUSE_S = 3_600.0  # between two looks; a text itself is asked for once a day: see KeptVectors

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
        account = self._embedders.account(self._catalog, quiet=True)
        if account.kept is None or not (ids := await account.kept.refused_items()):
            return
        items = await self._store.items(ids)
        passages = [item.passage for item in items.values()]
        if passages:
            space = (await self._store.load()).space
            with counting(account):
                await self._embedders.encode_batch(space, passages)
            account.name_refused(items, passages)
        accepted = set(ids).difference(account.refused_items)
        for item_id in sorted(accepted & items.keys()):
            await self._writer.patch(item_id, lambda newest: newest)
        await account.kept.remove_refused(accepted)
        if taken := len(accepted & items.keys()):
            logger.info("the embedder takes the texts of %d items by now", taken)

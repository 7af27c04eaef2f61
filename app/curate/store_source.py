"""`StoreSource`: the records of a stored catalogue, for a build."""

import logging
from collections.abc import AsyncIterator, Sequence
from itertools import islice
from typing import TypeAlias

from tree.store.protocol import WritableStore

_BATCH = 1_000
_MOST_LOGGED = 20  # damaged items

logger = logging.getLogger(__name__)

Damage: TypeAlias = dict[str, str]
"""What is wrong with damaged items, by id."""


class StoreSource:
    """See ItemSource. Items that are deleted meanwhile are left out.

    So are items whose record is damaged: `damage` gets them.
    """

    def __init__(self, store: WritableStore, ids: Sequence[str], damage: Damage) -> None:
        self._store = store
        self._ids = ids
        self._damage = damage

    @property
    def size(self) -> int:
        """See ItemSource."""
        return len(self._ids)

    async def read(self, step: int = 1) -> AsyncIterator[dict[str, bytes]]:
        """See ItemSource."""
        ids = self._ids[::step]
        for start in range(0, len(ids), _BATCH):
            some = ids[start : start + _BATCH]
            records = await self._store.records(some)
            if len(records) < len(some):
                self._damage |= await self._flaws([one for one in some if one not in records])
            yield records
        if self._damage:
            logger.error(
                "%d items have a damaged record and no place in the new tree, among them %s",
                len(self._damage),
                ", ".join(map(repr, islice(self._damage, _MOST_LOGGED))),
            )

    async def _flaws(self, ids: Sequence[str]) -> Damage:
        """What is wrong with the records of items that were not deleted meanwhile."""
        flaws = await self._store.record_flaws(ids)
        now = await self._store.load()
        waiting = {item async for batch in self._store.staged_ids() for item in batch}
        return {one: flaw for one, flaw in flaws.items() if one in now or one in waiting}

"""`Patches`: changes of one item that depend on how it is now."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress

from app.curate.commits import Decision, commit_until_won
from app.curate.writes.batch import Committed
from app.curate.writes.item_encoder import ItemEncoder, NotEncoded
from app.curate.writes.placement import Placement
from app.curate.writes.planner import Planner
from app.curate.writes.vector_cache import ItemVectorCache
from tree.errors import StaleVersion, StoreUnreachable
from tree.item import Item
from tree.snapshot import SemanticTree
from tree.store.protocol import WritableStore

_TURN_TIMEOUT_S = 5.0  # a patch waits longer for those before it only if the store does not answer
_ATTEMPTS = 100


class Patches:
    """Patches of one process take turns, so that they do not race each other."""

    def __init__(
        self, store: WritableStore, encoder: ItemEncoder, planner: Planner, committed: Committed
    ) -> None:
        self._store = store
        self._encoder = encoder
        self._planner = planner
        self._committed = committed
        self._lock = asyncio.Lock()

    async def patch(self, item_id: str, change: Callable[[Item], Item]) -> Item | None:
        """The item as `change` makes it from its newest record; None when there is no such item.

        No patch overwrites another write: `change` is called again after other writes of the item.
        Slow embedders are asked before the turn, so that other patches do not wait for them.
        """
        vectors = ItemVectorCache()
        for _ in range(_ATTEMPTS):
            if await self._encoder.is_slow():
                found = await self._store.items([item_id])
                changed = [change(item).keeping_line_of(item) for item in found.values()]
                await self._encoder.prepare(vectors, changed)
            async with self._turn():
                with suppress(NotEncoded):
                    return await self._commit(item_id, change, vectors)
        raise StaleVersion(f"the item's text has changed {_ATTEMPTS} times while it was encoded")

    @asynccontextmanager
    async def _turn(self) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(_TURN_TIMEOUT_S):
                await self._lock.acquire()
        except TimeoutError as error:
            raise StoreUnreachable("the patches before this one get no answer") from error
        try:
            yield
        finally:
            self._lock.release()

    async def _commit(
        self, item_id: str, change: Callable[[Item], Item], vectors: ItemVectorCache
    ) -> Item | None:
        """See `patch`. Raises NotEncoded where a slow embedder has to be asked first."""

        async def decide(tree: SemanticTree) -> Decision[Item | None]:
            staging_seq = await self._store.staging_seq()
            record = (await self._store.items([item_id])).get(item_id)
            if record is None:
                return Decision((), None)
            item = change(record).keeping_line_of(record)
            if not self._encoder.ready(tree, vectors, {item_id: item}):
                raise NotEncoded
            # No leaf is kept from one attempt to the next: the item may be another one by then.
            edits = await self._planner.plan(tree, Placement(vectors), [item])
            return Decision(edits, item, staging_seq, made_of_records=True)

        tree, decision = await commit_until_won(self._store, decide)
        if decision.edits:
            self._committed(tree, decision.edits)
        return decision.result

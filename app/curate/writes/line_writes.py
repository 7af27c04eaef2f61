"""`LineWrites`: the lines of many items, set or removed."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from itertools import islice
from typing import Literal, TypeAlias

from app.curate.commits import Decision, commit_until_won
from app.curate.writes.batch import LEASE_ITEMS, Committed
from app.curate.writes.item_encoder import ItemEncoder, NotEncoded
from app.curate.writes.placement import Placement
from app.curate.writes.planner import Planner
from app.curate.writes.sizes import COMMIT_ITEMS
from app.curate.writes.vector_cache import ItemVectorCache
from tree.errors import StaleVersion
from tree.item import Item
from tree.item_line import ItemLine
from tree.snapshot import SemanticTree
from tree.store.protocol import WritableStore

LineResult: TypeAlias = Literal["set", "removed", "unchanged", "unknown", "outdated"]
"""`unknown`: there is no such item. `outdated`: it is not the content that the line is `of`, or the
owner has given it a line and this one is a model's."""

_ATTEMPTS = 100


class LineWrites:
    """Sets of lines of one process take turns; no other write waits for them."""

    def __init__(
        self, store: WritableStore, encoder: ItemEncoder, planner: Planner, committed: Committed
    ) -> None:
        self._store = store
        self._encoder = encoder
        self._planner = planner
        self._committed = committed
        self._turn = asyncio.Lock()

    async def set_lines(
        self, lines: Mapping[str, ItemLine | None], *, can_wait: bool
    ) -> dict[str, LineResult]:
        """Per id what became of its line; None removes it.

        Items of a commit, at most a thousand, change at once. No write of an item is lost: where
        one comes first, the line is set on what it wrote. A job `can_wait` for a slow embedder
        as long as it takes. A model's line never takes the place of an owner's, also not of one
        that was set while the model was asked. Raises EmbedderUnavailable.
        """
        results: dict[str, LineResult] = {}
        waiting = iter(lines.items())
        while some := dict(islice(waiting, COMMIT_ITEMS)):
            results |= await self._set(some, can_wait)
        return results

    async def _set(
        self, lines: Mapping[str, ItemLine | None], can_wait: bool
    ) -> dict[str, LineResult]:
        vectors = ItemVectorCache()
        for _ in range(_ATTEMPTS):
            found = await self._store.items(lines)
            changed = _changed(found, lines)
            if can_wait:
                await self._encoder.encode_without_deadline(vectors, changed)
            else:
                await self._encoder.prepare(vectors, changed)
            try:
                async with self._turn, self._lease(len(changed)):
                    return await self._commit(lines, vectors)
            except NotEncoded:
                continue
        raise StaleVersion(f"texts have changed {_ATTEMPTS} times while they were encoded")

    @asynccontextmanager
    async def _lease(self, items: int) -> AsyncIterator[None]:
        """A lease of the store for many items: see BatchCommits."""
        if items <= LEASE_ITEMS:
            yield
            return
        async with self._store.bulk_write_lease():
            yield

    async def _commit(
        self, lines: Mapping[str, ItemLine | None], vectors: ItemVectorCache
    ) -> dict[str, LineResult]:
        """Raises NotEncoded where a slow embedder has to be asked first."""
        placement = Placement(vectors)

        async def decide(tree: SemanticTree) -> Decision[dict[str, LineResult]]:
            staging_seq = await self._store.staging_seq()
            found = await self._store.items(lines)
            items = {item.id: item for item in _changed(found, lines)}
            if len(self._encoder.ready(tree, vectors, items)) < len(items):
                raise NotEncoded
            edits = await self._planner.plan(tree, placement, list(items.values()))
            results = {
                item_id: _result(found.get(item_id), line) for item_id, line in lines.items()
            }
            return Decision(edits, results, staging_seq, made_of_records=True)

        tree, decision = await commit_until_won(self._store, decide)
        if decision.edits:
            self._committed(tree, decision.edits)
        return decision.result


def _changed(found: Mapping[str, Item], lines: Mapping[str, ItemLine | None]) -> list[Item]:
    """The items that get another line, with that line."""
    return [
        item.with_line(lines[item_id])
        for item_id, item in found.items()
        if _result(item, lines[item_id]) in ("set", "removed")
    ]


def _result(item: Item | None, line: ItemLine | None) -> LineResult:
    if item is None:
        return "unknown"
    if line is None:
        return "unchanged" if item.line is None else "removed"
    if line.of and line.of != item.content_digest:
        return "outdated"
    if line.source == "model" and item.line is not None and item.line.source == "owner":
        return "outdated"
    return "unchanged" if item.line == line else "set"

"""`Writer`: every change of one catalogue's items and labels, except those of a rebuild."""

import asyncio
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress

from app.curate.batch_encoder import BatchEncoder
from app.curate.commits import Decision, commit_until_won
from app.curate.writes.batch import BatchCommits, Committed, ItemChange
from app.curate.writes.commit_queue import CommitQueue, TooManyWrites
from app.curate.writes.item_encoder import ItemEncoder
from app.curate.writes.kept_lines import with_kept_lines
from app.curate.writes.line_writes import LineResult, LineWrites
from app.curate.writes.patches import Patches
from app.curate.writes.pending_labels import PendingLabels
from app.curate.writes.planner import Planner
from app.curate.writes.staged import StagedPlacement
from app.curate.writes.vector_cache import ItemVectorCache
from app.embedders import EmbedderCache
from tree.edits import Relabel
from tree.item import Item
from tree.item_line import ItemLine
from tree.node import Node
from tree.snapshot import SemanticTree
from tree.store.protocol import WritableStore
from tree.worker import Closed

_LABELS_WAIT_S = 0.5  # for a commit to join; a commit of their own makes larger ones lose


class Writer:
    """Puts, deletes, placements and labels that arrive within `window_s` share a commit.

    `committed` is not called for commits of labels alone. A given `batch_encoder` is closed by the
    caller.
    """

    def __init__(
        self,
        catalog_id: str,
        store: WritableStore,
        embedders: EmbedderCache,
        window_s: float,
        committed: Committed,
        batch_encoder: BatchEncoder | None = None,
    ) -> None:
        self._store = store
        self._batch_encoder = batch_encoder or BatchEncoder(embedders)
        self._own_encoder = batch_encoder is None
        self._encoder = ItemEncoder(catalog_id, store, self._batch_encoder)
        self._labels = PendingLabels()
        self._labels_due: asyncio.TimerHandle | None = None
        planner = Planner(embedders, self._encoder)
        batches = BatchCommits(store, self._encoder, planner, self._labels, committed)
        self._queue = CommitQueue(batches.commit, window_s)
        self._staged = StagedPlacement(store, self._encoder, self._queue)
        self._patches = Patches(store, self._encoder, planner, committed)
        self._lines = LineWrites(store, self._encoder, planner, committed)

    async def write(self, puts: Mapping[str, Item], deletes: frozenset[str]) -> dict[str, bool]:
        """Per id of these disjoint ones: whether it was created, or was there to delete.

        Raises TooManyWrites, EmbedderUnavailable.
        """
        if not puts and not deletes:
            return {}
        change = ItemChange(puts, deletes, vectors=ItemVectorCache())
        with self._queue.announce(len(puts)):
            items: Sequence[Item] = list(puts.values())
            if (known := self._store.seen()) and known.rows.have_lines:
                items = await with_kept_lines(self._store, await self._store.load(), items)
            await self._encoder.prepare(change.vectors, items)
        return await self._queue.add(change, change.ids)

    async def place(self, ids: Collection[str]) -> int:
        """See StagedPlacement."""
        return await self._staged.place(ids)

    async def patch(self, item_id: str, change: Callable[[Item], Item]) -> Item | None:
        """See Patches."""
        return await self._patches.patch(item_id, change)

    async def set_lines(
        self, lines: Mapping[str, ItemLine | None], *, can_wait: bool = False
    ) -> dict[str, LineResult]:
        """See LineWrites."""
        return await self._lines.set_lines(lines, can_wait=can_wait)

    async def rename(self, node_id: int, label: str | None, locked: bool | None) -> Node:
        """The node with another label, or locked or unlocked. Raises UnknownNode."""

        async def decide(tree: SemanticTree) -> Decision[None]:
            node = tree.node(node_id)
            edit = Relabel(
                node_id,
                node.label if label is None else label,
                node.signpost,
                node.locked if locked is None else locked,
            )
            return Decision([edit], None)

        tree, _ = await commit_until_won(self._store, decide)
        return tree.node(node_id)

    def relabel(self, tree: SemanticTree, edits: Sequence[Relabel]) -> None:
        """Include labels that were made for `tree` in the next commit, where they still fit.

        After half a second without one they get a commit of their own.
        """
        self._labels.add(tree, edits)
        if self._labels_due is None:
            loop = asyncio.get_running_loop()
            self._labels_due = loop.call_later(_LABELS_WAIT_S, self._commit_labels)

    def _commit_labels(self) -> None:
        """Nothing is to be done where a change arrives soon: its commit includes them."""
        self._labels_due = None
        if self._labels and not self._queue.announced:
            with suppress(Closed, TooManyWrites):
                self._queue.submit(ItemChange(), frozenset())

    async def aclose(self, timeout_s: float) -> None:
        """Commit what waits, as far as `timeout_s` allows. The rest fails."""
        if self._labels_due is not None:
            self._labels_due.cancel()
            self._commit_labels()
        await self._queue.aclose(timeout_s)
        if self._own_encoder:
            await self._batch_encoder.aclose()

"""`LeafLabels`: labels without a model for leaves that commits have reshaped."""

import time
from collections.abc import Callable, Sequence

from app.curate.threads import JOBS
from tree.edits import Relabel
from tree.labels import relabel
from tree.snapshot import SemanticTree
from tree.store.protocol import WritableStore
from tree.worker import Worker

_WITHOUT_PAUSE = 64  # leaves
_PAUSES = 20  # times as long as the labels took, while more leaves wait: writes must not slow down
_MOST = 65_536  # leaves that wait; a rebuild of labels labels those that were dropped


class LeafLabels:
    """Labels leaves by the items that they hold, siblings together.

    `labelled` gets the labels, and the version that they were made for.
    """

    def __init__(
        self, store: WritableStore, labelled: Callable[[SemanticTree, Sequence[Relabel]], None]
    ) -> None:
        self._store = store
        self._labelled = labelled
        self._worker = Worker[int]("labels of leaves", self._work, most=_MOST)

    def note(self, nodes: Sequence[int]) -> None:
        """Label these nodes, which were reshaped, soon."""
        self._worker.put(nodes)

    async def aclose(self, timeout_s: float) -> None:
        """Label what waits, as far as `timeout_s` allows; other leaves keep their labels."""
        await self._worker.aclose(timeout_s)

    async def _work(self, leaves: Sequence[int]) -> None:
        """Leaves whose labels fail are noted again when their parent's leaves split."""
        start = time.monotonic()
        for leaf in leaves:
            await self._label_siblings(leaf)
        if len(self._worker) > _WITHOUT_PAUSE:
            await self._worker.rest(_PAUSES * (time.monotonic() - start))

    async def _label_siblings(self, first: int) -> None:
        """Label a leaf, and its siblings that wait."""
        tree = await self._store.load()
        if not tree.has_node(first) or not tree.node(first).is_leaf:
            return
        siblings = [first, *(node.id for node in tree.siblings(first))]
        leaves = [node for node in siblings if tree.node(node).is_leaf]
        wanted = [first, *self._worker.take(leaves)]
        ids = [item for node in leaves for item in tree.item_ids(node)]
        records = await self._store.items(ids)
        if len(records) == len(ids):
            edits = await JOBS.run(relabel, tree, wanted, records)
            if edits:
                self._labelled(tree, edits)

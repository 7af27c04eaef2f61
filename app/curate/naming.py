"""`LeafNames`: offline labels for what commits have reshaped, at a pace that writes do not feel."""

import asyncio
import time
from collections.abc import Callable, Sequence
from contextlib import suppress

from tree.edits import Relabel
from tree.errors import TreeError
from tree.labels import relabel
from tree.snapshot import SemanticTree
from tree.store.protocol import TreeStore

_AT_ONCE = 64  # leaves that are named without a pause
_PAUSES = 20  # beyond those, times what naming has just taken: a twentieth of the time
_MOST = 65_536  # leaves that wait: a rebuild of labels mends what was dropped


class LeafNames:
    """Names leaves by what they hold: one family of siblings at a time.

    `named` takes the labels and the version that they were made for.
    """

    def __init__(
        self, store: TreeStore, named: Callable[[SemanticTree, Sequence[Relabel]], None]
    ) -> None:
        self._store = store
        self._named = named
        self._queue: dict[int, None] = {}
        self._closing = False
        self._task: asyncio.Task[None] | None = None

    def note(self, nodes: Sequence[int]) -> None:
        """These nodes were reshaped."""
        self._queue.update(dict.fromkeys(nodes))
        while len(self._queue) > _MOST:
            del self._queue[next(iter(self._queue))]
        if self._queue and (self._task is None or self._task.done()):
            self._task = asyncio.create_task(self._work())

    async def aclose(self, timeout_s: float) -> None:
        """Name what waits as far as `timeout_s` allows; the rest keeps the label that it has."""
        self._closing = True
        if self._task is not None:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._task, timeout_s)

    async def _work(self) -> None:
        while self._queue:
            start = time.monotonic()
            with suppress(TreeError):  # the next split of the family brings it up again
                await self._name_family()
            now = time.monotonic()
            if len(self._queue) > _AT_ONCE and not self._closing:
                await asyncio.sleep(_PAUSES * (now - start))

    async def _name_family(self) -> None:
        """Label the leaves that wait below one parent."""
        tree = await self._store.load()
        first = next(iter(self._queue))
        del self._queue[first]
        if not tree.has_node(first) or not tree.node(first).is_leaf:
            return
        family = [first, *(node.id for node in tree.siblings(first))]
        leaves = [node for node in family if tree.node(node).is_leaf]
        wanted = [first, *(node for node in leaves if node in self._queue)]
        for node in wanted[1:]:
            del self._queue[node]
        ids = [item for node in leaves for item in tree.item_ids(node)]
        records = await self._store.items(ids)
        if len(records) == len(ids):
            edits = await asyncio.to_thread(relabel, tree, wanted, records)
            if edits:
                self._named(tree, edits)

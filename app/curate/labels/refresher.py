"""`LabelRefresher`: a model's labels for what commits have reshaped, later and many at once."""

import asyncio
import logging
import math
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress

from app.budget import Budget
from app.curate.labels.model import ModelLabels
from app.jobs import Report
from app.llm import ModelRejected
from app.settings import Settings
from tree.edits import Edit, Relabel, Reshape
from tree.errors import StaleVersion, StoreUnavailable
from tree.item import normalise
from tree.node import Node
from tree.snapshot import SemanticTree
from tree.store.protocol import TreeStore

logger = logging.getLogger(__name__)

_MOST = 4_096  # nodes that wait: a rebuild of labels mends what was dropped
_AT_ONCE = 200
_PAUSE_S = 30.0  # after an outage
_ATTEMPTS = 20
_HOUR_S = 3_600.0
_ALIKE = 0.7  # of two versions of a node, by what they have in common, for one label to fit both


class LabelRefresher:
    """Labels nodes after commits of this process; until then they serve with the label they have.

    What is lost when the process ends keeps its offline label until labels are rebuilt.
    """

    def __init__(
        self,
        store: TreeStore,
        labels: ModelLabels,
        settings: Settings,
        *,
        delay_s: float = 2.0,
        pause_s: float = _PAUSE_S,
    ) -> None:
        """`delay_s`: how long more nodes are waited for, unless there are many already."""
        self._store = store
        self._labels = labels
        self._settings = settings
        self._delay_s = delay_s
        self._pause_s = pause_s
        self._queue: dict[int, None] = {}
        self._many = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._purse = Budget(0, 0)
        self._purse_until = -math.inf

    @property
    def waiting(self) -> int:
        """Nodes that wait for a label."""
        return len(self._queue)

    def note(self, tree: SemanticTree, edits: Sequence[Edit]) -> None:
        """Remember which nodes `edits` have reshaped; `tree` is the version they made.

        Those are leaves, and inner nodes that a split has left with the name of a sibling: other
        inner nodes hold what they held before.
        """
        if not self._labels.configured:
            return
        specs = [spec for edit in edits if isinstance(edit, Reshape) for spec in edit.put]
        for spec in specs:
            if tree.has_node(spec.id) and _wants_label(tree, tree.node(spec.id)):
                self._add(spec.id)

    async def settled(self) -> None:
        """Returns once nothing waits; labels that an outage delays are waited for."""
        if self._task is not None:
            await asyncio.wait([self._task])

    async def aclose(self) -> None:
        """Stop; what waits keeps its label."""
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task

    def _add(self, node: int) -> None:
        self._queue.pop(node, None)
        self._queue[node] = None
        while len(self._queue) > _MOST:
            del self._queue[next(iter(self._queue))]
        if len(self._queue) >= _AT_ONCE:
            self._many.set()
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._work())

    async def _work(self) -> None:
        while self._queue:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._many.wait(), self._delay_s)
            self._many.clear()
            some = list(self._queue)[:_AT_ONCE]
            for node in some:
                del self._queue[node]
            try:
                again, answered = await self._refresh(some)
            except StoreUnavailable:
                again, answered = some, False
            except ModelRejected as error:
                logger.error("branches keep their labels: %s", error)
                self._queue.clear()
                return
            self._queue = dict.fromkeys([*again, *self._queue])
            if not answered:
                await asyncio.sleep(self._pause_s)

    async def _refresh(self, nodes: Sequence[int]) -> tuple[list[int], bool]:
        """The nodes that are to be asked for again, and whether the model answers at all."""
        tree = await self._store.load()
        labels = await self._labels.write(
            tree, nodes, self._store.items, self._hourly(), Report.unwatched()
        )
        silent = [node for node, why in labels.kept.items() if why == "unavailable"]
        again = await self._commit(tree, labels.edits)
        return [*silent, *again], not silent

    async def _commit(self, tree: SemanticTree, edits: Sequence[Relabel]) -> list[int]:
        """Commit what still fits the newest version; nodes that hold something else by now."""
        for _ in range(_ATTEMPTS):
            now = await self._store.load()
            here = [
                edit
                for edit in edits
                if now.has_node(edit.node) and _untouched(tree.node(edit.node), now.node(edit.node))
            ]
            fits = [edit for edit in here if _alike(tree, now, edit.node)]
            names = {edit.node: edit.label for edit in fits}
            good = [edit for edit in fits if not _taken(now, edit, names)]
            try:
                if good:
                    await self._store.commit(good, base=now.version)
            except StaleVersion:
                continue
            return [edit.node for edit in here if edit not in fits]
        return [edit.node for edit in edits]

    def _hourly(self) -> Budget:
        """What is left of this hour's money."""
        now = time.monotonic()
        if now >= self._purse_until:
            self._purse_until = now + _HOUR_S
            self._purse = self._labels.budget(self._settings.llm_label_refresh_usd)
        return self._purse


def _wants_label(tree: SemanticTree, node: Node) -> bool:
    if node.parent is None or node.locked:
        return False
    name = normalise(node.label)
    return node.is_leaf or any(normalise(n.label) == name for n in tree.siblings(node.id))


def _untouched(then: Node, now: Node) -> bool:
    """Whether nobody else has named the node meanwhile, or locked its name."""
    return not now.locked and (now.label, now.signpost) == (then.label, then.signpost)


def _alike(then: SemanticTree, now: SemanticTree, node_id: int) -> bool:
    """Whether a node holds about what it held."""
    before, after = (
        set(tree.item_ids(node_id) if tree.node(node_id).is_leaf else tree.node(node_id).children)
        for tree in (then, now)
    )
    return len(before & after) >= _ALIKE * len(before | after)


def _taken(tree: SemanticTree, edit: Relabel, names: Mapping[int, str]) -> bool:
    """Whether a sibling has got that name meanwhile; `names` are those about to change."""
    title = normalise(edit.label)
    return any(normalise(names.get(n.id, n.label)) == title for n in tree.siblings(edit.node))

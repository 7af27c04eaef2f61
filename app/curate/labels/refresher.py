"""`LabelRefresher`: a model labels the nodes that commits have changed, later and many at once."""

import logging
import math
import time
from collections.abc import Mapping, Sequence
from itertools import islice

from app.budget import Budget
from app.curate.commits import Decision, commit_until_won
from app.curate.labels.label_writer import LabelWriter
from app.jobs import JobReport
from app.llm import ModelRejected
from app.settings import Settings
from tree.edits import Edit, Relabel, Reshape
from tree.errors import StaleVersion, StoreUnavailable
from tree.item import normalise
from tree.node import Node
from tree.snapshot import SemanticTree
from tree.store.protocol import WritableStore
from tree.worker import Worker

logger = logging.getLogger(__name__)

_MOST = 4_096  # nodes that wait; further ones keep their labels until labels are rebuilt
_AT_ONCE = 200
_PAUSE_S = 30.0  # after an outage
_HOUR_S = 3_600.0
_ALIKE = 0.7  # Jaccard similarity of two versions of a node that one label fits


class LabelRefresher:
    """Labels nodes after commits of this process; they keep their old labels until then.

    Nodes that wait when the process ends keep their offline labels until labels are rebuilt.
    """

    def __init__(
        self,
        store: WritableStore,
        labels: LabelWriter,
        settings: Settings,
        *,
        delay_s: float = 2.0,
        pause_s: float = _PAUSE_S,
    ) -> None:
        """`delay_s`: how long to wait for more nodes."""
        self._store = store
        self._labels = labels
        self._settings = settings
        self._delay_s = delay_s
        self._pause_s = pause_s
        self._worker = Worker[int](
            "labels of branches",
            self._work,
            most=_MOST,
            pick=lambda waiting: islice(waiting, _AT_ONCE),
            window_s=delay_s,
        )
        self._hourly_budget = Budget(0, 0)
        self._budget_until = -math.inf

    @property
    def waiting(self) -> int:
        """Nodes that wait for a label."""
        return len(self._worker)

    def note(self, tree: SemanticTree, edits: Sequence[Edit]) -> None:
        """Label the nodes that `edits` have changed later; `tree` is the version they made.

        These are leaves, and inner nodes with the name of a sibling after a split. Other inner
        nodes hold the same as before.
        """
        if not self._labels.configured:
            return
        specs = [spec for edit in edits if isinstance(edit, Reshape) for spec in edit.put]
        self._worker.put(
            spec.id
            for spec in specs
            if tree.has_node(spec.id) and _wants_label(tree, tree.node(spec.id))
        )

    async def settled(self) -> None:
        """Wait until no node waits for a label, also through an outage."""
        await self._worker.settled()

    async def aclose(self) -> None:
        """Stop; waiting nodes keep their labels."""
        await self._worker.aclose()

    async def _work(self, nodes: Sequence[int]) -> None:
        try:
            again, answered = await self._refresh(nodes)
        except StoreUnavailable:
            again, answered = list(nodes), False
        except ModelRejected as error:
            logger.error("branches keep their labels: %s", error)
            self._worker.clear()
            return
        self._worker.put(again)
        if again:
            await self._worker.rest(self._delay_s if answered else self._pause_s)

    async def _refresh(self, nodes: Sequence[int]) -> tuple[list[int], bool]:
        """The nodes to ask for again, and whether the model has answered for every node."""
        tree = await self._store.load()
        labels = await self._labels.write(
            tree, nodes, self._store.items, self._this_hours_budget(), JobReport.unwatched()
        )
        unanswered = [node for node, why in labels.kept.items() if why == "unavailable"]
        again = await self._commit(tree, labels.edits)
        return [*unanswered, *again], not unanswered

    async def _commit(self, tree: SemanticTree, edits: Sequence[Relabel]) -> list[int]:
        """Commit the labels that fit the newest version. Returns the nodes with other items now."""

        async def decide(now: SemanticTree) -> Decision[list[int]]:
            here = [
                edit
                for edit in edits
                if now.has_node(edit.node) and _untouched(tree.node(edit.node), now.node(edit.node))
            ]
            fits = [edit for edit in here if _alike(tree, now, edit.node)]
            names = {edit.node: edit.label for edit in fits}
            good = [edit for edit in fits if not _taken(now, edit, names)]
            return Decision(good, [edit.node for edit in here if edit not in fits])

        try:
            _, decision = await commit_until_won(self._store, decide)
        except StaleVersion:
            return [edit.node for edit in edits]
        return decision.result

    def _this_hours_budget(self) -> Budget:
        """The budget of this hour."""
        now = time.monotonic()
        if now >= self._budget_until:
            self._budget_until = now + _HOUR_S
            self._hourly_budget = self._labels.budget(self._settings.llm_label_refresh_usd)
        return self._hourly_budget


def _wants_label(tree: SemanticTree, node: Node) -> bool:
    if node.parent is None or node.locked:
        return False
    name = normalise(node.label)
    return node.is_leaf or any(normalise(n.label) == name for n in tree.siblings(node.id))


def _untouched(then: Node, now: Node) -> bool:
    """Whether the label has neither been changed nor locked in between."""
    return not now.locked and (now.label, now.signpost) == (then.label, then.signpost)


def _alike(then: SemanticTree, now: SemanticTree, node_id: int) -> bool:
    """Whether a node holds about the same items or children in both versions."""
    before, after = (
        set(tree.item_ids(node_id) if tree.node(node_id).is_leaf else tree.node(node_id).children)
        for tree in (then, now)
    )
    return len(before & after) >= _ALIKE * len(before | after)


def _taken(tree: SemanticTree, edit: Relabel, names: Mapping[int, str]) -> bool:
    """Whether a sibling has this name; `names` are labels that are about to change."""
    title = normalise(edit.label)
    return any(normalise(names.get(n.id, n.label)) == title for n in tree.siblings(edit.node))

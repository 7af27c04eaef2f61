"""The second stage: the branches of the tree to take candidates from."""

import math
from collections.abc import Sequence

import numpy as np

from app.ranking import Question
from app.ranking.fusion import FloatArray
from app.recommend.candidates import CandidatePool
from app.recommend.config import SearchConfig
from app.recommend.context import ModelContext
from app.recommend.profile import Profile
from tree.beam_search import beam, cut, rows_below
from tree.node import Node
from tree.snapshot import SemanticTree

_LEVELS = 3  # slates of branches, one after the other, at most
_WIDTH = 40  # branches in such a slate
_KEPT = 8  # branches that go on
_FEW_ITEMS = 200  # below them: no further level
_FILL = 0.7  # of a leaf, on average
_WANTED = 24  # branches worth a score
_FIRST_WIDTH = 64
_LEAVES_PER_BRANCH = (
    3  # least number in the first slate, so that a small catalogue has a narrow one
)
_FINER = 4  # times as many contestants as a slate holds, before the embedded ranker thins them out
_MOSTLY_ALLOWED = 0.9
_TIE = np.float32(1e-3)  # of similarity, against a model's score of 0 … 1


class TreeSearch:
    """One request's search down the tree. Used once.

    All branches of a level compete in one slate, or in several side by side on one scale, as in
    LATTICE (arXiv 2510.13217); the first slate is a cut through the upper levels, the same for
    all users of a version, so that providers may cache its prefix.
    """

    def __init__(self, context: ModelContext, pool: CandidatePool, config: SearchConfig) -> None:
        self._context = context
        self._pool = pool
        self._config = config
        self._profile = Profile(context.need)
        self._allowed: dict[int, int] = {}  # items under a branch, where many are not allowed

    def _first_branches(self) -> list[Node]:
        """The branches of the first slate."""
        tree = self._context.tree
        return self._with_allowed_items(cut(tree, _first_width(tree)))

    async def run(self, profile: Profile) -> list[Node]:
        """The branches to take candidates from, best first."""
        self._profile = profile
        branches = self._first_branches()
        levels = _levels(self._context.tree)
        similarity = self._similarity(branches)
        for level in range(1, levels + 1):
            scores = await self._scores(branches, similarity, level)
            branches = [branches[at] for at in self._chosen(scores, similarity)]
            items = sum(self._allowed.get(branch.id, branch.count) for branch in branches)
            if items <= _FEW_ITEMS or all(branch.is_leaf for branch in branches):
                break
            if level < levels:
                branches, similarity = self._below(branches)
        return branches

    async def _scores(
        self, branches: Sequence[Node], similarity: FloatArray, level: int
    ) -> FloatArray:
        """float32[branches, interests]: by a model, or by similarity where the settings say so."""
        context, profile = self._context, self._profile
        if self._config.branches == "embedded":
            return similarity
        static = level == 1  # the same for all users, so that providers may cache its prefix
        question = Question(
            context.prompt("search"),
            [self._pool.branch(context.tree, branch) for branch in branches],
            similarity,
            profile.text(context.history),
            profile.interest_names(),
            _WANTED,
            context.tree.version if static else context.seed + level,
            anchors=self._config.anchors,
        )
        scores = await context.model_ranker.score("search", question)
        self._record(branches, scores)
        return scores

    def _chosen(self, scores: FloatArray, similarity: FloatArray) -> list[int]:
        """Positions of the branches that stay, best first.

        By the model, or half by the embedded ranker, as the settings say.
        Branches that a model does not mention are equal to it: similarity decides among them.
        """
        width = _KEPT
        order = beam(scores + _TIE * similarity.max(axis=1, keepdims=True), width)
        if self._config.branches == "union":
            both = zip(order, beam(similarity, width), strict=True)
            order = list(dict.fromkeys(at for pair in both for at in pair))
        return order[:width]

    def _below(self, chosen: Sequence[Node]) -> tuple[list[Node], FloatArray]:
        """The next slate and its similarity: the chosen branches, split much finer.

        Leaves among them compete once more. If there are more branches than a slate holds, the
        embedded ranker chooses: it leaves out weak branches as well as a model does, at no cost.
        """
        context, width = self._context, _WIDTH
        finer = self._with_allowed_items(cut(context.tree, _FINER * width, chosen))
        similarity = self._similarity(finer)
        if len(finer) <= width:
            return finer, similarity
        best = beam(similarity, width)
        return [finer[at] for at in best], similarity[best]

    def _similarity(self, branches: Sequence[Node]) -> FloatArray:
        """float32[branches, interests]: to the need, or to what is expected if that is nearer."""
        ranker, tree, profile = self._pool.ranker, self._context.tree, self._profile
        similarity = ranker.node_similarity(tree, profile.need, branches)
        if profile.expected is None:
            return similarity
        expected = ranker.node_similarity(tree, profile.expected, branches)
        return np.maximum(similarity, expected.max(axis=1, keepdims=True))

    def _with_allowed_items(self, nodes: Sequence[Node]) -> list[Node]:
        """The nodes with an allowed item below them. Only counted if many items are not allowed."""
        context = self._context
        if int(context.allowed.sum()) > len(context.tree) * _MOSTLY_ALLOWED:
            return list(nodes)
        for node in nodes:
            below = rows_below(list(context.tree.leaves(node.id)))
            self._allowed[node.id] = int(context.allowed[below].sum())
        return [node for node in nodes if self._allowed[node.id]]

    def _record(self, branches: Sequence[Node], scores: FloatArray) -> None:
        """Put the best branches into the trace, and notify the listener."""
        best = np.nan_to_num(scores, nan=-np.inf).max(axis=1)
        for at in np.argsort(-best, kind="stable")[:_KEPT].tolist():
            node: dict[str, object] = {
                "node": branches[at].id,
                "label": branches[at].label,
                "items": branches[at].count,
                "score": round(float(best[at]), 4) if np.isfinite(best[at]) else None,
            }
            self._context.record.nodes.append(node)
            self._context.notify("node", node)


def _levels(tree: SemanticTree) -> int:
    """Slates of branches for a tree: the first covers its two upper levels."""
    leaves = max(2.0, len(tree) / (_FILL * tree.settings.leaf_capacity))
    height = math.ceil(math.log(leaves, tree.settings.fan_out))
    return min(_LEVELS, max(1, height - 1))


def _first_width(tree: SemanticTree) -> int:
    """Branches of the first slate."""
    leaves = len(tree) / tree.settings.leaf_capacity
    return min(_FIRST_WIDTH, max(_FIRST_WIDTH // 2, int(leaves / _LEAVES_PER_BRANCH)))

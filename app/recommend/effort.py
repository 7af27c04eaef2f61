"""Limits of tokens and calls of models: three presets."""

import math
from dataclasses import dataclass

from app.options import EffortName
from tree.snapshot import SemanticTree

_FILL = 0.7  # of a leaf, on average


@dataclass(frozen=True, slots=True)
class CallLimits:
    """The most calls and tokens of a request."""

    calls: int
    tokens: int  # input and output


@dataclass(frozen=True, slots=True)
class Effort:
    """How wide the chain looks with a model, and what a request may spend on it.

    The numbers were found with the judge of `make bench ARGS="models"`: more of the same tokens
    for candidates and less for branches serves small catalogues, the reverse large ones.
    """

    levels: int  # slates of branches, one after the other, at most; 0: no tree search
    width: int  # branches in such a slate, or in several side by side
    branches_kept: int  # branches that go on
    max_items_below: int  # items below them that need no further level
    vector_candidates: int  # candidates that the embedded ranker scores best, from the whole tree
    branch_candidates: int  # candidates from the branches
    final: int  # candidates in the last slate; 0: there is none
    recall_passes: int  # how often the slates of candidates are asked, each time in another order
    rerank_passes: int  # the same for the last slate
    limits: CallLimits

    def levels_of(self, tree: SemanticTree) -> int:
        """Slates of branches for a tree: the first covers its two upper levels."""
        leaves = max(2.0, len(tree) / (_FILL * tree.settings.leaf_capacity))
        height = math.ceil(math.log(leaves, tree.settings.fan_out))
        return min(self.levels, max(1, height - 1))


EFFORTS: dict[EffortName, Effort] = {
    "economy": Effort(
        levels=0, width=0, branches_kept=0, max_items_below=0,
        vector_candidates=60, branch_candidates=0, final=0, recall_passes=1, rerank_passes=1,
        limits=CallLimits(calls=3, tokens=8_000),
    ),
    "balanced": Effort(
        levels=3, width=40, branches_kept=8, max_items_below=200,
        vector_candidates=36, branch_candidates=58, final=32, recall_passes=1, rerank_passes=1,
        limits=CallLimits(calls=12, tokens=24_000),
    ),
    "quality": Effort(
        levels=3, width=128, branches_kept=24, max_items_below=400,
        vector_candidates=240, branch_candidates=240, final=64, recall_passes=2, rerank_passes=3,
        limits=CallLimits(calls=60, tokens=120_000),
    ),
}  # fmt: skip

"""What a model may cost: three presets."""

import math
from dataclasses import dataclass
from typing import Literal

from tree.snapshot import SemanticTree

EffortName = Literal["economy", "balanced", "quality"]
Branches = Literal["model", "embedded", "union"]

_FILL = 0.7  # of a leaf, on average


@dataclass(frozen=True, slots=True)
class Effort:
    """How wide the chain looks with a model, and what a request may spend on it.

    The numbers were found with the judge of `make bench ARGS="models"`: more of the same tokens
    for candidates and less for branches serves small catalogues, the reverse large ones.
    """

    levels: int  # slates of branches, one after the other, at most; none: no walk
    width: int  # branches in such a slate, or in several side by side
    kept: int  # branches that go on
    shelf: int  # items below them that need no further level
    nearest: int  # candidates that the embedded ranker likes best, wherever they live
    found: int  # candidates out of the branches
    final: int  # of the candidates, in a last slate; 0: none
    glances: int  # at the slates of candidates, each time in another order
    looks: int  # at the last slate, likewise
    calls: int
    tokens: int  # input and output

    def levels_of(self, tree: SemanticTree) -> int:
        """Slates of branches for a tree: the first covers its two upper levels."""
        leaves = max(2.0, len(tree) / (_FILL * tree.settings.leaf_capacity))
        height = math.ceil(math.log(leaves, tree.settings.fan_out))
        return min(self.levels, max(1, height - 1))


EFFORTS: dict[EffortName, Effort] = {
    "economy": Effort(
        levels=0, width=0, kept=0, shelf=0,
        nearest=60, found=0, final=0, glances=1, looks=1,
        calls=3, tokens=8_000,
    ),
    "balanced": Effort(
        levels=3, width=40, kept=8, shelf=200,
        nearest=36, found=58, final=32, glances=1, looks=1,
        calls=12, tokens=24_000,
    ),
    "quality": Effort(
        levels=3, width=128, kept=24, shelf=400,
        nearest=240, found=240, final=64, glances=2, looks=3,
        calls=60, tokens=120_000,
    ),
}  # fmt: skip

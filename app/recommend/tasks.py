"""`TaskWeights`: what an answer is for, as weights that the stages read.

They were chosen in December 2026 on other users than `docs/tasks.md` reports.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from app.options import TaskName
from app.rank_weights import RankWeights
from app.ranking import Tilt
from app.recommend.request import RecommendRequest
from tree.snapshot import SemanticTree

_SEEDS = 5  # newest items of a history; with all of a long one, most leaves would be beside it


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskWeights:
    """How a task differs from a recommendation. A model is asked in words of its own (`prompts`).

    `wish_weight` is the share of the words in what is looked for; without `with_profile`, the
    profile is none of these words. `cooccurrence` is what events with the history weigh, by
    default the share that the history has. `popularity` multiplies the weight of the settings, and
    `rising` is the weight of what rises now (see Tilt). An item loses `beside` where the tree has
    it in one leaf with a new item of the history. None: as the settings say.
    """

    wish_weight: float | None = None
    with_profile: bool = True
    cooccurrence: float | None = None
    diversity: float | None = None
    popularity: float = 1.0
    beside: float = 0.0
    rising: float = 0.0

    def narrowed(self, request: RecommendRequest) -> RecommendRequest:
        """The request with what counts for the task."""
        if self.with_profile or request.profile is None:
            return request
        return request.model_copy(update={"profile": None})

    def weights(self, service: RankWeights, request: RecommendRequest) -> RankWeights:
        """What counts how much: as the service has it, then the task, then the request itself."""
        of_task = service.changed(None, self.diversity)
        if self.wish_weight is not None:
            of_task = replace(of_task, wish_weight=self.wish_weight)
        asked = of_task.changed(request.weights, request.diversity)
        return replace(asked, popularity_weight=asked.popularity_weight * self.popularity)

    def tilt(self, tree: SemanticTree, history: Sequence[int]) -> Tilt:
        """How the scores of items change; `history` are rows, oldest first."""
        leaves = tree.rows.leaf[list(history[-_SEEDS:])] if self.beside else np.zeros(0, np.int32)
        return Tilt(self.beside, leaves, self.rising)


TASKS: Mapping[TaskName, TaskWeights] = {
    "recommend": TaskWeights(),
    # Directions of a history would find its own items first, whatever the words are.
    "search": TaskWeights(wish_weight=1.0, with_profile=False, cooccurrence=0.25, diversity=0.0),
    "complement": TaskWeights(beside=0.1),
    "explore": TaskWeights(popularity=-4.0),
    "trending": TaskWeights(popularity=0.0, rising=0.3),
}

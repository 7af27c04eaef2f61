"""`Need`: the interests of a user, as vectors with weights."""

from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from app.rank_weights import RankWeights
from app.ranking.tilt import Tilt
from app.ranking.words import Words
from app.signals import EventScores
from tree.vectors import FloatArray, Int8Matrix

Origin: TypeAlias = Literal["wish", "title"]
NO_VECTORS: Int8Matrix = np.zeros((0, 0), np.int8)


@dataclass(frozen=True, slots=True)
class Interest:
    """One line of a user's interests.

    `origin` is set where the name is in the user's own words (a wish, or a title from elsewhere)
    and not a path of the tree.
    """

    name: str
    weight: float
    origin: Origin | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Direction:
    """A vector that stands for a part of an interest.

    `weight` counts against the weights of the other directions. `source` is what the vector comes
    from: the id of an item, which has a `row`, or words.
    """

    vector: Int8Matrix
    weight: float
    interest_index: int
    source: str
    row: int | None = None


@dataclass(frozen=True, eq=False)
class Need:
    """The interests of a request, and their directions.

    A user without any known data has no directions. `dislikes` are normalised words of items that
    must not be offered. `disliked` is int8[items, dimensions], the vectors of items that the user
    disliked. `event_scores` come from other users with the same history; None without
    events. `words` are those of the history and of the wish. `tilt` changes the scores of items.
    `rank_weights` say what counts how much.
    """

    interests: tuple[Interest, ...] = ()
    directions: tuple[Direction, ...] = ()
    dislikes: tuple[str, ...] = ()
    disliked: Int8Matrix = field(default_factory=lambda: NO_VECTORS)
    event_scores: EventScores | None = None
    words: Words | None = None
    tilt: Tilt = field(default_factory=Tilt)
    rank_weights: RankWeights = field(default_factory=RankWeights)

    @property
    def is_empty(self) -> bool:
        return not self.directions

    @cached_property
    def vectors(self) -> Int8Matrix:
        """int8[directions, dimensions]."""
        if self.is_empty:
            return NO_VECTORS
        return np.stack([direction.vector for direction in self.directions])

    @cached_property
    def weights(self) -> FloatArray:
        """float32[directions], with sum 1."""
        weights = np.array([direction.weight for direction in self.directions], np.float32)
        return weights if self.is_empty else weights / weights.sum()

    @cached_property
    def interest_index(self) -> npt.NDArray[np.int64]:
        """int64[directions]: the position of each one's interest."""
        return np.array([direction.interest_index for direction in self.directions], np.int64)

    def interest_of(self, direction: Direction) -> Interest:
        """The interest that a direction stands for."""
        return self.interests[direction.interest_index]

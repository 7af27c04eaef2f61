"""`Standing`: what a model got right in an examination, and the weight that follows."""

import math
from collections.abc import Sequence

import msgspec

CHANCE = 0.5
LEAST_SLATES = 8  # fewer say nothing
_BOUND = 2.5  # standard errors below the mean: by simulation, a guess is asked on 1 day of 80
_SPREAD = 0.15  # least standard deviation of a slate's mark: few equal marks prove little
_EARNED = 0.15  # how far the lower bound is above chance where a model has its whole weight


class Standing(msgspec.Struct, frozen=True):
    """The result of one examination of a model on one catalogue.

    `accuracy` is the mean over the slates of the share of pairs (a right option, a wrong one) that
    the model put in the right order; .5 is chance. `embedded` is that of the embedded ranker on the
    same slates. `factor` multiplies the weight of the model's scores; with 0 it is not asked. `of`
    stands for the model and the prompts, `at` is in seconds since the epoch.
    """

    of: str
    model: str
    slates: int
    accuracy: float
    error: float
    embedded: float
    factor: float
    tokens: int
    cost_usd: float
    at: float

    @property
    def is_asked(self) -> bool:
        return self.factor > 0

    def line(self) -> str:
        """The result as a sentence."""
        return (
            f"of {self.slates} slates it put {self.accuracy:.0%} ± {self.error:.0%} of the pairs "
            f"into the right order (chance is 50 %, the vectors get {self.embedded:.0%})"
        )


def mean_and_error(marks: Sequence[float]) -> tuple[float, float]:
    """The mean of the marks and its standard error."""
    count = len(marks)
    mean = sum(marks) / count
    spread = math.sqrt(sum((mark - mean) ** 2 for mark in marks) / max(1, count - 1))
    return mean, max(spread, _SPREAD) / math.sqrt(count)


def factor_of(accuracy: float, error: float) -> float:
    """How much of its weight a model has earned, 0 … 1."""
    above = accuracy - _BOUND * error - CHANCE
    return min(max(above / _EARNED, 0.0), 1.0)

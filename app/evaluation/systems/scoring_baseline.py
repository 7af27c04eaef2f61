"""`ScoringBaseline`: systems that score every item of a catalogue and return the best."""

import asyncio
import importlib
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Sequence
from types import ModuleType

import numpy as np
import numpy.typing as npt

from app.evaluation.case import Query, Training
from app.evaluation.protocols import training_share
from tree.blas import use_one_blas_thread
from tree.item import Item

Scores = npt.NDArray[np.float32]
Progress = Callable[[str, float], None]  # name of a system, share of its training that is done

_SCORES_AT_ONCE = 1 << 25  # 128 MB of float32


class MissingLibrary(Exception):
    """An optional extra that a system needs is not installed; the message says how to get it."""


def library(name: str, extra: str) -> ModuleType:
    """The imported module. Raises MissingLibrary."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise MissingLibrary(
            f"{error.name} is not installed. In a checkout: pip install '.[{extra}]'"
        ) from error


class ScoringBaseline(ABC):
    """See System. Items with equal scores keep the order of the catalogue.

    Systems that learn from users learn from a seeded `share` of them (10 % is part of 20 %). The
    answer to a query without any scored item are the most popular items.
    """

    def __init__(self, name: str, *, share: float = 1.0, seed: int = 0) -> None:
        self.name = name
        self.seed = seed
        self._share = share
        self._items: Sequence[Item] = ()
        self._row: dict[str, int] = {}
        self._counts = np.zeros(0, np.float32)
        self._histories: list[list[int]] = []  # during training: positions of items, oldest first

    async def fit(self, training: Training) -> None:
        """See System."""
        await asyncio.to_thread(self._fit, training)

    async def rank(self, queries: Sequence[Query], limit: int) -> list[list[str]]:
        """See System."""
        return await asyncio.to_thread(self._rank, queries, limit)

    async def aclose(self) -> None:
        """See System. Releases the training data."""
        self._items, self._row = (), {}

    @abstractmethod
    def learn(self) -> None:
        """Learn from `_histories` and the items."""

    @abstractmethod
    def score(self, queries: Sequence[Query]) -> Scores:
        """float32[queries, items], read-only; -inf for items that are not in the answer."""

    def _fit(self, training: Training) -> None:
        self._items = training.items
        self._row = {item.id: row for row, item in enumerate(training.items)}
        users = training_share(training, self._share, self.seed).users
        self._histories = [self._known(user.history) for user in users]
        had = Counter(row for history in self._histories for row in set(history))
        self._counts = np.zeros(len(self._items), np.float32)
        self._counts[list(had)] = list(had.values())
        use_one_blas_thread()
        self.learn()
        self._histories = []

    def _rank(self, queries: Sequence[Query], limit: int) -> list[list[str]]:
        if not self._items:
            return [[] for _ in queries]
        step = max(1, _SCORES_AT_ONCE // len(self._items))
        answers: list[list[str]] = []
        use_one_blas_thread()
        for start in range(0, len(queries), step):
            some = queries[start : start + step]
            scored = zip(self.score(some), some, strict=True)
            answers += [self._best(row, query, limit) for row, query in scored]
        return answers

    def _known(self, ids: Sequence[str]) -> list[int]:
        return [self._row[one] for one in ids if one in self._row]

    def _best(self, scores: Scores, query: Query, limit: int) -> list[str]:
        if not np.isfinite(scores).any():
            scores = self._counts
        if query.candidates is not None:
            bounded = np.full(len(scores), -np.inf, np.float32)
            offered = self._known(query.candidates)
            bounded[offered] = scores[offered]
            scores = bounded
        else:
            scores = scores.copy()
        scores[self._known((*query.history, *query.excluded))] = -np.inf
        wanted = min(limit, len(scores))
        if not wanted:
            return []
        edge = np.partition(scores, len(scores) - wanted)[len(scores) - wanted]
        at = np.flatnonzero((scores >= edge) & (scores > -np.inf))
        order = at[np.argsort(-scores[at], kind="stable")[:wanted]]
        return [self._items[row].id for row in order.tolist()]

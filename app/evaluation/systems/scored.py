"""`Scored`: systems that give every item of a catalogue a score and answer with the best."""

import asyncio
import importlib
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Sequence
from types import ModuleType

import numpy as np
import numpy.typing as npt

from app.evaluation.blas import one_thread
from app.evaluation.case import Question, Training
from app.evaluation.protocols import training_share
from tree.item import Item

Scores = npt.NDArray[np.float32]
Progress = Callable[[str, float], None]  # a system's name, and the share of its training done

_SCORES_AT_ONCE = 1 << 25  # 128 MB of float32


class MissingLibrary(Exception):
    """An optional extra that a system needs is not installed; the message says how to get it."""


def library(name: str, extra: str) -> ModuleType:
    """The module, imported now. Raises MissingLibrary."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise MissingLibrary(
            f"{error.name} is not installed: pip install 'unillmrec[{extra}]'"
        ) from error


class Scored(ABC):
    """See System. Of equal scores the item that comes first in the catalogue wins.

    Those who learn from readers learn from a seeded `share` of them (10 % is part of 20 %), and
    answer readers of whom they know nothing with the most popular items.
    """

    def __init__(self, name: str, *, share: float = 1.0, seed: int = 0) -> None:
        self.name = name
        self.seed = seed
        self._share = share
        self._items: Sequence[Item] = ()
        self._row: dict[str, int] = {}
        self._counts = np.zeros(0, np.float32)
        self._histories: list[list[int]] = []  # while it learns: rows, oldest first

    async def fit(self, training: Training) -> None:
        """See System."""
        await asyncio.to_thread(self._fit, training)

    async def rank(self, questions: Sequence[Question], limit: int) -> list[list[str]]:
        """See System."""
        return await asyncio.to_thread(self._rank, questions, limit)

    async def aclose(self) -> None:
        """See System. The training is let go of."""
        self._items, self._row = (), {}

    @abstractmethod
    def learn(self) -> None:
        """Learn from `_histories`, and look at the items."""

    @abstractmethod
    def score(self, questions: Sequence[Question]) -> Scores:
        """float32[questions, items], read only; -inf for an item that is not answered."""

    def _fit(self, training: Training) -> None:
        self._items = training.items
        self._row = {item.id: row for row, item in enumerate(training.items)}
        readers = training_share(training, self._share, self.seed).readers
        self._histories = [self._known(reader.history) for reader in readers]
        had = Counter(row for history in self._histories for row in set(history))
        self._counts = np.zeros(len(self._items), np.float32)
        self._counts[list(had)] = list(had.values())
        with one_thread():
            self.learn()
        self._histories = []

    def _rank(self, questions: Sequence[Question], limit: int) -> list[list[str]]:
        if not self._items:
            return [[] for _ in questions]
        step = max(1, _SCORES_AT_ONCE // len(self._items))
        answers: list[list[str]] = []
        with one_thread():
            for start in range(0, len(questions), step):
                some = questions[start : start + step]
                asked = zip(self.score(some), some, strict=True)
                answers += [self._best(row, question, limit) for row, question in asked]
        return answers

    def _known(self, ids: Sequence[str]) -> list[int]:
        return [self._row[one] for one in ids if one in self._row]

    def _best(self, scores: Scores, question: Question, limit: int) -> list[str]:
        if not np.isfinite(scores).any():
            scores = self._counts
        if question.candidates is not None:
            bounded = np.full(len(scores), -np.inf, np.float32)
            offered = self._known(question.candidates)
            bounded[offered] = scores[offered]
            scores = bounded
        else:
            scores = scores.copy()
        scores[self._known((*question.history, *question.excluded))] = -np.inf
        wanted = min(limit, len(scores))
        if not wanted:
            return []
        edge = np.partition(scores, len(scores) - wanted)[len(scores) - wanted]
        at = np.flatnonzero((scores >= edge) & (scores > -np.inf))
        order = at[np.argsort(-scores[at], kind="stable")[:wanted]]
        return [self._items[row].id for row in order.tolist()]

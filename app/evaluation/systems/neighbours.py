"""Collaborative filtering by the library `implicit`. Only this module imports it."""

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.sparse import csr_matrix

from app.evaluation.case import Query
from app.evaluation.systems.scoring_baseline import Scores, ScoringBaseline, library


class ItemKnn(ScoringBaseline):
    """Item-based nearest neighbours by cosine (Sarwar et al. 2001), summed over the history.

    Items that are not a neighbour of any history item are not in the answer.
    """

    def __init__(
        self, name: str, *, neighbours: int = 100, share: float = 1.0, seed: int = 0
    ) -> None:
        super().__init__(name, share=share, seed=seed)
        self._library = library("implicit.nearest_neighbours", "evaluation")
        self._neighbours = neighbours
        self._similarities: Any = None

    def learn(self) -> None:
        """Find the neighbours of each item."""
        model = self._library.CosineRecommender(K=self._neighbours)
        with warnings.catch_warnings():  # about a conversion inside the library
            warnings.simplefilter("ignore")
            model.fit(_matrix(self._histories, len(self._items)), show_progress=False)
        self._similarities = model.similarity

    def score(self, queries: Sequence[Query]) -> Scores:
        """See ScoringBaseline."""
        histories = [self._known(query.history) for query in queries]
        had = _matrix(histories, len(self._items))
        scores = (had @ self._similarities).toarray().astype(np.float32)
        scores[scores <= 0] = -np.inf
        return scores


class Als(ScoringBaseline):
    """Implicit-feedback matrix factorisation (Hu, Koren & Volinsky 2008).

    The factors of a query's user are computed from the history and the factors of the items.
    """

    def __init__(
        self,
        name: str,
        *,
        factors: int = 64,
        epochs: int = 15,
        share: float = 1.0,
        seed: int = 0,
    ) -> None:
        super().__init__(name, share=share, seed=seed)
        self._library = library("implicit.cpu.als", "evaluation")
        self._factors = factors
        self._epochs = epochs
        self._model: Any = None

    def learn(self) -> None:
        """Fit the factors of users and items in turn."""
        with warnings.catch_warnings():  # about how many threads BLAS has
            warnings.simplefilter("ignore", RuntimeWarning)
            self._model = self._library.AlternatingLeastSquares(
                factors=self._factors,
                regularization=0.05,
                iterations=self._epochs,
                num_threads=1,  # the same bits whatever the number of cores
                random_state=self.seed,
            )
        self._model.fit(_matrix(self._histories, len(self._items)), show_progress=False)

    def score(self, queries: Sequence[Query]) -> Scores:
        """See ScoringBaseline."""
        histories = [self._known(query.history) for query in queries]
        user_numbers = np.arange(len(histories))
        users = self._model.recalculate_user(user_numbers, _matrix(histories, len(self._items)))
        scores = (users @ self._model.item_factors.T).astype(np.float32)
        scores[[not history for history in histories]] = -np.inf
        return scores


def _matrix(histories: Sequence[Sequence[int]], items: int) -> csr_matrix:
    """1 where a user had an item: float32[users, items]."""
    rows = np.repeat(np.arange(len(histories)), [len(history) for history in histories])
    columns = np.array([item for history in histories for item in history], np.int64)
    return csr_matrix((np.ones(len(columns), np.float32), (rows, columns)), (len(histories), items))

"""Conventional collaborative filtering, by the library `implicit`. Only this module imports it."""

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.sparse import csr_matrix

from app.evaluation.case import Question
from app.evaluation.systems.scored import Scored, Scores, library


class ItemKnn(Scored):
    """Item-based nearest neighbours by cosine (Sarwar et al. 2001), summed over the history.

    An item that is no neighbour of any history item is not answered.
    """

    def __init__(
        self, name: str, *, neighbours: int = 100, share: float = 1.0, seed: int = 0
    ) -> None:
        super().__init__(name, share=share, seed=seed)
        self._library = library("implicit.nearest_neighbours", "evaluation")
        self._neighbours = neighbours
        self._near: Any = None

    def learn(self) -> None:
        """Find every item's neighbours."""
        model = self._library.CosineRecommender(K=self._neighbours)
        with warnings.catch_warnings():  # about a conversion of its own
            warnings.simplefilter("ignore")
            model.fit(_matrix(self._histories, len(self._items)), show_progress=False)
        self._near = model.similarity

    def score(self, questions: Sequence[Question]) -> Scores:
        """See Scored."""
        histories = [self._known(question.history) for question in questions]
        found = (_matrix(histories, len(self._items)) @ self._near).toarray().astype(np.float32)
        found[found <= 0] = -np.inf
        return found


class Als(Scored):
    """Implicit-feedback matrix factorisation (Hu, Koren & Volinsky 2008).

    A question's reader is folded in: their factors follow from the history and the items' factors.
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
        """Alternate between readers and items."""
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

    def score(self, questions: Sequence[Question]) -> Scores:
        """See Scored."""
        histories = [self._known(question.history) for question in questions]
        who = np.arange(len(histories))
        readers = self._model.recalculate_user(who, _matrix(histories, len(self._items)))
        scores = (readers @ self._model.item_factors.T).astype(np.float32)
        scores[[not history for history in histories]] = -np.inf
        return scores


def _matrix(histories: Sequence[Sequence[int]], items: int) -> csr_matrix:
    """Who had what: float32[readers, items]."""
    rows = np.repeat(np.arange(len(histories)), [len(history) for history in histories])
    columns = np.array([item for history in histories for item in history], np.int64)
    return csr_matrix((np.ones(len(columns), np.float32), (rows, columns)), (len(histories), items))

"""Simple baselines: random, popularity and BM25."""

from collections.abc import Sequence
from typing import Any
from zlib import crc32

import numpy as np

from app.evaluation.case import Query
from app.evaluation.systems.scoring_baseline import Scores, ScoringBaseline, library

_QUERY_ITEMS = 10  # as many as the service uses


class Random(ScoringBaseline):
    """Items in an order that depends on the seed and the query only."""

    def learn(self) -> None:
        """Nothing to learn."""

    def score(self, queries: Sequence[Query]) -> Scores:
        """See ScoringBaseline."""
        seeds = [crc32("\0".join((query.user, *query.history)).encode()) for query in queries]
        return np.stack(
            [
                np.random.default_rng((self.seed, seed)).random(len(self._items), np.float32)
                for seed in seeds
            ]
        )


class Popular(ScoringBaseline):
    """Items by the number of training users who had them."""

    def learn(self) -> None:
        """Nothing to learn: the counts are there."""

    def score(self, queries: Sequence[Query]) -> Scores:
        """See ScoringBaseline."""
        return np.broadcast_to(self._counts, (len(queries), len(self._items)))


class Bm25(ScoringBaseline):
    """BM25 (Robertson & Zaragoza 2009; Lucene's variant, k1 1.5, b 0.75) over the items' text.

    The query is the wish with the text of the last ten history items, or the profile where there
    are neither.
    """

    def __init__(self, name: str, *, seed: int = 0) -> None:
        super().__init__(name, seed=seed)
        self._library = library("bm25s", "evaluation")
        self._index: Any = None
        self._words: list[list[str]] = []

    def learn(self) -> None:
        """Index the catalogue."""
        self._words = self._tokens([item.passage.whole for item in self._items])
        self._index = None
        if any(self._words):
            self._index = self._library.BM25(k1=1.5, b=0.75)
            self._index.index(self._words, show_progress=False)

    def score(self, queries: Sequence[Query]) -> Scores:
        """See ScoringBaseline. Items without a word of the query are not in the answer."""
        scores = np.full((len(queries), len(self._items)), -np.inf, np.float32)
        for row, query in zip(scores, queries, strict=True):
            history = self._known(query.history)
            words = [word for item in history[-_QUERY_ITEMS:] for word in self._words[item]]
            said = query.wish or (query.profile if not history else "")
            if said:
                words = self._tokens([said])[0] + words
            if self._index is None or not self._index.get_tokens_ids(words):
                continue
            found = self._index.get_scores(words)
            row[found > 0] = found[found > 0]
        return scores

    def _tokens(self, texts: list[str]) -> list[list[str]]:
        words: list[list[str]] = self._library.tokenize(
            texts, stopwords="en", return_ids=False, show_progress=False
        )
        return words

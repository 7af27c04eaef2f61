"""What everything else has to beat: chance, popularity, and shared words."""

from collections.abc import Sequence
from typing import Any
from zlib import crc32

import numpy as np

from app.evaluation.case import Question
from app.evaluation.systems.scored import Scored, Scores, library

_QUERY_ITEMS = 10  # as many as make up a need


class Random(Scored):
    """Items in an order that hangs on the seed and the question alone."""

    def learn(self) -> None:
        """Nothing."""

    def score(self, questions: Sequence[Question]) -> Scores:
        """See Scored."""
        seeds = [
            crc32("\0".join((question.reader, *question.history)).encode())
            for question in questions
        ]
        return np.stack(
            [
                np.random.default_rng((self.seed, seed)).random(len(self._items), np.float32)
                for seed in seeds
            ]
        )


class Popular(Scored):
    """The items that most readers of the training had."""

    def learn(self) -> None:
        """Counting is done for every system."""

    def score(self, questions: Sequence[Question]) -> Scores:
        """See Scored."""
        return np.broadcast_to(self._counts, (len(questions), len(self._items)))


class Bm25(Scored):
    """BM25 (Robertson & Zaragoza 2009; Lucene's variant, k1 1.5, b 0.75) over the items' text.

    The query is the text of the last ten history items, or the profile where there are none.
    """

    def __init__(self, name: str, *, seed: int = 0) -> None:
        super().__init__(name, seed=seed)
        self._library = library("bm25s", "evaluation")
        self._index: Any = None
        self._words: list[list[str]] = []

    def learn(self) -> None:
        """Index the catalogue."""
        self._words = self._tokens([item.text for item in self._items])
        self._index = None
        if any(self._words):
            self._index = self._library.BM25(k1=1.5, b=0.75)
            self._index.index(self._words, show_progress=False)

    def score(self, questions: Sequence[Question]) -> Scores:
        """See Scored. An item that shares no word with the query is not answered."""
        scores = np.full((len(questions), len(self._items)), -np.inf, np.float32)
        for row, question in zip(scores, questions, strict=True):
            history = self._known(question.history)
            words = [word for item in history[-_QUERY_ITEMS:] for word in self._words[item]]
            if not history and question.profile:
                [words] = self._tokens([question.profile])
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

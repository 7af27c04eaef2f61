"""`Semantic`: similarity of texts over all items, without tree and model."""

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from app.embedders import DEFAULT_EMBEDDER, EmbedderCache, fit_sample
from app.evaluation.case import Query
from app.evaluation.systems.scoring_baseline import Scores, ScoringBaseline
from tree.passage import Passage, Text, whole_texts
from tree.vectors import DIMENSIONS

TFIDF = "tfidf"

_FEATURES = 100_000
_NEWEST = 10
_DECAY = 0.8
_INVERSE_TEMPERATURE = 8.0

_Vectors = npt.NDArray[np.float32]


class Semantic(ScoringBaseline):
    """Scores an item by a soft maximum of its cosines to the last ten history items.

    The score is ln(Σ wᵢ · exp(8 · cosᵢ)) / 8 with wᵢ ∝ 0.8^age, plus `popularity` times
    ln(1 + training users). A wish replaces the history, the profile an empty one. `tfidf` uses
    n-grams of 3 to 5 characters inside words, reduced by truncated SVD; other embedders are those
    of the service.
    """

    def __init__(
        self,
        name: str,
        *,
        embedders: EmbedderCache,
        embedder: str = DEFAULT_EMBEDDER,
        popularity: float = 0.0,
        share: float = 1.0,
        seed: int = 0,
    ) -> None:
        super().__init__(name, share=share, seed=seed)
        self._embedder = embedder
        self._embedders = embedders
        self._popularity = popularity
        self._vectors: _Vectors = np.zeros((0, DIMENSIONS), np.float32)
        self._encode: Callable[[Sequence[Text]], _Vectors] = _zeros

    def learn(self) -> None:
        """Encode the catalogue."""
        texts = [item.passage for item in self._items]
        if self._embedder == TFIDF:
            self._encode, self._vectors = _tfidf(whole_texts(texts), self.seed)
        else:
            made = self._embedders.fit(
                self._embedder, fit_sample(texts), len(texts), seed=self.seed
            )
            self._encode = lambda wanted: _unit(made.encode(wanted).astype(np.float32))
            self._vectors = self._encode(texts)

    def score(self, queries: Sequence[Query]) -> Scores:
        """See ScoringBaseline."""
        prior = np.float32(self._popularity) * np.log1p(self._counts)
        scores = np.full((len(queries), len(self._items)), -np.inf, np.float32)
        for row, query in zip(scores, queries, strict=True):
            history = self._known(query.history)
            liked = self._vectors[list(dict.fromkeys(reversed(history)))[:_NEWEST]]
            if query.wish:
                liked = self._encode([Passage(query.wish, is_wish=True)])
            elif not history and query.profile:
                liked = self._encode([query.profile])
            if not liked.any():
                continue
            weights = _DECAY ** np.arange(len(liked))
            weights = (weights / weights.sum()).astype(np.float32)
            sums = np.exp(_INVERSE_TEMPERATURE * (self._vectors @ liked.T)) @ weights
            row[:] = np.log(sums) / _INVERSE_TEMPERATURE + prior
        return scores


def _unit(vectors: _Vectors) -> _Vectors:
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.divide(vectors, lengths, out=np.zeros_like(vectors), where=lengths > 0)


def _zeros(texts: Sequence[Text]) -> _Vectors:
    return np.zeros((len(texts), DIMENSIONS), np.float32)


def _tfidf(
    texts: Sequence[str], seed: int
) -> tuple[Callable[[Sequence[Text]], _Vectors], _Vectors]:
    """A function that encodes texts, and the vectors of the catalogue."""
    from sklearn.decomposition import TruncatedSVD
    from sklearn.feature_extraction.text import TfidfVectorizer

    words = TfidfVectorizer(
        analyzer="char_wb",
        ngram_range=(3, 5),
        sublinear_tf=True,
        max_features=_FEATURES,
        dtype=np.float32,
    )
    counts = words.fit_transform(texts)
    components = min(DIMENSIONS, counts.shape[0] - 1, counts.shape[1] - 1)
    if components < 1:
        return _zeros, _zeros(texts)
    reduction = TruncatedSVD(components, n_iter=2, random_state=seed)
    vectors = _unit(reduction.fit_transform(counts).astype(np.float32))
    return lambda wanted: _unit(
        reduction.transform(words.transform(whole_texts(wanted))).astype(np.float32)
    ), vectors

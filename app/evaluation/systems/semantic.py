"""The flat oracle: how far plain similarity of texts gets, with no tree and no model."""

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from app.evaluation.case import Question
from app.evaluation.systems.scored import Scored, Scores
from tree.embedders import EmbedderCache, fit_sample
from tree.node import LEXICAL

TFIDF = "tfidf"

_DIMENSIONS = 256
_FEATURES = 100_000
_NEWEST = 10
_DECAY = 0.8
_SHARPNESS = 8.0

_Vectors = npt.NDArray[np.float32]


class Semantic(Scored):
    """Every item's score is a soft maximum of its cosines to the last ten history items.

    ln(Σ wᵢ · exp(8 · cosᵢ)) / 8 with wᵢ ∝ 0.8^age, in plain float arithmetic over all items;
    with `popularity` that much of ln(1 + training readers) is added. A profile sentence stands
    for a history that is empty. `tfidf` are n-grams of 3 to 5 characters inside words, reduced
    to 256 dimensions by truncated SVD; any other embedder is one of the service's own.
    """

    def __init__(
        self,
        name: str,
        *,
        embedders: EmbedderCache,
        embedder: str = LEXICAL,
        popularity: float = 0.0,
        share: float = 1.0,
        seed: int = 0,
    ) -> None:
        super().__init__(name, share=share, seed=seed)
        self._embedder = embedder
        self._embedders = embedders
        self._popularity = popularity
        self._vectors: _Vectors = np.zeros((0, _DIMENSIONS), np.float32)
        self._encode: Callable[[Sequence[str]], _Vectors] = _nothing

    def learn(self) -> None:
        """Embed the catalogue."""
        texts = [item.text for item in self._items]
        if self._embedder == TFIDF:
            self._encode, self._vectors = _tfidf(texts, self.seed)
        else:
            made = self._embedders.fit(
                self._embedder, fit_sample(texts), len(texts), seed=self.seed
            )
            self._encode = lambda wanted: _unit(made.encode(wanted).astype(np.float32))
            self._vectors = self._encode(texts)

    def score(self, questions: Sequence[Question]) -> Scores:
        """See Scored."""
        prior = np.float32(self._popularity) * np.log1p(self._counts)
        scores = np.full((len(questions), len(self._items)), -np.inf, np.float32)
        for row, question in zip(scores, questions, strict=True):
            history = self._known(question.history)
            near = self._vectors[list(dict.fromkeys(reversed(history)))[:_NEWEST]]
            if not history and question.profile:
                near = self._encode([question.profile])
            if not near.any():
                continue
            weights = _DECAY ** np.arange(len(near))
            weights = (weights / weights.sum()).astype(np.float32)
            sums = np.exp(_SHARPNESS * (self._vectors @ near.T)) @ weights
            row[:] = np.log(sums) / _SHARPNESS + prior
        return scores


def _unit(vectors: _Vectors) -> _Vectors:
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.divide(vectors, lengths, out=np.zeros_like(vectors), where=lengths > 0)


def _nothing(texts: Sequence[str]) -> _Vectors:
    return np.zeros((len(texts), _DIMENSIONS), np.float32)


def _tfidf(texts: Sequence[str], seed: int) -> tuple[Callable[[Sequence[str]], _Vectors], _Vectors]:
    """Who embeds a text, and the vectors of the catalogue's."""
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
    components = min(_DIMENSIONS, counts.shape[0] - 1, counts.shape[1] - 1)
    if components < 1:
        return _nothing, _nothing(texts)
    reduction = TruncatedSVD(components, n_iter=2, random_state=seed)
    vectors = _unit(reduction.fit_transform(counts).astype(np.float32))
    return lambda wanted: _unit(
        reduction.transform(words.transform(wanted)).astype(np.float32)
    ), vectors

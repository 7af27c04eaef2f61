"""A scripted judge that scores a whole catalogue, to measure the chain without a model.

The chain cannot see its relevance, which differs from every score of the service. Its scores of
slates have errors like those of models: noise, an offset per slate, and a position bias.
"""

import hashlib
from collections.abc import Sequence
from statistics import NormalDist
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from tree.item import Item
from tree.node import Node
from tree.snapshot import SemanticTree
from tree.vectors import FloatArray

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

TOP = 20

Positions = npt.NDArray[np.int64]  # of items, in the order of the judge

_HISTORY = 10
_DECAY = 0.8
_INVERSE_TEMPERATURE = 8.0
_CACHED = 400
_STANDARD = NormalDist()


class Judge:
    """The relevance of all items for a user: 1 for the best item, 0 for no common word.

    Items are ranked by TF-IDF cosines over words and pairs of words (title, categories, keywords,
    description) to the newest 10 items of the history, in a weighted log-sum-exp like the embedded
    score. Relevance is 1 - ln(rank) / ln(items), so that it uses the whole scale for each user and
    the same noise confuses the same ratio of ranks in each catalogue (.1 and 64,000 items: the 20th
    with the 60th). Items with equal cosines share the best of their ranks.

    `letters` is the share of n-grams of 3 to 5 letters in the cosine. The lexical embedder uses
    these, so a larger share makes the judge more similar to it.
    """

    def __init__(self, items: Sequence[Item], *, letters: float = 0.0) -> None:
        from sklearn.feature_extraction.text import TfidfVectorizer

        self.position = {item.id: at for at, item in enumerate(items)}
        words = TfidfVectorizer(
            token_pattern=r"\b\w+\b", ngram_range=(1, 2), sublinear_tf=True, dtype=np.float32
        )
        parts = [(1 - letters, words)]
        if letters:
            trigrams = TfidfVectorizer(
                analyzer="char_wb", ngram_range=(3, 5), sublinear_tf=True, dtype=np.float32
            )
            parts.append((letters, trigrams))
        texts = [item.text for item in items]
        self._views: list[tuple[float, csr_matrix, csr_matrix]] = []
        for share, vectorizer in parts:
            features = vectorizer.fit_transform(texts)
            self._views.append((share, features, features.T.tocsr()))
        self._cache: dict[tuple[tuple[str, ...], tuple[int, ...]], FloatArray] = {}

    def relevance(self, history: Sequence[str]) -> FloatArray:
        """float32[items] for a history, oldest first; -inf for items of the history.

        Unknown items are ignored; zeros where all are unknown.
        """
        return self.interests(history, [0] * len(history))[:, 0]

    def interests(self, history: Sequence[str], groups: Sequence[int]) -> FloatArray:
        """float32[items, interests]: the relevance for each interest of a history.

        `groups` gives the interest of each history item, 0 … interests-1. An interest without known
        items has zeros. Results are cached, because users repeat.
        """
        key = (tuple(history), tuple(groups))
        if key not in self._cache:
            if len(self._cache) >= _CACHED:
                self._cache.clear()
            self._cache[key] = self._judged(history, groups)
            self._cache[key].flags.writeable = False
        return self._cache[key]

    def _judged(self, history: Sequence[str], groups: Sequence[int]) -> FloatArray:
        group = dict(zip(history, groups, strict=True))
        seen = [item for item in dict.fromkeys(reversed(history)) if item in self.position]
        newest = seen[:_HISTORY]
        columns = np.zeros((len(self.position), max(groups, default=0) + 1), np.float32)
        if newest:
            powers = np.exp(_INVERSE_TEMPERATURE * self._cosines(newest))
            weights = _DECAY ** np.arange(len(newest))
            interest_of = np.array([group[item] for item in newest])
            for interest in np.unique(interest_of):
                own = np.where(interest_of == interest, weights, 0)
                columns[:, interest] = np.log((own / own.sum()).astype(np.float32) @ powers)
        columns[[self.position[item] for item in seen]] = -np.inf
        for column in columns.T:
            column[:] = _scaled(column)
        return columns

    def _cosines(self, item_ids: Sequence[str]) -> FloatArray:
        """float32[item_ids, items]; uses only the columns of words of these items."""
        at = [self.position[item] for item in item_ids]
        near = np.zeros((len(at), len(self.position)), np.float32)
        for share, features, postings in self._views:
            near += np.float32(share) * (features[at] @ postings).toarray()
        return near


class ItemsBelow:
    """The items below the nodes of a tree, as positions of the judge."""

    def __init__(self, judge: Judge, tree: SemanticTree) -> None:
        self._tree = tree
        self._positions = np.full(tree.size, -1, np.int64)
        for item, at in judge.position.items():
            if (row := tree.row(item)) is not None:
                self._positions[row] = at
        self._known: dict[int, Positions] = {}

    def below(self, node: Node) -> Positions:
        """Positions of the known items below a node; cached."""
        if node.id not in self._known:
            rows = [leaf.rows for leaf in self._tree.leaves(node.id)]
            below = self._positions[np.concatenate(rows)]
            self._known[node.id] = below[below >= 0]
        return self._known[node.id]

    def relevance(
        self, nodes: Sequence[Node], relevance: FloatArray, *, best: int = 5
    ) -> FloatArray:
        """The relevance of branches: the mean of the `best` highest relevances below each node.

        Items of the history do not count; a branch without other items has 0. `relevance` is
        float32[items], or float32[items, interests] for a column per interest.
        """
        means = np.zeros((len(nodes), *relevance.shape[1:]), np.float32)
        for at, node in enumerate(nodes):
            below = relevance[self.below(node)]
            below = below[np.isfinite(below if below.ndim == 1 else below[:, 0])]
            if len(below) > best:
                below = np.partition(below, len(below) - best, axis=0)[-best:]
            if len(below):
                means[at] = below.mean(axis=0)
        return means


def top(relevance: FloatArray, k: int = TOP) -> Positions:
    """The `k` most relevant items of the whole catalogue, best first."""
    return np.argsort(-relevance, kind="stable")[:k]


def share(found: npt.ArrayLike, relevance: FloatArray, k: int = TOP) -> float:
    """The share of the judge's best `k` items among the positions `found`.

    Items as relevant as the k-th count too, up to `k`: the judge cannot distinguish editions of
    one title.
    """
    edge = np.partition(relevance, len(relevance) - k)[len(relevance) - k]
    distinct = np.unique(np.asarray(found, np.int64))
    return min(k, int((relevance[distinct] >= edge).sum())) / k


def noisy(
    scores: npt.ArrayLike,
    options: Sequence[str],
    *,
    user: str,
    slate: str,
    noise: float,
    bias: float = 0.0,
    position: float = 0.0,
) -> FloatArray:
    """The judge's scores of a slate with errors: float32[options] in 0 … 1, deterministic.

    `noise` is the standard deviation per user, option and slate. The whole slate has an offset of
    up to ± `bias`. Scores fall along the slate, by `position` at its end.
    """
    offset = bias * (2 * _uniform(user, slate) - 1)
    errors = [
        noise * _STANDARD.inv_cdf(_uniform(user, slate, option)) + offset for option in options
    ]
    slope = np.linspace(0, position, len(options))
    noisy_scores = np.asarray(scores, np.float32) + np.array(errors, np.float32) - slope
    return np.clip(noisy_scores, 0, 1).astype(np.float32)


def _scaled(similarity: FloatArray) -> FloatArray:
    """Relevance from similarity, see Judge. -inf stays; 0 where the similarity is not above 0."""
    seen = np.isneginf(similarity)
    ordered = np.sort(similarity[~seen])
    better = len(ordered) - np.searchsorted(ordered, similarity, side="right")
    relevance = 1 - np.log1p(better) / np.log(max(2, len(ordered)))
    return np.where(seen, -np.inf, np.where(similarity > 1e-6, relevance, 0)).astype(np.float32)


def _uniform(*key: str) -> float:
    """A number in (0, 1) that depends on the key alone."""
    name = "\0".join(key).encode("utf-8", "surrogatepass")
    return (int.from_bytes(hashlib.blake2b(name, digest_size=6).digest(), "big") + 0.5) / 2**48

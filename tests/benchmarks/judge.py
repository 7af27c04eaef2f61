"""A scripted judge: a taste of its own over a whole catalogue, to measure a chain without a model.

What it finds relevant is hidden from the chain and differs from every score of ours; its answers
to slates are off by noise, by one offset per slate and by place, as those of models are.
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

Positions = npt.NDArray[np.int64]  # of items in the order in which the judge was given them

_HISTORY = 10
_DECAY = 0.8
_SHARPNESS = 8.0
_REMEMBERED = 400
_STANDARD = NormalDist()


class Judge:
    """Relevance of all items of a catalogue for a reader: 1 for the best, 0 for no word in common.

    Cosines of TF-IDF over words and pairs of words (title, categories, keywords, description; no
    dimension reduced) to the newest 10 items of the history, in a weighted log-sum-exp as the
    embedded score has it. Cosines crowd differently for every reader, so relevance is
    1 - ln(rank) / ln(items): a judge that uses the whole scale, and for whom the same noise
    confuses the same factor of ranks in every catalogue (.1 and 64,000 items: the 20th with the
    60th). Equals share the best of their ranks.

    `letters` gives n-grams of 3 to 5 letters a share of the cosine; these are also what the
    lexical embedder reads, so more of them is a judge more like it.
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
        self._kept: dict[tuple[tuple[str, ...], tuple[int, ...]], FloatArray] = {}

    def relevance(self, history: Sequence[str]) -> FloatArray:
        """float32[items] for a history, oldest first; -inf for what is in it.

        Items that the judge does not know count for nothing; zeros when it knows none.
        """
        return self.interests(history, [0] * len(history))[:, 0]

    def interests(self, history: Sequence[str], groups: Sequence[int]) -> FloatArray:
        """float32[items, interests]: the same for each part of a history taken by itself.

        `groups` gives the interest of every history item, 0 … interests-1. An interest of which
        no item counts gets zeros. Remembered: the same readers come again and again.
        """
        key = (tuple(history), tuple(groups))
        if key not in self._kept:
            if len(self._kept) >= _REMEMBERED:
                self._kept.clear()
            self._kept[key] = self._judged(history, groups)
            self._kept[key].flags.writeable = False
        return self._kept[key]

    def _judged(self, history: Sequence[str], groups: Sequence[int]) -> FloatArray:
        group = dict(zip(history, groups, strict=True))
        seen = [item for item in dict.fromkeys(reversed(history)) if item in self.position]
        newest = seen[:_HISTORY]
        columns = np.zeros((len(self.position), max(groups, default=0) + 1), np.float32)
        if newest:
            powers = np.exp(_SHARPNESS * self._cosines(newest))
            weights = _DECAY ** np.arange(len(newest))
            owner = np.array([group[item] for item in newest])
            for interest in np.unique(owner):
                mine = np.where(owner == interest, weights, 0)
                columns[:, interest] = np.log((mine / mine.sum()).astype(np.float32) @ powers)
        columns[[self.position[item] for item in seen]] = -np.inf
        for column in columns.T:
            column[:] = _scaled(column)
        return columns

    def _cosines(self, item_ids: Sequence[str]) -> FloatArray:
        """float32[item_ids, items]; reads only the columns of words that the items have."""
        at = [self.position[item] for item in item_ids]
        near = np.zeros((len(at), len(self.position)), np.float32)
        for share, features, postings in self._views:
            near += np.float32(share) * (features[at] @ postings).toarray()
        return near


class Shelves:
    """Which items stand below the nodes of a tree, by their position with the judge."""

    def __init__(self, judge: Judge, tree: SemanticTree) -> None:
        self._tree = tree
        self._positions = np.full(tree.size, -1, np.int64)
        for item, at in judge.position.items():
            if (row := tree.row(item)) is not None:
                self._positions[row] = at
        self._known: dict[int, Positions] = {}

    def below(self, node: Node) -> Positions:
        """Positions of the items below a node that the judge knows; remembered per node."""
        if node.id not in self._known:
            rows = [leaf.rows for leaf in self._tree.leaves(node.id)]
            below = self._positions[np.concatenate(rows)]
            self._known[node.id] = below[below >= 0]
        return self._known[node.id]

    def relevance(
        self, nodes: Sequence[Node], relevance: FloatArray, *, best: int = 5
    ) -> FloatArray:
        """What a good judge says of branches, who knows the best items they are likely to hold.

        That is the mean of the `best` highest relevances below a node, of all where there are
        fewer; what the reader has seen does not count, and 0 is for nothing else. `relevance` is
        float32[items], or float32[items, interests] for a column per interest.
        """
        marks = np.zeros((len(nodes), *relevance.shape[1:]), np.float32)
        for at, node in enumerate(nodes):
            below = relevance[self.below(node)]
            below = below[np.isfinite(below if below.ndim == 1 else below[:, 0])]
            if len(below) > best:
                below = np.partition(below, len(below) - best, axis=0)[-best:]
            if len(below):
                marks[at] = below.mean(axis=0)
        return marks


def top(relevance: FloatArray, k: int = TOP) -> Positions:
    """The judge's own answer if it could read the whole catalogue: the flat oracle, best first."""
    return np.argsort(-relevance, kind="stable")[:k]


def share(found: npt.ArrayLike, relevance: FloatArray, k: int = TOP) -> float:
    """How much of the judge's best `k` is among the positions `found`.

    Whatever is as relevant as the k-th counts, up to `k`: editions of one title are equal to the
    judge, and its order among them is no taste.
    """
    edge = np.partition(relevance, len(relevance) - k)[len(relevance) - k]
    distinct = np.unique(np.asarray(found, np.int64))
    return min(k, int((relevance[distinct] >= edge).sum())) / k


def noisy(
    scores: npt.ArrayLike,
    options: Sequence[str],
    *,
    reader: str,
    slate: str,
    noise: float,
    bias: float = 0.0,
    position: float = 0.0,
) -> FloatArray:
    """How the judge marks a slate: float32[options] in 0 … 1, the same whenever it is asked.

    `noise` is the standard deviation of each mark, drawn anew for every reader, option and slate;
    the slate as a whole is off by up to ± `bias`; and a mark falls along the slate, by `position`
    at its end.
    """
    offset = bias * (2 * _uniform(reader, slate) - 1)
    errors = [
        noise * _STANDARD.inv_cdf(_uniform(reader, slate, option)) + offset for option in options
    ]
    slope = np.linspace(0, position, len(options))
    marks = np.asarray(scores, np.float32) + np.array(errors, np.float32) - slope
    return np.clip(marks, 0, 1).astype(np.float32)


def _scaled(similarity: FloatArray) -> FloatArray:
    """See Judge; -inf stays, and what is not above 0 is 0."""
    seen = np.isneginf(similarity)
    ordered = np.sort(similarity[~seen])
    better = len(ordered) - np.searchsorted(ordered, similarity, side="right")
    relevance = 1 - np.log1p(better) / np.log(max(2, len(ordered)))
    return np.where(seen, -np.inf, np.where(similarity > 1e-6, relevance, 0)).astype(np.float32)


def _uniform(*key: str) -> float:
    """A number in (0, 1) that depends on the key alone."""
    name = "\0".join(key).encode("utf-8", "surrogatepass")
    return (int.from_bytes(hashlib.blake2b(name, digest_size=6).digest(), "big") + 0.5) / 2**48

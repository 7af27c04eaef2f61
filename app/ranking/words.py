"""`Words`: the words of a need, and what they add to the scores of items that have them.

Vectors find what an item is about; its very words find names, series and model numbers. The two
are mixed in two ways (December 2026; the first by one half of the users of five catalogues and
checked on the other, the second by three catalogues and checked on two more):

- A history: by reciprocal ranks. Sums of similarity and word weights were below one of the two
  parts on one catalogue or another; ranks were not. An item gets the similarity of the item that
  stands at its mixed rank by vectors alone, so that popularity and co-occurrence weigh the same.
- A wish: the similarity plus `wish` times coverage ** 2, where coverage is the share of the wish,
  by idf ** 3, that an item's words cover. So a name counts, whatever words stand around it: "do
  you have the XK2000" finds its item first in .72 of the cases (industrial goods), in .24 with
  idf ** 1 and coverage ** 3, in .18 without words. Mixed ranks made wishes without names worse.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from tree import terms
from tree.rows import IntArray
from tree.snapshot import SemanticTree
from tree.terms import Buckets, bucket_of, buckets_of, idf, read_terms
from tree.vectors import FloatArray
from tree.word_index import WordQuery

_READ = 2**13  # pairs of word and row that a query reads; 2 ** 15 found no more
_WEIGHED = 256  # rows whose word weights are summed, the best by the words they share
_LISTED = 200  # of these, rows that are mixed in
_COMPARED = 500  # the most similar rows, whose ranks change
_TELLING = 3  # power of idf for the words of a wish
_DECIMALS = 3  # of sums that may be of the same words in another order
# For "find me TRA708T please", where as few items say "please" as have that name. Such items came
# first in .24 and .68 of the cases (games, industrial goods), in .84 and .99 with a factor of 3.
_CODE_FACTOR = 10.0
_CODE_LETTERS = 4  # at least: "90s" and "3d" are no names
_BY_WISH = 200  # rows that a beam search gets by the words of a wish

_Positions = npt.NDArray[np.int64]
_Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class WordMix:
    """What words weigh beside vectors; a catalogue with histories may learn its own.

    `history`: a rank by words, relative to one by vectors. `wish`: the whole of a wish's words,
    added to the similarity. `offset` is that of the reciprocal ranks.
    """

    history: float = 1.0
    wish: float = 0.8
    offset: float = 5.0
    power: float = 2.0

    def times(self, factor: float) -> "WordMix":
        """The same with so much weight on words."""
        return WordMix(self.history * factor, self.wish * factor, self.offset, self.power)


@dataclass(frozen=True, slots=True)
class _Matches:
    """Rows that have words of a need, ascending, and how well they match."""

    rows: IntArray
    values: FloatArray

    def among(self, rows: IntArray | None, allowed: _Mask | None) -> tuple[_Positions, FloatArray]:
        """The positions in `rows` (None: the rows themselves) of those that match, and how well."""
        if rows is None:
            there = slice(None) if allowed is None else allowed[self.rows]
            return self.rows[there].astype(np.int64), self.values[there]
        if not len(self.rows) or not len(rows):
            return np.zeros(0, np.int64), self.values[:0]
        # Zeros of a large array cost nothing where nobody writes: faster than a binary search.
        every = np.zeros(max(int(self.rows[-1]), int(rows.max())) + 1, np.float32)
        every[self.rows] = self.values
        found = every[rows]
        positions = np.flatnonzero(found)
        return positions, found[positions]


class Words:
    """The words of a need on one version of the tree. Matches are found once, at the first use."""

    def __init__(
        self, tree: SemanticTree, history: WordQuery, share: float, wishes: Sequence[WordQuery]
    ) -> None:
        """`share` is the weight of the history in the need; see `words_of`."""
        self._index, self._size = tree.rows.words, tree.size
        self._history, self._share = history, share
        self._wishes = tuple(wishes)

    def joined(self, rows: IntArray, mix: WordMix, allowed: _Mask) -> IntArray:
        """Distinct `rows`, and the allowed ones that should be scored for their words."""
        new = np.zeros(self._size, np.bool_)
        if mix.history:
            positions, values = self._by_history.among(None, allowed)
            new[positions[_first(values, _LISTED)]] = True
        if mix.wish:
            positions, coverage = self._by_wish.among(None, allowed)
            new[positions[_first(coverage, _BY_WISH)]] = True
        new[rows] = False
        return np.concatenate([rows, np.flatnonzero(new).astype(np.int32)])

    def mix_into(
        self,
        similarity: FloatArray,
        mix: WordMix,
        rows: IntArray | None = None,
        allowed: _Mask | None = None,
    ) -> None:
        """Change the similarities of `rows`, in place; None: of every row.

        Only `allowed` rows have a rank; None: all have.
        """
        weight = mix.history * self._share
        if weight and not self._history.is_empty:
            listed = self._listed(similarity, rows, allowed)
            if len(listed):
                _mix_ranks(similarity, listed, weight, mix.offset, allowed)
        # Last, so that no history outweighs an item that is asked for by its name.
        if mix.wish and self._wishes:
            positions, coverage = self._by_wish.among(rows, allowed)
            similarity[positions] += np.float32(mix.wish) * coverage ** np.float32(mix.power)

    def _listed(
        self, similarity: FloatArray, rows: IntArray | None, allowed: _Mask | None
    ) -> _Positions:
        """The positions in `rows` with the most of the history's words, best first.

        Of equals, the more similar one comes first.
        """
        positions, values = self._by_history.among(rows, allowed)
        positions = positions[_first(values, _WEIGHED)]
        weighted = self._index.weighted(
            self._history, positions if rows is None else rows[positions]
        )
        order = np.lexsort((-similarity[positions], -np.round(weighted, _DECIMALS)))
        return positions[order[:_LISTED]]

    @cached_property
    def _by_history(self) -> _Matches:
        return _Matches(*self._index.matches(self._history, self._size, _READ))

    @cached_property
    def _by_wish(self) -> _Matches:
        """Coverage of the wish of which a row covers most."""
        found = [self._index.matches(wish, self._size, _READ) for wish in self._wishes]
        if len(found) == 1:
            return _Matches(*found[0])
        rows = np.unique(np.concatenate([np.zeros(0, np.int32), *(rows for rows, _ in found)]))
        best = np.zeros(len(rows), np.float32)
        for some, coverage in found:
            at = np.searchsorted(rows, some)
            best[at] = np.maximum(best[at], coverage)
        return _Matches(rows, best)


def words_of(
    tree: SemanticTree,
    items: Sequence[tuple[int | str, float]],
    share: float,
    wishes: Sequence[str],
) -> Words:
    """The words of a history and of wishes.

    `items` are rows or titles with their weights, and `share` is the weight of them all in the
    need. Words that no item has are ignored.
    """
    index, size = tree.rows.words, tree.size
    rows = [(row, weight) for row, weight in items if isinstance(row, int)]
    buckets, weights = read_terms(index.terms[[row for row, _ in rows]])
    weights = weights * np.array([weight for _, weight in rows], np.float32)[:, None]
    there = weights > 0
    parts: list[tuple[Buckets, FloatArray]] = [(buckets[there], weights[there])]
    for title, weight in items:
        if isinstance(title, str):
            words = buckets_of(title)
            parts.append((words, np.full(len(words), weight, np.float32)))
    distinct, place = np.unique(np.concatenate([some for some, _ in parts]), return_inverse=True)
    sums = np.bincount(place, np.concatenate([some for _, some in parts]), len(distinct))
    telling = index.idf(distinct, size)
    history = WordQuery(distinct, (sums * telling**2).astype(np.float32))
    return Words(tree, history, share, [_wish(tree, text) for text in wishes])


def _wish(tree: SemanticTree, text: str) -> WordQuery:
    factors = {bucket_of(word): _factor(word) for word in terms.words_of(text)}
    buckets = np.array(sorted(factors), np.uint32)
    shares = tree.rows.words.shares(buckets, tree.size)
    buckets, shares = buckets[shares > 0], shares[shares > 0]
    telling = idf(shares, tree.size) ** np.float32(_TELLING)
    telling *= np.array([factors[bucket] for bucket in buckets.tolist()], np.float32)
    return WordQuery(buckets, telling / telling.sum(dtype=np.float32))


def _factor(word: str) -> float:
    """What a word of a wish counts: letters and digits in one word are a name, never small talk."""
    mixed = any(map(str.isdigit, word)) and any(map(str.isalpha, word))
    return _CODE_FACTOR if mixed and len(word) >= _CODE_LETTERS else 1.0


def _first(values: FloatArray, most: int) -> _Positions:
    """Positions of the highest values, at most `most`; in no order."""
    if len(values) <= most:
        return np.arange(len(values))
    return np.argpartition(-values, most)[:most]


def _mix_ranks(
    similarity: FloatArray,
    listed: _Positions,
    weight: float,
    offset: float,
    allowed: _Mask | None,
) -> None:
    """Give the most similar positions and the listed ones each other's similarities.

    Afterwards they are in the order of 1 / (offset + rank by similarity), plus the same by the
    list, times `weight`.
    """
    ranked = similarity if allowed is None else np.where(allowed, similarity, np.float32(-np.inf))
    top = _first(ranked, _COMPARED)
    top = top[np.argsort(-ranked[top], kind="stable")]
    top = top[ranked[top] > -np.inf]
    place = np.full(len(similarity), -1)
    place[top] = np.arange(len(top))
    every = np.concatenate([top, listed[place[listed] < 0]])
    place[every] = np.arange(len(every))
    fused = 1 / (offset + np.minimum(np.arange(len(every)), len(top)))
    fused[place[listed]] += weight / (offset + np.arange(len(listed)))
    similarity[every[np.argsort(-fused, kind="stable")]] = np.sort(similarity[every])[::-1]

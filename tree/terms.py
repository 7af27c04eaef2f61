"""Terms: the words of an item that its vector may lose, as hashed numbers with weights.

256 dimensions tell what an item is about, and lose names, series and model numbers. So an item has,
beside its vector, its 16 most telling words: 3 bytes each, a hash of 20 bits and a weight of 4. On
five catalogues 16 words found as much as 24, and 4 bits as much as 8 (December 2026).
"""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from zlib import crc32

import numpy as np
import numpy.typing as npt

from tree.item import Item
from tree.scripts import spaced

TERMS_PER_ITEM = 16
TERM_BYTES = 3
ROW_BYTES = TERMS_PER_ITEM * TERM_BYTES

Buckets = npt.NDArray[np.uint32]
"""Hashes of words, below 2 ** 20."""
TermMatrix = npt.NDArray[np.uint8]
"""uint8[items, ROW_BYTES]: the terms of items, the most telling ones first, zero for none."""
FloatArray = npt.NDArray[np.float32]
Idf = Callable[[Buckets], FloatArray]
"""How telling words are: inverse document frequency, see `idf`."""

_WORD = re.compile(r"\w+")
_BITS = 20  # of a hash; with 18 bits, the words of a million items share buckets
_LEVEL_BITS = 4
_LEVELS = 2**_LEVEL_BITS - 1  # 0: no term
_LEAST, _STEP = 0.18, 1.2  # weight of the first level, and of each one relative to the one before

# BM25 (Robertson & Zaragoza 2009) with k1 1.5 and b .75. The usual length of a text is a constant,
# so that a weight depends on the item alone: the average of each catalogue measured no better.
_SATURATION, _BY_LENGTH, _USUAL_WORDS = 1.5, 0.75, 40
_TITLE = 1.5  # what a word of the title counts more when the terms are chosen
_COMMON = 0.01  # share of the items above which the share of a word is remembered
_DECIMALS = 4  # ties must not depend on how a machine rounds logarithms


def words_of(text: str) -> list[str]:
    """The words of a text, normalised, in their order; pairs of characters in scripts without
    blanks."""
    return _WORD.findall(spaced(text))


def bucket_of(word: str) -> int:
    """The hash of a word."""
    return crc32(word.encode("utf-8", "surrogatepass")) >> (32 - _BITS)


def buckets_of(text: str) -> Buckets:
    """The distinct hashes of the words of a text, ascending."""
    return np.unique(np.array([bucket_of(word) for word in words_of(text)], np.uint32))


def idf(shares: FloatArray, population: int) -> FloatArray:
    """ln(1 + (n - d + ½) / (d + ½)) for words that d of n items have, given d / n and n."""
    half = 0.5 / max(population, 1)
    return np.log1p((1 - shares + half) / (shares + half)).astype(np.float32)


@dataclass(frozen=True, slots=True)
class WordShares:
    """The share of the items that have each word, of some words; by a sample of a catalogue."""

    buckets: Buckets  # ascending
    shares: FloatArray
    population: int  # items of the sample

    @classmethod
    def none(cls) -> "WordShares":
        """Nothing is known."""
        return cls(np.zeros(0, np.uint32), np.zeros(0, np.float32), 0)

    @classmethod
    def counted(cls, texts: Iterable[str]) -> "WordShares":
        """The shares of all words in some texts."""
        counts: Counter[int] = Counter()
        population = 0
        for text in texts:
            counts.update({bucket_of(word) for word in words_of(text)})
            population += 1
        buckets = np.array(sorted(counts), np.uint32)
        found = np.array([counts[bucket] for bucket in buckets.tolist()], np.float32)
        return cls(buckets, found / np.float32(max(population, 1)), population)

    def common(self) -> "WordShares":
        """Those of common words alone: some hundred to a thousand.

        An item keeps its rarer words, so the items that keep a common one do not tell how many have
        it.
        """
        often = self.shares > _COMMON
        return WordShares(self.buckets[often], self.shares[often], self.population)

    def of(self, buckets: Buckets) -> FloatArray:
        """The share of each of some words; 0 where it is not known."""
        found = np.zeros(len(buckets), np.float32)
        if len(self.buckets):
            at = np.minimum(np.searchsorted(self.buckets, buckets), len(self.buckets) - 1)
            there = self.buckets[at] == buckets
            found[there] = self.shares[at[there]]
        return found

    def idf(self, buckets: Buckets) -> FloatArray:
        """See Idf."""
        return idf(self.of(buckets), self.population)

    def packed(self) -> bytes:
        """As a snapshot stores them."""
        return self.buckets.tobytes() + self.shares.tobytes()

    @classmethod
    def unpacked(cls, data: bytes, population: int) -> "WordShares":
        """The shares back. Raises ValueError when `data` is not what `packed` gave."""
        half = len(data) // 2
        buckets = np.frombuffer(data[:half], np.uint32)
        return cls(buckets, np.frombuffer(data[half:], np.float32), population)


def terms_of(items: Sequence[Item], idf: Idf) -> TermMatrix:
    """The terms of some items: the words with the highest BM25 weight, those of the title first."""
    owners: list[int] = []
    buckets: list[int] = []
    counts: list[int] = []
    titles: list[bool] = []
    lengths: list[int] = []
    for row, item in enumerate(items):
        words = [bucket_of(word) for word in words_of(item.passage.whole)]
        title = set(map(bucket_of, words_of(item.title)))
        found = Counter(words)
        owners += [row] * len(found)
        buckets += found.keys()
        counts += found.values()
        titles += [word in title for word in found]
        lengths.append(len(words))
    owner, bucket = np.array(owners, np.int64), np.array(buckets, np.uint32)
    count, length = np.array(counts, np.float64), np.array(lengths, np.float64)[owner]
    spread = _SATURATION * (1 - _BY_LENGTH + _BY_LENGTH * length / _USUAL_WORDS)
    weight = count * (_SATURATION + 1) / (count + spread)
    telling = weight * idf(bucket) * np.where(titles, _TITLE, 1.0)
    order = np.lexsort((bucket, -np.round(telling, _DECIMALS), owner))
    owner, bucket, weight = owner[order], bucket[order], weight[order]
    place = np.arange(len(owner)) - np.searchsorted(owner, owner)
    kept = place < TERMS_PER_ITEM
    numbers = np.zeros((len(items), TERMS_PER_ITEM), np.uint32)
    numbers[owner[kept], place[kept]] = bucket[kept] << _LEVEL_BITS | _levels(weight[kept])
    raw = numbers.view(np.uint8).reshape(len(items), TERMS_PER_ITEM, 4)
    return np.ascontiguousarray(raw[:, :, :TERM_BYTES]).reshape(len(items), ROW_BYTES)


def read_terms(matrix: TermMatrix) -> tuple[Buckets, FloatArray]:
    """The hashes and weights of some rows of terms, [rows, TERMS_PER_ITEM]; weight 0: no term."""
    wide = np.zeros((len(matrix), TERMS_PER_ITEM, 4), np.uint8)
    wide[:, :, :TERM_BYTES] = matrix.reshape(-1, TERMS_PER_ITEM, TERM_BYTES)
    numbers: Buckets = wide.view(np.uint32)[:, :, 0]
    return numbers >> np.uint32(_LEVEL_BITS), _WEIGHTS[numbers & np.uint32(_LEVELS)]


def _levels(weights: npt.NDArray[np.float64]) -> Buckets:
    steps = np.round(np.round(np.log(weights / _LEAST) / np.log(_STEP), _DECIMALS))
    return np.clip(steps + 1, 1, _LEVELS).astype(np.uint32)


_WEIGHTS = np.concatenate([[0], _LEAST * _STEP ** np.arange(_LEVELS)]).astype(np.float32)

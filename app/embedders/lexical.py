"""The embedder `lexical`: no download, no key, no network; any language."""

import hashlib
import itertools
import re
from collections.abc import Callable, Sequence
from functools import cache, cached_property
from threading import Lock
from typing import TYPE_CHECKING

import mmh3
import msgspec
import numpy as np
import numpy.typing as npt

from tree.blas import use_one_blas_thread
from tree.node import Space
from tree.passage import Text, whole_texts
from tree.vectors import DIMENSIONS, FloatArray, Int8Matrix, quantise

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

_NAME = "lexical"
_BUCKETS = 2**14  # hashed n-grams; 2**18 measured no better and costs 16 times the state
_WHITENING = 0.25  # singular value ** -0.25: rare themes count a little more
_BATCH = 2_000
# Weight of a word, relative to an n-gram of its letters. At 1 a wish for "endurance at sea"
# finds titles that share endings; at 30 names in other spellings are missed.
_WORD_COUNT = 3
_WORD = re.compile(r"\b\w+\b")
_KEPT_WORDS = 32_768  # some 8 MB
_KEPT_LENGTH = 64

_Buckets = npt.NDArray[np.int32]
_Grams = npt.NDArray[np.int32] | npt.NDArray[np.int64]

_importing = Lock()


class _LexicalState(msgspec.Struct, frozen=True, array_like=True):
    population: int
    weights: bytes  # float32[buckets]: inverse document frequency
    rows: bytes  # int32[known buckets]
    scale: bytes  # float32[known buckets]
    projection: bytes  # int8[known buckets, dimensions]


class LexicalEmbedder:
    """Character and word n-gram TF-IDF, reduced by truncated SVD (latent semantic indexing).

    N-grams of 3–5 characters inside words and 1–2 words share one hashed feature space, so that any
    script works and nothing is stored per word. Unfitted, the projection is a random one (Johnson &
    Lindenstrauss 1984), which is enough for a catalogue's first items.
    """

    is_fast = True

    def __init__(self, space: Space | None = None) -> None:
        self.space = space or Space(_NAME, f"{_NAME}-unfitted")

    @classmethod
    def fit(
        cls,
        texts: Sequence[Text],
        *,
        population: int | None = None,
        seed: int = 0,
        dimensions: int = DIMENSIONS,
    ) -> "LexicalEmbedder":
        """Learn weights and projection from the texts of a catalogue of `population` items.

        `texts` may be a sample (see `fit_sample`). Deterministic in `texts` and `seed`. With fewer
        texts than dimensions the remaining components are left out.
        """
        if not texts:
            return cls.unfitted(dimensions)
        randomized_svd = _randomized_svd()
        counts = _features(whole_texts(texts))
        present = np.bincount(counts.indices, minlength=_BUCKETS)
        weights = (np.log((1 + len(texts)) / (1 + present)) + 1).astype(np.float32)
        weighted = _weigh(counts, weights)
        components = min(dimensions, min(weighted.shape) - 1, int((present > 0).sum()))
        if components < 1:
            return cls.unfitted(dimensions)
        use_one_blas_thread()
        _, values, basis = randomized_svd(weighted, components, n_iter=2, random_state=seed)
        kept = values > values[0] * 1e-4
        projection = np.zeros((_BUCKETS, dimensions), np.float32)
        projection[:, : kept.sum()] = basis[kept].T * values[kept] ** -_WHITENING
        rows = np.flatnonzero(present).astype(np.int32)
        peak = np.abs(projection[rows]).max(axis=1)
        state = msgspec.msgpack.encode(
            _LexicalState(
                len(texts) if population is None else population,
                weights.tobytes(),
                rows.tobytes(),
                (peak / 127).astype(np.float32).tobytes(),
                quantise(projection[rows]).tobytes(),
            )
        )
        fingerprint = f"{_NAME}-{hashlib.sha256(state).hexdigest()[:16]}"
        return cls(Space(_NAME, fingerprint, state, dimensions))

    @classmethod
    def unfitted(cls, dimensions: int = DIMENSIONS) -> "LexicalEmbedder":
        """For the first items of a catalogue."""
        return cls(Space(_NAME, f"{_NAME}-unfitted", b"", dimensions))

    @cached_property
    def population(self) -> int:
        """See Embedder."""
        if not self.space.state:
            return 0
        return msgspec.msgpack.decode(self.space.state, type=_LexicalState).population

    def encode(
        self,
        texts: Sequence[Text],
        *,
        timeout_s: float | None = None,  # noqa: ARG002
    ) -> Int8Matrix:
        """See Embedder."""
        out = np.empty((len(texts), self.space.dimensions), np.int8)
        for start in range(0, len(texts), _BATCH):
            some = whole_texts(texts[start : start + _BATCH])
            out[start : start + _BATCH] = quantise(self.vectors(some))
        return out

    def vectors(self, texts: Sequence[str]) -> FloatArray:
        """float32[texts, dimensions], of any length; zero for a text without known content."""
        weights, projection = self._model
        vectors: FloatArray = _weigh(_features(texts), weights) @ projection
        return vectors

    @cached_property
    def _model(self) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        """Weight per bucket, and the projection float32[buckets, dimensions]."""
        if not self.space.state:
            shape = _BUCKETS, self.space.dimensions
            signs = np.random.default_rng(0).integers(0, 2, shape, np.int8)
            return np.ones(_BUCKETS, np.float32), signs.astype(np.float32) * 2 - 1
        state = msgspec.msgpack.decode(self.space.state, type=_LexicalState)
        rows = np.frombuffer(state.rows, np.int32)
        known = np.frombuffer(state.projection, np.int8).reshape(len(rows), -1)
        projection = np.zeros((_BUCKETS, self.space.dimensions), np.float32)
        projection[rows] = known * np.frombuffer(state.scale, np.float32)[:, None]
        return np.frombuffer(state.weights, np.float32), projection


def _features(texts: Sequence[str]) -> "csr_matrix":
    """Hashed n-gram counts, damped to 1 + ln(count): float32[len(texts), buckets]."""
    from scipy.sparse import csr_matrix

    grams = _hasher().grams(texts)
    grams.sort()  # numpy's sort of integers takes a fifth of csr_matrix.sum_duplicates
    first = np.flatnonzero(np.diff(grams, prepend=-1))
    times = np.diff(first, append=len(grams)).astype(np.float32)
    ends = np.searchsorted(grams[first], np.arange(len(texts) + 1) * _BUCKETS)
    counts = csr_matrix(
        (times, (grams[first] % _BUCKETS).astype(np.int32), ends.astype(np.int32)),
        (len(texts), _BUCKETS),
    )
    np.log(counts.data, out=counts.data)
    counts.data += 1
    return counts


def _weigh(counts: "csr_matrix", weights: npt.NDArray[np.float32]) -> "csr_matrix":
    """The counts times the weights, every row of length 1."""
    data = counts.data
    data *= weights[counts.indices]
    texts, grams = counts.shape[0], np.diff(counts.indptr)
    lengths = np.sqrt(np.bincount(np.repeat(np.arange(texts), grams), data * data, texts))
    lengths[lengths == 0] = 1
    np.divide(data, np.repeat(lengths, grams), out=data, casting="same_kind")
    return counts


def _randomized_svd() -> Callable[..., tuple[FloatArray, FloatArray, FloatArray]]:
    """Import what is used of scikit-learn: takes a second, and one thread at a time.

    Its modules import each other in circles, in which a second thread finds one half initialised.
    """
    with _importing:
        from sklearn.utils.extmath import randomized_svd
    return randomized_svd


class _NgramHasher:
    """The buckets of a text's n-grams.

    The n-grams of recent words are kept, as words repeat: hashing took nine tenths of the time of
    an embedding.
    """

    def __init__(self) -> None:
        self._by_word: dict[str, _Buckets] = {}
        self._by_name: dict[str, int] = {}

    def grams(self, texts: Sequence[str]) -> "_Grams":
        """The bucket of every n-gram, repeated by its weight, in no order.

        The buckets of text n are counted from n times their number on.
        """
        letters: list[_Buckets] = []  # one array per word: all are put together at once
        words: list[int] = []
        ends = np.zeros((2, len(texts) + 1), np.int64)
        for row, text in enumerate(map(str.lower, texts), 1):
            by_word, by_name = self._by_word, self._by_name
            letters += [
                self._letter_buckets(word) if (known := by_word.get(word)) is None else known
                for word in text.split()
            ]
            names = _WORD.findall(text)
            names += list(map(" ".join, itertools.pairwise(names)))
            words += [
                self._word_bucket(name) if (bucket := by_name.get(name)) is None else bucket
                for name in names
            ]
            ends[:, row] = len(letters), len(words)
        narrow = len(texts) < 2**31 // _BUCKETS  # sorted in half the time
        starts = np.arange(len(texts), dtype=np.int32 if narrow else np.int64) * _BUCKETS
        words_of, names_of = np.diff(ends)
        of_letters = np.repeat(np.repeat(starts, words_of), list(map(len, letters)))
        named = np.array(words, np.int32) + np.repeat(starts, names_of)
        return np.concatenate(
            [np.concatenate([np.zeros(0, np.int32), *letters]) + of_letters, *[named] * _WORD_COUNT]
        )

    def _letter_buckets(self, word: str) -> "_Buckets":
        """The buckets of the 3 to 5 characters of a word, with a blank at each end."""
        padded = f" {word} "
        grams = [
            self._bucket(padded[start : start + size])
            for size in range(3, 6)
            for start in range(len(padded) - size + 1)
        ]
        buckets = np.array(grams, np.int32)
        if len(word) <= _KEPT_LENGTH:
            if len(self._by_word) >= _KEPT_WORDS:
                self._by_word = {}  # not cleared: another thread may be using it
            self._by_word[word] = buckets
        return buckets

    def _word_bucket(self, name: str) -> int:
        """The bucket of a word, or of two in a row."""
        bucket = self._bucket(f"\0{name}")
        if len(name) <= _KEPT_LENGTH:
            if len(self._by_name) >= 2 * _KEPT_WORDS:
                self._by_name = {}
            self._by_name[name] = bucket
        return bucket

    def _bucket(self, gram: str) -> int:
        # As bytes: mmh3 5 reads memory that is not its own where half a surrogate pair has none.
        return abs(mmh3.hash(gram.encode(errors="replace"))) % _BUCKETS


_hasher = cache(_NgramHasher)  # one for all embedders: it does not depend on their state

"""The embedder `hybrid`: how words are spelt, and what they mean, in one vector."""

import hashlib
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import NamedTuple

import msgspec
import numpy as np

from app.embedders.lexical import LexicalEmbedder
from app.embedders.static_vectors import static_vectors
from tree.blas import use_one_blas_thread
from tree.errors import EmbedderUnusable
from tree.node import Space
from tree.passage import Passage, Text, passages_of, whole_texts
from tree.scripts import spaced
from tree.vectors import DIMENSIONS, FloatArray, Int8Matrix, quantise, unit_rows


class Shares(NamedTuple):
    """How much spelling counts: its share of the squared length of a vector."""

    item: float
    wish: float


NAME = "hybrid"
MEANING = 160  # of the dimensions; 128 and 192 find as much, 96 less
SPELLING = DIMENSIONS - MEANING
_SHARES = Shares(item=0.5, wish=0.15)
_LEAST_VARIANCE = 1e-6  # of an axis, against that of the first
_WHITENING = 0.25  # singular value ** -0.25, as in `lexical`
FIT_TEXTS = 64  # axes and frequencies of fewer hide what the next texts are about
_AXES_TEXTS = 1_000  # of fewer, the table's first columns tell more than the texts' main axes
_BATCH = 2_000


class _HybridState(msgspec.Struct, frozen=True, array_like=True):
    table: str  # the digest of the table of word vectors
    spelling: bytes  # the state of the lexical part
    weights: bytes  # float16[tokens]: inverse document frequency
    axes: bytes  # float16[width of the table, dimensions of the meaning]


class HybridEmbedder:
    """A lexical part, fitted to the catalogue, beside the mean of static token vectors.

    The tokens are weighted by their inverse document frequency in the catalogue, and their mean is
    projected onto the main axes of the catalogue's own texts, where there are many. The two parts
    have length √s and √(1 - s), where s is .5 for an item and .15 for a wish: meaning is half of
    the cosine of two items, and .7 of that of a wish and an item.
    """

    is_fast = True

    def __init__(self, space: Space | None = None) -> None:
        self.space = space or Space(NAME, f"{NAME}-unfitted")

    @classmethod
    def fit(
        cls, texts: Sequence[Text], *, population: int | None = None, seed: int = 0
    ) -> "HybridEmbedder":
        """Learn both parts from the texts of a catalogue of `population` items.

        `texts` may be a sample (see `fit_sample`). Deterministic in `texts` and `seed`.
        Raises EmbedderUnusable.
        """
        if len(texts) < FIT_TEXTS:
            return cls()
        wholes = whole_texts(texts)
        spelling = LexicalEmbedder.fit(
            [spaced(text) for text in wholes],
            population=population,
            seed=seed,
            dimensions=SPELLING,
        )
        if not spelling.space.state:
            return cls()
        weights, axes = _weights_and_axes(wholes)
        state = msgspec.msgpack.encode(
            _HybridState(
                static_vectors().digest,
                spelling.space.state,
                weights.astype(np.float16).tobytes(),
                axes.astype(np.float16).tobytes(),
            )
        )
        fingerprint = f"{NAME}-{hashlib.sha256(state).hexdigest()[:16]}"
        return cls(Space(NAME, fingerprint, state))

    @property
    def population(self) -> int:
        """See Embedder."""
        return self._spelling.population

    def encode(
        self,
        texts: Sequence[Text],
        *,
        timeout_s: float | None = None,  # noqa: ARG002
    ) -> Int8Matrix:
        """See Embedder. Raises EmbedderUnusable where the table of word vectors is another one."""
        out = np.empty((len(texts), DIMENSIONS), np.int8)
        for start in range(0, len(texts), _BATCH):
            some = passages_of(texts[start : start + _BATCH])
            spelt = self._spelling.vectors([spaced(passage.whole) for passage in some])
            meanings = of_text_and_line(some, self._meanings_of_texts)
            out[start : start + len(some)] = blended(some, spelt, meanings, _SHARES)
        return out

    def _meanings_of_texts(self, texts: Sequence[str]) -> FloatArray:
        meanings: FloatArray = static_vectors().damped_counts(texts) @ self._tokens
        return meanings

    @cached_property
    def _spelling(self) -> LexicalEmbedder:
        if self._state is None:
            return LexicalEmbedder.unfitted(SPELLING)
        return LexicalEmbedder(
            Space("lexical", self.space.fingerprint, self._state.spelling, SPELLING)
        )

    @cached_property
    def _state(self) -> _HybridState | None:
        if not self.space.state:
            return None
        return msgspec.msgpack.decode(self.space.state, type=_HybridState)

    @cached_property
    def _tokens(self) -> FloatArray:
        """float32[tokens, dimensions of the meaning]: the vector of each token, weighted."""
        table = static_vectors().table
        if self._state is None:  # the first columns of the table tell the most
            return np.ascontiguousarray(table[:, :MEANING])
        if self._state.table != static_vectors().digest:
            raise EmbedderUnusable(
                "this catalogue was embedded with other word vectors than those of the installed "
                "wordllama: install the packages of requirements.lock, or rebuild the catalogue"
            )
        weights = np.frombuffer(self._state.weights, np.float16).astype(np.float32)
        axes = np.frombuffer(self._state.axes, np.float16).astype(np.float32)
        return np.matmul(table * weights[:, None], axes.reshape(-1, MEANING), dtype=np.float32)


def blended(
    passages: Sequence[Passage], spelt: FloatArray, meanings: FloatArray, shares: Shares
) -> Int8Matrix:
    """Two vectors of each passage in one: their lengths say how much each part counts."""
    wishes = np.array([passage.is_wish for passage in passages], bool)[:, None]
    share = np.where(wishes, shares.wish, shares.item).astype(np.float32)
    parts = np.sqrt(share) * unit_rows(spelt), np.sqrt(1 - share) * unit_rows(meanings)
    return quantise(np.concatenate(parts, axis=1))


def of_text_and_line(
    passages: Sequence[Passage], meanings_of: Callable[[Sequence[str]], FloatArray]
) -> FloatArray:
    """float32[passages, …], of any length: a text and its line count alike, however long."""
    meanings = meanings_of([passage.text for passage in passages])
    with_line = [at for at, passage in enumerate(passages) if passage.line]
    if with_line:
        lines = meanings_of([passages[at].line for at in with_line])
        meanings[with_line] = unit_rows(meanings[with_line]) + unit_rows(lines)
    return meanings


def _weights_and_axes(
    texts: Sequence[str],
) -> tuple[FloatArray, FloatArray]:
    """The weight of every token, and the main axes of the texts, whitened a little."""
    model = static_vectors()
    counts = model.damped_counts(texts)
    present = np.bincount(counts.indices, minlength=len(model.table))
    weights = (np.log((1 + len(texts)) / (1 + present)) + 1).astype(np.float32)
    counts.data *= weights[counts.indices]
    if len(texts) < _AXES_TEXTS:
        return weights, np.eye(model.table.shape[1], MEANING, dtype=np.float32)
    use_one_blas_thread()
    vectors = unit_rows(counts @ model.table).astype(np.float64)
    variances, axes = np.linalg.eigh(vectors.T @ vectors)
    best = np.argsort(-variances, kind="stable")[:MEANING]
    spread = np.sqrt(np.maximum(variances[best], variances[best[0]] * _LEAST_VARIANCE))
    whitened: FloatArray = (axes[:, best] * (spread / spread[0]) ** -_WHITENING).astype(np.float32)
    return weights, whitened

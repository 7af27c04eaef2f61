"""The kinds `hybrid+…`: how words are spelt, and what a text model says they mean."""

import hashlib
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import ClassVar

import msgspec
import numpy as np

from app.embedders.hybrid import (
    FIT_TEXTS,
    MEANING,
    SPELLING,
    HybridEmbedder,
    Shares,
    blended,
    of_text_and_line,
)
from app.embedders.lexical import LexicalEmbedder
from app.embedders.text_model import FittedModel, ModelState, TextModelKind
from tree.node import Space
from tree.passage import Text, passages_of, whole_texts
from tree.scripts import spaced
from tree.vectors import DIMENSIONS, FloatArray, Int8Matrix

_PREFIX = "hybrid+"
# Chosen with MiniLM on half of the users and wishes of four catalogues: less spelling than in
# `hybrid`, as a model tells more than static vectors.
_SHARES = Shares(item=0.3, wish=0.1)
_WHITENING = 0.125
_BATCH = 1_000


class _HybridModelState(msgspec.Struct, frozen=True, array_like=True):
    spelling: bytes  # the state of the lexical part; empty for an unfitted one
    model: ModelState


class HybridModelEmbedder:
    """See Embedder. As HybridEmbedder, with the vectors of a text model for what words mean.

    The model reads the text of an item and its line apart; both count alike.
    """

    is_fast = False

    def __init__(self, space: Space, kind: TextModelKind) -> None:
        self.space = space
        self._kind = kind

    @classmethod
    def fit(
        cls,
        kind: TextModelKind,
        model: str,
        texts: Sequence[Text],
        population: int,
        *,
        seed: int = 0,
    ) -> "HybridModelEmbedder":
        """An embedder for a catalogue of `population` items. Raises EmbedderUnavailable."""
        passages = passages_of(texts)
        spelling = LexicalEmbedder.unfitted(SPELLING)
        if len(passages) >= FIT_TEXTS:
            spelling = LexicalEmbedder.fit(
                [spaced(whole) for whole in whole_texts(passages)],
                population=population,
                seed=seed,
                dimensions=SPELLING,
            )
        read = [passage.text for passage in passages]
        read += [passage.line for passage in passages if passage.line]
        fitted = FittedModel.fit(kind, model, read, population, MEANING, _WHITENING)
        state = msgspec.msgpack.encode(_HybridModelState(spelling.space.state, fitted))
        own = f"{_PREFIX}{kind.name}"
        fingerprint = f"{own}-{hashlib.sha256(state).hexdigest()[:16]}"
        return cls(Space(own, fingerprint, state), kind)

    @property
    def population(self) -> int:
        """See Embedder."""
        return self._state.model.population

    def encode(
        self,
        texts: Sequence[Text],
        *,
        timeout_s: float | None = None,
    ) -> Int8Matrix:
        """See Embedder."""
        out = np.empty((len(texts), DIMENSIONS), np.int8)
        passages = passages_of(texts)
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        meanings = of_text_and_line(passages, partial(self._meanings, deadline=deadline))
        for start in range(0, len(passages), _BATCH):
            some = slice(start, start + _BATCH)
            spelt = self._spelling.vectors([spaced(passage.whole) for passage in passages[some]])
            out[some] = blended(passages[some], spelt, meanings[some], _SHARES)
        return out

    def _meanings(self, texts: Sequence[str], deadline: float | None) -> FloatArray:
        vectors = np.zeros((len(texts), MEANING), np.float32)
        left = None if deadline is None else deadline - time.monotonic()
        found = self._model.encode(texts, left)
        vectors[:, : found.shape[1]] = found
        return vectors

    @cached_property
    def _spelling(self) -> LexicalEmbedder:
        state = self._state.spelling
        if not state:
            return LexicalEmbedder.unfitted(SPELLING)
        return LexicalEmbedder(Space("lexical", self.space.fingerprint, state, SPELLING))

    @cached_property
    def _model(self) -> FittedModel:
        return FittedModel(self._kind, self._state.model)

    @cached_property
    def _state(self) -> _HybridModelState:
        return msgspec.msgpack.decode(self.space.state, type=_HybridModelState)


@dataclass(frozen=True, slots=True)
class HybridModelKind:
    """See EmbedderKind: `hybrid+KIND`, for a kind of text models."""

    models: TextModelKind
    first_space: ClassVar[Space] = HybridEmbedder().space  # a model has to be fitted

    @property
    def name(self) -> str:
        """See EmbedderKind."""
        return f"{_PREFIX}{self.models.name}"

    @property
    def takes_model(self) -> bool:
        """See EmbedderKind."""
        return self.models.takes_model

    @property
    def is_local(self) -> bool:
        """See EmbedderKind."""
        return self.models.is_local

    def fit(
        self, model: str, texts: Sequence[Text], population: int, *, seed: int
    ) -> HybridModelEmbedder:
        """See EmbedderKind."""
        return HybridModelEmbedder.fit(self.models, model, texts, population, seed=seed)

    def open(self, space: Space) -> HybridModelEmbedder:
        """See EmbedderKind."""
        return HybridModelEmbedder(space, self.models)

    def check(self, model: str, timeout_s: float | None) -> None:
        """See EmbedderKind."""
        HybridEmbedder().encode(["a test"])
        self.models.check(model, timeout_s)

    def close(self) -> None:
        """See EmbedderKind. The kind of the model closes its connections itself."""

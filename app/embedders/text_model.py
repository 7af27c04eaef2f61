"""Embedders over text models: vectors of any width become those of a tree."""

import hashlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import msgspec
import numpy as np
import numpy.typing as npt

from app.embedders.kept_vectors import SAME_MODEL
from app.embedders.known_texts import TextModel, known_texts
from app.embedders.lexical import LexicalEmbedder
from tree.errors import EmbedderUnavailable, EmbedderUnusable
from tree.node import Space
from tree.passage import Text, whole_texts
from tree.vectors import DIMENSIONS, FloatArray, Int8Matrix, quantise, unit_rows

_PROBE = "A quick brown fox reads the news."  # its vector identifies a model
# Texts that are embedded only to compute the axes, and may cost money. The axes of 4,096 games keep
# 98.70 % of the variance of 8,430, the axes of all games 98.75 % (MiniLM, 2026-11).
_FIT_TEXTS = 4_096
_CHECKED_S = 300.0  # until the model is checked again
_AT_ONCE = 1_024  # texts at a time whose wide vectors are in memory


@dataclass(frozen=True, slots=True)
class TextModelKind:
    """See EmbedderKind: text models by name. `open_model` raises EmbedderUnavailable."""

    name: str
    open_model: Callable[[str], TextModel]
    is_local: bool
    close: Callable[[], None] = lambda: None
    takes_model: ClassVar[bool] = True
    first_space: ClassVar[Space] = LexicalEmbedder().space  # a model has to be fitted

    def fit(
        self,
        model: str,
        texts: Sequence[Text],
        population: int,
        *,
        seed: int,  # noqa: ARG002 - the axes of a model need none
    ) -> "ModelEmbedder":
        """See EmbedderKind."""
        return ModelEmbedder.fit(self, model, whole_texts(texts), population)

    def open(self, space: Space) -> "ModelEmbedder":
        """See EmbedderKind."""
        return ModelEmbedder(space, self)

    def check(self, model: str, timeout_s: float | None) -> None:
        """See EmbedderKind."""
        self.open_model(model).vectors(["a test"], timeout_s)

    def known_texts(self, opened: TextModel, model: str, probe: FloatArray) -> TextModel:
        """`opened`, asked only for new texts; a local model computes faster in other processes."""
        return opened if self.is_local else known_texts(opened, f"{self.name}:{model}", probe)


class _ModelState(msgspec.Struct, frozen=True, array_like=True):
    population: int
    model: str
    probe: bytes  # float32[width of the model]
    projection: bytes  # float16[width, DIMENSIONS]; empty for a model that is not wider


class ModelEmbedder:
    """See Embedder: a text model, and a projection to the width of a tree's vectors.

    Vectors of wider models are projected onto the main axes of the catalogue's own texts (the best
    256 of MiniLM's 384 dimensions hold almost everything). A text's vector may differ in a bit
    between machines. A model other than the one it was fitted with is refused; this is checked
    after every failure, and every few minutes.
    """

    is_fast = False

    def __init__(self, space: Space, kind: TextModelKind, *, checked_s: float = _CHECKED_S) -> None:
        self.space = space
        self._checked_s = checked_s
        self._kind = kind
        self._checked_until = 0.0

    @classmethod
    def fit(
        cls, kind: TextModelKind, model: str, texts: Sequence[str], population: int
    ) -> "ModelEmbedder":
        """An embedder for a catalogue of `population` items. Raises EmbedderUnavailable."""
        opened = kind.open_model(model)
        [probe] = _unit(opened.vectors([_PROBE]))
        projection = b""
        if len(probe) > DIMENSIONS:
            said = [text for text in texts if text.strip()]
            known = kind.known_texts(opened, model, probe)
            axes = _axes(known, said[:: -(-len(said) // _FIT_TEXTS) or 1], len(probe))
            projection = axes.astype(np.float16).tobytes()
        state = msgspec.msgpack.encode(_ModelState(population, model, probe.tobytes(), projection))
        name = f"{kind.name}-{hashlib.sha256(state).hexdigest()[:16]}"
        return cls(Space(kind.name, name, state), kind)

    @property
    def population(self) -> int:
        """See Embedder."""
        return self._state.population

    def encode(
        self,
        texts: Sequence[Text],
        *,
        timeout_s: float | None = None,
    ) -> Int8Matrix:
        """See Embedder. Blank texts are not sent to the model."""
        out = np.zeros((len(texts), self.space.dimensions), np.int8)
        wholes = whole_texts(texts)
        said = [at for at, text in enumerate(wholes) if text.strip()]
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        known = self._kind.known_texts(self, self._state.model, self._probe)
        for start in range(0, len(said), _AT_ONCE):
            some = said[start : start + _AT_ONCE]
            vectors = _unit(known.vectors([wholes[at] for at in some], _left(deadline)))
            if self._projection is not None:
                vectors = vectors @ self._projection
            out[some, : vectors.shape[1]] = quantise(vectors)
        return out

    def vectors(self, texts: Sequence[str], timeout_s: float | None = None) -> FloatArray:
        """See TextModel: vectors of the model, after a check of it if one is due."""
        model, known = self._kind.open_model(self._state.model), self._probe
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        try:
            now = time.monotonic()
            if now >= self._checked_until:  # alone: some models give other vectors in a batch
                [probe] = _unit(model.vectors([_PROBE], _left(deadline)))
                if len(probe) != len(known) or float(known @ probe) < SAME_MODEL:
                    raise self._wrong_model()
                self._checked_until = now + self._checked_s
            vectors = model.vectors(texts, _left(deadline))
            if vectors.shape[1] != len(known):
                raise self._wrong_model()
        except EmbedderUnavailable:
            self._checked_until = 0.0
            raise
        return vectors

    def _wrong_model(self) -> EmbedderUnusable:
        return EmbedderUnusable(
            f"'{self._kind.name}:{self._state.model}' is not the model that this catalogue was "
            "embedded with: put that one back, or rebuild the catalogue"
        )

    @cached_property
    def _probe(self) -> npt.NDArray[np.float32]:
        return np.frombuffer(self._state.probe, np.float32)

    @cached_property
    def _state(self) -> _ModelState:
        return msgspec.msgpack.decode(self.space.state, type=_ModelState)

    @cached_property
    def _projection(self) -> npt.NDArray[np.float32] | None:
        if not self._state.projection:
            return None
        axes = np.frombuffer(self._state.projection, np.float16).astype(np.float32)
        return axes.reshape(-1, self.space.dimensions)


def _left(deadline: float | None) -> float | None:
    return None if deadline is None else deadline - time.monotonic()


def _axes(model: TextModel, texts: Sequence[str], width: int) -> npt.NDArray[np.float64]:
    """The main axes of some texts: float64[width, DIMENSIONS]."""
    gram = np.zeros((width, width))
    for start in range(0, len(texts), _AT_ONCE):
        some = _unit(model.vectors(texts[start : start + _AT_ONCE])).astype(np.float64)
        if some.shape[1] != width:
            raise EmbedderUnavailable("the model answers with vectors of different widths")
        gram += some.T @ some
    _, axes = np.linalg.eigh(gram)
    return axes[:, : -DIMENSIONS - 1 : -1]


def _unit(vectors: FloatArray) -> FloatArray:
    if not np.isfinite(vectors).all():
        raise EmbedderUnavailable("the model answers with values that are not finite numbers")
    return unit_rows(vectors)

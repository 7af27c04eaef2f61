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
from tree.blas import use_one_blas_thread
from tree.errors import EmbedderUnavailable, EmbedderUnusable
from tree.node import Space
from tree.passage import Text, whole_texts
from tree.vectors import DIMENSIONS, FloatArray, Int8Matrix, quantise, unit_rows

_PROBE = "A quick brown fox reads the news."  # its vector identifies a model
# Texts that are embedded only to compute the axes, and may cost money. The axes of 4,096 games keep
# 98.70 % of the variance of 8,430, the axes of all games 98.75 % (MiniLM, 2026-11).
_FIT_TEXTS = 4_096
_CHECKED_S = 300.0  # until the model is checked again
_SCALED_TEXTS = 1_000  # of fewer, small variances are those of a few texts
_LEAST_VARIANCE = 1e-6  # of an axis, against that of the first
_AT_ONCE = 1_024  # texts at a time whose wide vectors are in memory


@dataclass(frozen=True, slots=True)
class TextModelKind:
    """See EmbedderKind: text models by name. `open_model` raises EmbedderUnavailable."""

    name: str
    open_model: Callable[[str], TextModel]
    is_local: bool
    close: Callable[[], None] = lambda: None
    takes_model: bool = True
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
        return opened if self.is_local else known_texts(opened, self.full_name(model), probe)

    def full_name(self, model: str) -> str:
        """The name of an embedder of this kind."""
        return f"{self.name}:{model}" if self.takes_model else self.name


class ModelState(msgspec.Struct, frozen=True, array_like=True):
    """What has to be stored to recognise a model and to get the same vectors from it."""

    population: int
    model: str
    probe: bytes  # float32[width of the model]
    projection: bytes  # float16[width, dimensions]; empty for a model that is not wider


class FittedModel:
    """A text model with the main axes of a catalogue's texts.

    Vectors of wider models are projected onto these axes (the best 256 of MiniLM's 384 dimensions
    hold almost everything). A text's vector may differ in a bit between machines. A model other
    than the one it was fitted with is refused; this is checked after every failure, and every few
    minutes.
    """

    def __init__(
        self, kind: TextModelKind, state: ModelState, *, checked_s: float = _CHECKED_S
    ) -> None:
        self._kind = kind
        self._state = state
        self._checked_s = checked_s
        self._checked_until = 0.0

    @staticmethod
    def fit(
        kind: TextModelKind,
        model: str,
        texts: Sequence[str],
        population: int,
        dimensions: int,
        whitening: float = 0.0,
    ) -> ModelState:
        """The state for a catalogue of `population` items. Raises EmbedderUnavailable.

        Each axis is scaled by its singular value ** -`whitening` where there are many texts.
        """
        opened = kind.open_model(model)
        [probe] = _unit(opened.vectors([_PROBE]))
        projection = b""
        if len(probe) > dimensions:
            said = [text for text in texts if text.strip()]
            known = kind.known_texts(opened, model, probe)
            some = said[:: -(-len(said) // _FIT_TEXTS) or 1]
            scaled = whitening if len(some) >= _SCALED_TEXTS else 0.0
            axes = _axes(known, some, len(probe), dimensions, scaled)
            projection = axes.astype(np.float16).tobytes()
        return ModelState(population, model, probe.tobytes(), projection)

    def encode(self, texts: Sequence[str], timeout_s: float | None = None) -> FloatArray:
        """float32[texts, dimensions or fewer], zero for a blank text, which no model gets.

        For `timeout_s` see Embedder. Raises EmbedderUnavailable.
        """
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        axes = self._projection
        width = len(self._probe) if axes is None else axes.shape[1]
        out = np.zeros((len(texts), width), np.float32)
        said = [at for at, text in enumerate(texts) if text.strip()]
        known = self._kind.known_texts(self, self._state.model, self._probe)
        for start in range(0, len(said), _AT_ONCE):
            some = said[start : start + _AT_ONCE]
            vectors = _unit(known.vectors([texts[at] for at in some], _left(deadline)))
            out[some] = vectors if axes is None else vectors @ axes
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
            f"'{self._kind.full_name(self._state.model)}' is not the model that this catalogue "
            "was embedded with: put that one back, or rebuild the catalogue"
        )

    @cached_property
    def _probe(self) -> npt.NDArray[np.float32]:
        return np.frombuffer(self._state.probe, np.float32)

    @cached_property
    def _projection(self) -> npt.NDArray[np.float32] | None:
        if not self._state.projection:
            return None
        axes = np.frombuffer(self._state.projection, np.float16).astype(np.float32)
        return axes.reshape(len(self._probe), -1)


class ModelEmbedder:
    """See Embedder: a text model alone."""

    is_fast = False

    def __init__(self, space: Space, kind: TextModelKind, *, checked_s: float = _CHECKED_S) -> None:
        self.space = space
        self._kind = kind
        self._checked_s = checked_s

    @classmethod
    def fit(
        cls, kind: TextModelKind, model: str, texts: Sequence[str], population: int
    ) -> "ModelEmbedder":
        """An embedder for a catalogue of `population` items. Raises EmbedderUnavailable."""
        fitted = FittedModel.fit(kind, model, texts, population, DIMENSIONS)
        state = msgspec.msgpack.encode(fitted)
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
        """See Embedder."""
        out = np.zeros((len(texts), self.space.dimensions), np.int8)
        vectors = self._model.encode(whole_texts(texts), timeout_s)
        out[:, : vectors.shape[1]] = quantise(vectors)
        return out

    @cached_property
    def _model(self) -> FittedModel:
        return FittedModel(self._kind, self._state, checked_s=self._checked_s)

    @cached_property
    def _state(self) -> ModelState:
        return msgspec.msgpack.decode(self.space.state, type=ModelState)


def _left(deadline: float | None) -> float | None:
    return None if deadline is None else deadline - time.monotonic()


def _axes(
    model: TextModel, texts: Sequence[str], width: int, dimensions: int, whitening: float
) -> npt.NDArray[np.float64]:
    """The main axes of some texts, scaled: float64[width, dimensions]."""
    use_one_blas_thread()
    gram = np.zeros((width, width))
    for start in range(0, len(texts), _AT_ONCE):
        some = _unit(model.vectors(texts[start : start + _AT_ONCE])).astype(np.float64)
        if some.shape[1] != width:
            raise EmbedderUnavailable("the model answers with vectors of different widths")
        gram += some.T @ some
    variances, axes = np.linalg.eigh(gram)
    best: npt.NDArray[np.float64] = axes[:, : -dimensions - 1 : -1]
    if not whitening or not variances[-1] > 0:
        return best
    spread = np.sqrt(np.maximum(variances[: -dimensions - 1 : -1] / variances[-1], _LEAST_VARIANCE))
    return best * spread**-whitening


def _unit(vectors: FloatArray) -> FloatArray:
    if not np.isfinite(vectors).all():
        raise EmbedderUnavailable("the model answers with values that are not finite numbers")
    return unit_rows(vectors)

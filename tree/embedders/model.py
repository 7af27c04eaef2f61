"""Embedders over text models: how the vectors of any model become ours."""

import hashlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import msgspec
import numpy as np
import numpy.typing as npt

from tree.errors import EmbedderUnavailable, EmbedderUnusable
from tree.node import Space
from tree.vectors import DIMENSIONS, FloatArray, Int8Matrix, quantise

_PROBE = "A quick brown fox reads the news."  # how a model is recognised
_SAME = 0.99  # cosine of the probe; another machine's arithmetic stays far above it
# Texts that the axes are found with. Every one is embedded for that alone, and may cost money:
# the axes of 4,096 games keep 98.70 % of what MiniLM says of 8,430, those of all 98.75 % (2026-11).
_FIT_TEXTS = 4_096
_RECOGNISED_S = 300.0  # another model may have been put in its place by then
_AT_ONCE = 1_024  # texts whose wide vectors are in memory


class Embedder(Protocol):
    """Text into the vector space of one tree."""

    @property
    def space(self) -> Space:
        """What has to be stored to get the same embedder back."""
        ...

    @property
    def population(self) -> int:
        """How many items the catalogue had when this embedder was fitted; 0 for unfitted."""
        ...

    @property
    def quick(self) -> bool:
        """Whether a few texts take no longer than an event loop may be held up."""
        ...

    def encode(self, texts: Sequence[str], *, timeout_s: float | None = None) -> Int8Matrix:
        """int8[len(texts), dimensions], one row per text, zero where nothing is recognised.

        `timeout_s` is for whoever cannot wait: what is asked of elsewhere fails after it. Raises
        EmbedderUnavailable.
        """
        ...


class TextModel(Protocol):
    """A function from texts to vectors."""

    def vectors(self, texts: Sequence[str], timeout_s: float | None = None) -> FloatArray:
        """float32[texts, width], of any length. There is at least one text, and none is blank.

        For `timeout_s` see Embedder. Called from several threads. Raises EmbedderUnavailable.
        """
        ...


@dataclass(frozen=True, slots=True)
class ModelKind:
    """Text models that are opened by name; `open` raises EmbedderUnavailable.

    `anywhere`: any process can open them, those of a build included. Others need access that
    only this process has.
    """

    name: str
    open: Callable[[str], TextModel]
    anywhere: bool
    close: Callable[[], None] = lambda: None


class _State(msgspec.Struct, frozen=True, array_like=True):
    population: int
    model: str
    probe: bytes  # float32[width of the model]
    projection: bytes  # float16[width, DIMENSIONS]; empty where the model is no wider


class ModelEmbedder:
    """See Embedder: a text model, turned into the width of our vectors.

    Models that are wider than that are projected onto the main axes of the catalogue's own texts
    (of MiniLM's 384 dimensions the best 256 hold almost all). A text's vector may differ in a bit
    from machine to machine. Another model in the place of the one it was fitted with is refused:
    that is looked at after every failure, and every few minutes.
    """

    quick = False

    def __init__(
        self, space: Space, kind: ModelKind, *, recognised_s: float = _RECOGNISED_S
    ) -> None:
        self.space = space
        self._recognised_s = recognised_s
        self._kind = kind
        self._recognised_until = 0.0

    @classmethod
    def fit(
        cls, kind: ModelKind, model: str, texts: Sequence[str], population: int
    ) -> "ModelEmbedder":
        """For a catalogue of `population` items with such texts. Raises EmbedderUnavailable."""
        opened = kind.open(model)
        [probe] = _unit(opened.vectors([_PROBE]))
        projection = b""
        if len(probe) > DIMENSIONS:
            said = [text for text in texts if text.strip()]
            axes = _axes(opened, said[:: -(-len(said) // _FIT_TEXTS) or 1], len(probe))
            projection = axes.astype(np.float16).tobytes()
        state = msgspec.msgpack.encode(_State(population, model, probe.tobytes(), projection))
        name = f"{kind.name}-{hashlib.sha256(state).hexdigest()[:16]}"
        return cls(Space(kind.name, name, state), kind)

    @property
    def population(self) -> int:
        """See Embedder."""
        return self._state.population

    def encode(self, texts: Sequence[str], *, timeout_s: float | None = None) -> Int8Matrix:
        """See Embedder. Asks the model only where a text says something."""
        out = np.zeros((len(texts), DIMENSIONS), np.int8)
        said = [at for at, text in enumerate(texts) if text.strip()]
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        for start in range(0, len(said), _AT_ONCE):
            some = said[start : start + _AT_ONCE]
            vectors = self._vectors([texts[at] for at in some], deadline)
            if self._projection is not None:
                vectors = vectors @ self._projection
            out[some, : vectors.shape[1]] = quantise(vectors)
        return out

    def _vectors(self, texts: Sequence[str], deadline: float | None) -> FloatArray:
        """Of length 1; after the probe has been asked for, now and then."""
        model, known = self._kind.open(self._state.model), self._probe
        try:
            now = time.monotonic()
            if now >= self._recognised_until:  # alone: some vectors hang on the company
                [probe] = _unit(model.vectors([_PROBE], _left(deadline)))
                if len(probe) != len(known) or float(known @ probe) < _SAME:
                    raise self._another()
                self._recognised_until = now + self._recognised_s
            vectors = _unit(model.vectors(texts, _left(deadline)))
            if vectors.shape[1] != len(known):
                raise self._another()
        except EmbedderUnavailable:
            self._recognised_until = 0.0
            raise
        return vectors

    def _another(self) -> EmbedderUnusable:
        return EmbedderUnusable(
            f"'{self._kind.name}:{self._state.model}' is not the model that this catalogue was "
            "embedded with: put that one back, or rebuild the catalogue"
        )

    @cached_property
    def _probe(self) -> npt.NDArray[np.float32]:
        return np.frombuffer(self._state.probe, np.float32)

    @cached_property
    def _state(self) -> _State:
        return msgspec.msgpack.decode(self.space.state, type=_State)

    @cached_property
    def _projection(self) -> npt.NDArray[np.float32] | None:
        if not self._state.projection:
            return None
        axes = np.frombuffer(self._state.projection, np.float16).astype(np.float32)
        return axes.reshape(-1, DIMENSIONS)


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
        raise EmbedderUnavailable("the model answers with what is no number")
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.divide(vectors, lengths, out=np.zeros_like(vectors), where=lengths > 0)

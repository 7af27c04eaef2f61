"""The optional embedder `sentence-transformers`: a text model from a folder or a model hub.

Only this module imports that library.
"""

import hashlib
from collections.abc import Sequence
from functools import cache, cached_property
from typing import TYPE_CHECKING

import msgspec
import numpy as np
import numpy.typing as npt

from tree.errors import EmbedderUnavailable
from tree.node import Space
from tree.vectors import DIMENSIONS, Int8Matrix, quantise

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

SENTENCES = "sentence-transformers"

_PROBE = "A quick brown fox reads the news."  # how a model is recognised
_SAME = 0.99  # cosine of the probe; another machine's arithmetic stays far above it
_BATCH = 64


class _State(msgspec.Struct, frozen=True, array_like=True):
    population: int
    model: str
    probe: bytes  # float32[width of the model]
    projection: bytes  # float16[width, DIMENSIONS]; empty where the model is no wider


class SentenceEmbedder:
    """A sentence-transformers model, turned into the width of our vectors.

    Models that are wider than that are projected onto the main axes of the catalogue's own texts
    (of MiniLM's 384 dimensions the best 256 hold almost all). Nothing is downloaded where
    `HF_HUB_OFFLINE` is set. A text's vector may differ in a bit from machine to machine.
    """

    def __init__(self, space: Space) -> None:
        self.space = space

    @classmethod
    def fit(
        cls, model: str, texts: Sequence[str], *, population: int | None = None
    ) -> "SentenceEmbedder":
        """For a catalogue of `population` items with such texts.

        `model` is a folder, or a name on the hub. Raises EmbedderUnavailable.
        """
        network = _loaded(model)
        [probe] = _encoded(network, [_PROBE])
        projection = b""
        if len(probe) > DIMENSIONS:
            some = _encoded(network, texts).astype(np.float64)
            _, axes = np.linalg.eigh(some.T @ some)
            projection = axes[:, : -DIMENSIONS - 1 : -1].astype(np.float16).tobytes()
        state = msgspec.msgpack.encode(
            _State(
                len(texts) if population is None else population,
                model,
                probe.tobytes(),
                projection,
            )
        )
        return cls(Space(SENTENCES, f"{SENTENCES}-{hashlib.sha256(state).hexdigest()[:16]}", state))

    @property
    def population(self) -> int:
        """See Embedder."""
        return self._state.population

    def encode(self, texts: Sequence[str]) -> Int8Matrix:
        """See Embedder. Raises EmbedderUnavailable."""
        network, projection = self._model
        vectors = _encoded(network, texts)
        if projection is not None:
            return quantise(vectors @ projection)
        out = np.zeros((len(texts), DIMENSIONS), np.int8)
        out[:, : vectors.shape[1]] = quantise(vectors)
        return out

    @cached_property
    def _state(self) -> _State:
        return msgspec.msgpack.decode(self.space.state, type=_State)

    @cached_property
    def _model(self) -> "tuple[SentenceTransformer, npt.NDArray[np.float32] | None]":
        """The model, and its projection where it has one."""
        state = self._state
        network = _loaded(state.model)
        [probe] = _encoded(network, [_PROBE])
        known = np.frombuffer(state.probe, np.float32)
        if len(known) != len(probe) or float(known @ probe) < _SAME:
            raise EmbedderUnavailable(
                f"{state.model} is not the model that this catalogue was embedded with: "
                "put that one back, or rebuild the catalogue"
            )
        if not state.projection:
            return network, None
        axes = np.frombuffer(state.projection, np.float16).astype(np.float32)
        return network, axes.reshape(len(known), DIMENSIONS)


@cache
def _loaded(model: str) -> "SentenceTransformer":
    """Raises EmbedderUnavailable."""
    try:
        from sentence_transformers import SentenceTransformer
    except ModuleNotFoundError as error:
        raise EmbedderUnavailable(
            f"{error.name} is not installed: pip install 'unillmrec[sentence-transformers]'"
        ) from error
    try:
        return SentenceTransformer(model)
    except Exception as error:  # the hub's client raises what its transport does
        raise EmbedderUnavailable(
            f"the model {model!r} is not at hand ({_first_line(error)}): give a folder that "
            "SentenceTransformer.save has written, or a name on the hub that is in the cache or "
            "can be downloaded"
        ) from error


def _encoded(network: "SentenceTransformer", texts: Sequence[str]) -> npt.NDArray[np.float32]:
    """float32[texts, width], of length 1; zero for blank texts."""
    if not texts:
        return _encoded(network, [_PROBE])[:0]
    vectors = network.encode(
        list(texts), batch_size=_BATCH, normalize_embeddings=True, show_progress_bar=False
    )
    result = np.array(vectors, np.float32).reshape(len(texts), -1)
    result[[not text.strip() for text in texts]] = 0
    return result


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]

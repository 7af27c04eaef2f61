"""`TunedEmbedder`: an embedder whose vectors an adapter changes."""

import hashlib
from collections.abc import Mapping, Sequence

import msgspec

from app.embedders.adapter import Adapter
from app.embedders.embedder import Embedder
from tree.node import Space
from tree.passage import Text
from tree.vectors import Int8Matrix

TUNED = "tuned"


class TunedState(msgspec.Struct, frozen=True, array_like=True):
    """What a tuned space stores: the space before, and what changes its vectors.

    `population` is how many items the catalogue had at its last build: the space before stays as it
    is while the catalogue grows, since the adapter fits no other one. `factors` are by what weights
    of the ranking are multiplied.
    """

    base: Space
    adapter: Adapter
    population: int
    factors: dict[str, float] = {}


class TunedEmbedder:
    """See Embedder. Items get other vectors with no event of theirs, and so do new ones."""

    def __init__(self, space: Space, base: Embedder) -> None:
        """`base` makes the vectors of the space before: see `base_of`."""
        self.space = space
        self._base = base
        self._state = _state(space)

    @property
    def population(self) -> int:
        """See Embedder."""
        return self._state.population

    @property
    def is_fast(self) -> bool:
        """See Embedder."""
        return self._base.is_fast

    def encode(self, texts: Sequence[Text], *, timeout_s: float | None = None) -> Int8Matrix:
        """See Embedder."""
        found = self._base.encode(texts, timeout_s=timeout_s)
        return self._state.adapter.applied(found, texts)


def is_tuned(space: Space) -> bool:
    """Whether an adapter changes the vectors of this space."""
    return space.embedder == TUNED


def base_of(space: Space) -> Space:
    """The space before its tuning; an untuned space itself."""
    return _state(space).base if is_tuned(space) else space


def tuned(
    base: Space, adapter: Adapter, population: int, factors: Mapping[str, float] | None = None
) -> Space:
    """The space whose vectors are those of `base`, changed by the adapter."""
    state = msgspec.msgpack.encode(TunedState(base, adapter, population, dict(factors or {})))
    fingerprint = f"{TUNED}-{base.embedder}-{hashlib.sha256(state).hexdigest()[:16]}"
    return Space(TUNED, fingerprint, state, base.dimensions)


def refitted(space: Space, population: int) -> Space:
    """The same tuned space, for a catalogue that now has so many items."""
    state = _state(space)
    return tuned(state.base, state.adapter, population, state.factors)


_by_fingerprint: dict[str, Mapping[str, float]] = {}  # of the last few tuned spaces
_KEPT = 64


def factors_of(space: Space) -> Mapping[str, float]:
    """By what weights of the ranking are multiplied in this space; none in an untuned one."""
    if not is_tuned(space):
        return {}
    known = _by_fingerprint.get(space.fingerprint)
    if known is None:
        while len(_by_fingerprint) >= _KEPT:
            del _by_fingerprint[next(iter(_by_fingerprint))]
        known = _by_fingerprint[space.fingerprint] = _state(space).factors
    return known


def _state(space: Space) -> TunedState:
    return msgspec.msgpack.decode(space.state, type=TunedState)

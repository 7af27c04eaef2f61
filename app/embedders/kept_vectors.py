"""`KeptVectors`: the vectors that a text model has made, by their texts."""

import struct
import time
from collections.abc import Collection, Mapping, Sequence
from hashlib import sha256

import numpy as np
import numpy.typing as npt

from app.embedders.embedder_store import EmbedderStore
from tree.vectors import FloatArray

REFUSED_S = 86_400  # after this, an endpoint is asked again for a text that it has refused
SAME_MODEL = 0.99  # least cosine of a model's probe; between machines it differs far less

_RENEWED = 0.25  # of its time: then a vector that is used is written again
_HEAD = struct.Struct(
    "<BIf"
)  # the form, the time of writing, and what whole numbers are divided by
_REFUSED, _INT8, _FLOAT16 = range(3)
# The cosine of a vector with its int8 form is .99996 for normal numbers. Some models have a few
# dimensions that are much larger than the others; such vectors take two bytes a dimension.
_LEAST_COSINE = 0.9995


class KeptVectors:
    """Vectors of the texts of one catalogue, in the store. Called from threads.

    Without an answer of the store nothing is found and nothing is kept: see EmbedderStore.
    """

    def __init__(self, catalog_id: str, store: EmbedderStore) -> None:
        self._store = store.vectors(catalog_id)
        self._wait = store.wait
        self._ttl_s = store.vector_ttl_s
        self._identities: dict[tuple[str, bytes], str] = {}

    def identity(self, model: str, probe: FloatArray) -> str:
        """What tells this model from others of its name: the same for all similar probes.

        `probe` is the vector of one known text. It differs by rounding between machines.
        """
        known = self._identities.get((model, probe.tobytes()))
        if known is None:
            name = _digest("probe", model)
            first = self._stored_probe(name, len(probe))
            if first is None or float(first @ probe) < SAME_MODEL:
                first = _unpacked(_packed(probe), len(probe))
                self._wait(self._store.put({name: _packed(probe)}, self._ttl_s))
            assert first is not None
            known = _digest(model, first.astype(np.float16).tobytes().hex())
            self._identities[model, probe.tobytes()] = known
        return known

    def get(self, identity: str, texts: Sequence[str], width: int) -> dict[str, FloatArray]:
        """The kept vectors of some texts; zero for a text that was refused within a day."""
        if not texts:
            return {}
        names = [_digest(identity, text) for text in texts]
        stored = self._wait(self._store.get(names)) or [None] * len(names)
        found: dict[str, FloatArray] = {}
        old: dict[str, bytes] = {}
        for name, text, content in zip(names, texts, stored, strict=True):
            vector = None if content is None else _unpacked(content, width)
            if content is None or vector is None:
                continue
            found[text] = vector
            if vector.any() and _age_s(content) > _RENEWED * self._ttl_s:
                old[name] = _dated(content)
        if old:
            self._wait(self._store.put(old, self._ttl_s))
        return found

    def put(self, identity: str, vectors: Mapping[str, FloatArray]) -> dict[str, FloatArray]:
        """Keep vectors by their texts; returns them as `get` would.

        So a vector does not depend on whether it was kept. A zero vector stays for a day.
        """
        packed = {text: _packed(vector) for text, vector in vectors.items()}
        for refused, ttl_s in (False, self._ttl_s), (True, min(REFUSED_S, self._ttl_s)):
            some = {
                _digest(identity, text): packed[text]
                for text, vector in vectors.items()
                if vector.any() != refused
            }
            if some:
                self._wait(self._store.put(some, ttl_s))
        kept = {text: _unpacked(content, len(vectors[text])) for text, content in packed.items()}
        return {text: vector for text, vector in kept.items() if vector is not None}

    async def refused_items(self) -> Sequence[str]:
        """The ids of items whose texts were refused. Raises StoreUnavailable."""
        return await self._store.refused()

    async def add_refused(self, ids: Collection[str]) -> None:
        """Remember such items. Raises StoreUnavailable, CatalogDeleted."""
        await self._store.add_refused(list(ids), self._ttl_s)

    async def remove_refused(self, ids: Collection[str]) -> None:
        """Forget such items. Raises StoreUnavailable."""
        await self._store.remove_refused(list(ids))

    def _stored_probe(self, name: str, width: int) -> FloatArray | None:
        [content] = self._wait(self._store.get([name])) or [None]
        return None if content is None else _unpacked(content, width)


def _digest(*parts: str) -> str:
    words = "\0".join(parts).encode("utf-8", "surrogatepass")
    return sha256(words).hexdigest()[:32]


def _packed(vector: npt.NDArray[np.float32]) -> bytes:
    """A vector as bytes; only its direction is kept."""
    now, largest = int(time.time()), float(np.abs(vector).max(initial=0))
    if not largest:
        return _HEAD.pack(_REFUSED, now, 0.0)
    scale = 127 / largest
    rounded = np.rint(vector * scale)
    lengths = float(np.linalg.norm(vector)) * float(np.linalg.norm(rounded))
    if float(vector @ rounded) / lengths >= _LEAST_COSINE:
        return _HEAD.pack(_INT8, now, scale) + rounded.astype(np.int8).tobytes()
    return _HEAD.pack(_FLOAT16, now, 1 / largest) + (vector / largest).astype(np.float16).tobytes()


def _unpacked(content: bytes, width: int) -> FloatArray | None:
    """The vector; None when it is damaged or has another width."""
    if len(content) < _HEAD.size:
        return None
    form, _, scale = _HEAD.unpack_from(content)
    if form == _REFUSED:
        return np.zeros(width, np.float32)
    kind = np.int8 if form == _INT8 else np.float16
    if len(content) != _HEAD.size + width * np.dtype(kind).itemsize or not scale > 0:
        return None
    return np.frombuffer(content, kind, offset=_HEAD.size).astype(np.float32) / np.float32(scale)


def _age_s(content: bytes) -> float:
    return time.time() - float(_HEAD.unpack_from(content)[1])


def _dated(content: bytes) -> bytes:
    """The same, written now."""
    form, _, scale = _HEAD.unpack_from(content)
    return _HEAD.pack(form, int(time.time()), scale) + content[_HEAD.size :]

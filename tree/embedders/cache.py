"""`EmbedderCache`: the embedders of the spaces in use, and the threads in which slow ones work."""

import asyncio
import itertools
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from hashlib import sha256
from typing import TypeVar

import numpy as np

from tree.embedders.lexical import LexicalEmbedder
from tree.embedders.model import Embedder, ModelEmbedder, ModelKind
from tree.embedders.sentences import SENTENCE_MODELS
from tree.errors import EmbedderUnavailable, EmbedderUnusable
from tree.node import LEXICAL, Space
from tree.vectors import DIMENSIONS, Int8Matrix

T = TypeVar("T")

KINDS = (SENTENCE_MODELS,)  # what every process has

_FIT_SAMPLE = 20_000
_KEPT_TEXTS = 4_096  # of those who cannot wait: profiles come again; some 2 MB
_WAITED_FOR_THREADS = 16  # a call that hangs holds one for as long as its caller would have waited
_PATIENT_THREADS = 4


def fitted(
    name: str,
    texts: Sequence[str],
    population: int,
    *,
    seed: int = 0,
    kinds: Sequence[ModelKind] = KINDS,
) -> Embedder:
    """An embedder for a catalogue of `population` items, of which `texts` may be a sample.

    Raises EmbedderUnavailable for a model that cannot be had, EmbedderUnusable for a name that is
    none.
    """
    if name == LEXICAL:
        return LexicalEmbedder.fit(texts, population=population, seed=seed)
    kind, _, model = name.partition(":")
    if not model:
        raise EmbedderUnusable(_unknown(name, kinds))
    return ModelEmbedder.fit(_kind(kind, kinds), model, texts, population)


def embedder_for(space: Space, kinds: Sequence[ModelKind] = KINDS) -> Embedder:
    """The embedder that made the vectors of `space`; its model is opened when it is asked.

    Raises EmbedderUnusable where there is none of its kind.
    """
    if space.embedder == LEXICAL:
        return LexicalEmbedder(space)
    return ModelEmbedder(space, _kind(space.embedder, kinds))


def _kind(name: str, kinds: Sequence[ModelKind]) -> ModelKind:
    for kind in kinds:
        if kind.name == name:
            return kind
    raise EmbedderUnusable(_unknown(name, kinds))


def _unknown(name: str, kinds: Sequence[ModelKind]) -> str:
    known = ", ".join(f"'{kind.name}:MODEL'" for kind in kinds)
    return f"unknown embedder {name!r}: this process has {LEXICAL!r}, {known}"


class EmbedderCache:
    """The embedders of the spaces in use: unpacking a fitted state takes some 20 ms.

    `kinds` are the text models that this process has access to.
    """

    def __init__(self, size: int = 8, kinds: Sequence[ModelKind] = KINDS) -> None:
        self._size = size
        self._kinds = kinds
        self._known: dict[str, Embedder] = {}
        self._texts: dict[bytes, Int8Matrix] = {}
        # Readers do not queue up behind writers, nor these behind whoever has time, nor that
        # behind builds.
        self._words = ThreadPoolExecutor(_WAITED_FOR_THREADS, "words")
        self._writes = ThreadPoolExecutor(_WAITED_FOR_THREADS, "writes")
        self._patient = ThreadPoolExecutor(_PATIENT_THREADS, "texts")
        self._builds = ThreadPoolExecutor(_PATIENT_THREADS, "builds")

    def of(self, space: Space) -> Embedder:
        """See `embedder_for`."""
        embedder = self._known.get(space.fingerprint)
        if embedder is None:
            embedder = embedder_for(space, self._kinds)
            self._known[space.fingerprint] = embedder
            while len(self._known) > self._size:
                del self._known[next(iter(self._known))]
        return embedder

    def has(self, kind: str) -> bool:
        """Whether there are text models of this kind."""
        return kind in {one.name for one in self._kinds}

    def anywhere(self, name: str) -> bool:
        """Whether any process can have the embedder of this name or kind. Raises
        EmbedderUnusable."""
        return name == LEXICAL or _kind(name.partition(":")[0], self._kinds).anywhere

    async def check(self, name: str, timeout_s: float) -> None:
        """Have an embedder read something. Raises EmbedderUnavailable, after `timeout_s` too, and
        EmbedderUnusable."""
        if name == LEXICAL:
            return
        kind, _, model = name.partition(":")

        def ask(left_s: float | None) -> None:
            _kind(kind, self._kinds).open(model).vectors(["a test"], left_s)

        await _within(timeout_s, self._words, ask)

    def fit(self, name: str, texts: Sequence[str], population: int, *, seed: int = 0) -> Embedder:
        """See `fitted`."""
        return fitted(name, texts, population, seed=seed, kinds=self._kinds)

    async def fitted(
        self, name: str, texts: Sequence[str], population: int, *, seed: int = 0
    ) -> Embedder:
        """See `fit`; in a thread."""
        work = partial(self.fit, name, texts, population, seed=seed)
        return await asyncio.get_running_loop().run_in_executor(self._builds, work)

    async def soon(
        self, space: Space, texts: Sequence[str], timeout_s: float, *, writing: bool = False
    ) -> Int8Matrix:
        """A few texts for somebody who waits: at once, or in a thread. See Embedder.

        What was asked for lately is known. Raises EmbedderUnavailable after `timeout_s`, too.
        However many texts of writes there are, those of requests do not wait for them.
        """
        embedder = self.of(space)
        if embedder.quick:
            return embedder.encode(texts)
        keys = [sha256(f"{space.fingerprint}\0{text}".encode()).digest() for text in texts]
        rows = {key: self._texts[key] for key in keys if key in self._texts}
        wanted = dict(zip(keys, texts, strict=True))
        if fresh := [key for key in wanted if key not in rows]:
            threads = self._writes if writing else self._words
            found = await _read(threads, embedder, [wanted[key] for key in fresh], timeout_s)
            rows |= zip(fresh, found, strict=True)
            self._keep(rows)
        return np.stack([rows[key] for key in keys]) if keys else _no_rows()

    def _keep(self, rows: dict[bytes, Int8Matrix]) -> None:
        self._texts |= rows
        while len(self._texts) > _KEPT_TEXTS:
            del self._texts[next(iter(self._texts))]

    async def patiently(
        self,
        space: Space,
        texts: Sequence[str],
        timeout_s: float | None = None,
        *,
        building: bool = False,
    ) -> Int8Matrix:
        """Many texts, in a thread, for as long as it takes. See Embedder.

        With `timeout_s` they are of a write that somebody waits for. `building`: of a whole
        catalogue, which holds up nothing else.
        """
        threads = self._builds if building else self._patient
        if timeout_s is not None:
            threads = self._writes
        return await _read(threads, self.of(space), texts, timeout_s)

    def close(self) -> None:
        """Let go of threads and connections."""
        for kind in self._kinds:
            kind.close()
        for threads in (self._words, self._writes, self._patient, self._builds):
            threads.shutdown(wait=False, cancel_futures=True)


async def _read(
    threads: ThreadPoolExecutor, embedder: Embedder, texts: Sequence[str], timeout_s: float | None
) -> Int8Matrix:
    return await _within(timeout_s, threads, lambda left: embedder.encode(texts, timeout_s=left))


async def _within(
    timeout_s: float | None, threads: ThreadPoolExecutor, work: Callable[[float | None], T]
) -> T:
    """The wait for a free thread counts, too: `work` is told what is left."""
    began = time.monotonic()

    def run() -> T:
        return work(None if timeout_s is None else timeout_s - (time.monotonic() - began))

    try:
        async with asyncio.timeout(timeout_s):
            return await asyncio.get_running_loop().run_in_executor(threads, run)
    except TimeoutError as error:
        raise EmbedderUnavailable(
            f"the embedder has not answered within {timeout_s:.1f} s"
        ) from error


def fit_sample(texts: Sequence[str]) -> list[str]:
    """The texts to fit on: all, or an even stride through them."""
    return list(itertools.islice(texts, 0, None, sample_stride(len(texts))))


def sample_stride(count: int) -> int:
    """The stride of `fit_sample` through so many texts."""
    return max(1, -(-count // _FIT_SAMPLE))


def _no_rows() -> Int8Matrix:
    return np.zeros((0, DIMENSIONS), np.int8)

"""`EmbedderCache`: the embedders of the spaces in use, and the threads of slow embedders."""

import asyncio
import itertools
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from functools import partial
from hashlib import sha256
from typing import TypeVar

import numpy as np

from app.embedders.account import EmbeddingAccount, current_account
from app.embedders.embedder import Embedder, EmbedderKind
from app.embedders.embedder_store import EmbedderStore
from app.embedders.kept_vectors import REFUSED_S, KeptVectors
from app.embedders.kinds import embedder_for, embedder_kinds, find_kind, parse_name
from app.embedders.openai_model import EndpointAddress, EndpointTimes
from app.embedders.spending import Spending
from tree.errors import EmbedderUnavailable
from tree.node import Space
from tree.passage import Passage, Text, passages_of, whole_texts
from tree.vectors import Int8Matrix

T = TypeVar("T")


_FIT_SAMPLE = 20_000
_KEPT_TEXTS = 4_096  # of requests and single writes: profiles repeat; some 2 MB
_INLINE_CHARS = 4_000  # encoding more would block the event loop for more than 10 ms
_INTERACTIVE_THREADS = 16  # a call that hangs occupies one until its timeout
_BATCH_THREADS = 4


class EmbedderCache:
    """The embedders of the spaces in use: unpacking a fitted state takes some 20 ms.

    It has all kinds, with `openai` models at `endpoint`, or only `kinds`. Vectors of the texts of
    catalogues, and what is learned about the endpoint, are kept in `store`; `spending` has prices
    and budgets.
    """

    def __init__(
        self,
        endpoint: EndpointAddress | None = None,
        *,
        kinds: Sequence[EmbedderKind] | None = None,
        times: EndpointTimes | None = None,
        size: int = 8,
        store: EmbedderStore | None = None,
        spending: Spending | None = None,
    ) -> None:
        self._size = size
        self.spending = spending or Spending()
        self._kinds = kinds or embedder_kinds(
            endpoint or EndpointAddress(), times or EndpointTimes(), store, self.spending
        )
        self._store = store
        self._kept: dict[str, KeptVectors] = {}
        self._known: dict[str, Embedder] = {}
        self._open: set[str] = set()  # those that have encoded something
        self._texts: dict[bytes, Int8Matrix] = {}
        self._asked_again: dict[bytes, float] = {}  # when, for texts that may have been refused
        # Requests never wait for writes, writes never for batches, and batches never for builds.
        self._requests = ThreadPoolExecutor(_INTERACTIVE_THREADS, "requests")
        self._writes = ThreadPoolExecutor(_INTERACTIVE_THREADS, "writes")
        self._batches = ThreadPoolExecutor(_BATCH_THREADS, "batches")
        self._builds = ThreadPoolExecutor(_BATCH_THREADS, "builds")

    def of(self, space: Space) -> Embedder:
        """See `embedder_for`."""
        embedder = self._known.get(space.fingerprint)
        if embedder is None:
            embedder = embedder_for(space, self._kinds)
            self._known[space.fingerprint] = embedder
            while len(self._known) > self._size:
                oldest = next(iter(self._known))
                del self._known[oldest]
                self._open.discard(oldest)
        return embedder

    def account(self, catalog_id: str, *, quiet: bool = False) -> EmbeddingAccount:
        """An account for the texts of a catalogue; a `quiet` one does not log refused items."""
        kept = self._kept.get(catalog_id)
        if kept is None and self._store is not None and self._store.vector_ttl_s:
            kept = KeptVectors(catalog_id, self._store)
            self._kept[catalog_id] = kept
            while len(self._kept) > self._size:
                del self._kept[next(iter(self._kept))]
        return EmbeddingAccount(catalog_id, kept, quiet=quiet)

    def is_local(self, name: str) -> bool:
        """Whether the embedder of this name or kind is local. Raises EmbedderUnusable."""
        return find_kind(name.partition(":")[0], self._kinds).is_local

    async def check(self, name: str, timeout_s: float) -> None:
        """Make an embedder encode something.

        Raises EmbedderUnusable, and EmbedderUnavailable, also after `timeout_s`.
        """
        kind, model = parse_name(name, self._kinds)
        await _within(timeout_s, self._requests, partial(kind.check, model))

    def fit(self, name: str, texts: Sequence[Text], population: int, *, seed: int = 0) -> Embedder:
        """An embedder for a catalogue of `population` items, of which `texts` may be a sample.

        Raises EmbedderUnavailable for a model that does not answer, EmbedderUnusable for an
        unknown name.
        """
        kind, model = parse_name(name, self._kinds)
        return kind.fit(model, texts, population, seed=seed)

    async def fit_in_thread(
        self, name: str, texts: Sequence[Text], population: int, *, seed: int = 0
    ) -> Embedder:
        """See `fit`."""
        work = partial(self.fit, name, texts, population, seed=seed)
        run = asyncio.get_running_loop().run_in_executor
        return await run(self._builds, copy_context().run, work)

    async def encode_interactive(
        self,
        space: Space,
        texts: Sequence[Text],
        timeout_s: float,
        *,
        writing: bool = False,
    ) -> Int8Matrix:
        """The vectors of a few texts that a client waits for: see Embedder.

        Texts of requests never wait for those of writes, which are `writing`. Vectors of recent
        texts are kept. Raises EmbedderUnavailable, also after `timeout_s`.
        """
        embedder = self.of(space)
        is_open = space.fingerprint in self._open  # a fitted state takes some 80 ms to unpack
        if is_open and embedder.is_fast and sum(map(len, whole_texts(texts))) <= _INLINE_CHARS:
            return embedder.encode(texts)
        keys = [_key(space, passage) for passage in passages_of(texts)]
        now = time.monotonic()
        rows = {
            key: self._texts[key]
            for key in keys
            if key in self._texts and self._asked_again.get(key, now) >= now
        }
        wanted = dict(zip(keys, texts, strict=True))
        if fresh := [key for key in wanted if key not in rows]:
            threads = self._writes if writing else self._requests
            work = partial(embedder.encode, [wanted[key] for key in fresh])
            found = await _within(timeout_s, threads, lambda left: work(timeout_s=left))
            self._open.add(space.fingerprint)
            rows |= zip(fresh, found, strict=True)
            account = current_account()
            if account is None or not account.has_refusals:
                self._keep(rows)
        if not keys:
            return np.zeros((0, space.dimensions), np.int8)
        return np.stack([rows[key] for key in keys])

    def _keep(self, rows: dict[bytes, Int8Matrix]) -> None:
        self._texts |= rows
        again = time.monotonic() + REFUSED_S
        self._asked_again |= {
            key: again
            for key, row in rows.items()
            if not row.any() and self._asked_again.get(key, 0.0) < again - REFUSED_S
        }
        while len(self._texts) > _KEPT_TEXTS:
            oldest = next(iter(self._texts))
            del self._texts[oldest]
            self._asked_again.pop(oldest, None)

    async def encode_batch(
        self,
        space: Space,
        texts: Sequence[Text],
        timeout_s: float | None = None,
        *,
        building: bool = False,
    ) -> Int8Matrix:
        """The vectors of many texts, made in a thread: see Embedder.

        The texts of a write that a client waits for have a `timeout_s`, and those of a whole
        catalogue are `building`: neither waits for other batches.
        """
        threads = self._builds if building else self._batches
        if timeout_s is not None:
            threads = self._writes
        embedder = self.of(space)
        rows = await _within(
            timeout_s, threads, lambda left: embedder.encode(texts, timeout_s=left)
        )
        self._open.add(space.fingerprint)
        return rows

    def close(self) -> None:
        """Close connections and end threads."""
        for kind in self._kinds:
            kind.close()
        for threads in (self._requests, self._writes, self._batches, self._builds):
            threads.shutdown(wait=False, cancel_futures=True)


async def _within(
    timeout_s: float | None, threads: ThreadPoolExecutor, work: Callable[[float | None], T]
) -> T:
    """The result of `work`, which gets the seconds that are left when a thread is free."""
    began = time.monotonic()

    def run() -> T:
        return work(None if timeout_s is None else timeout_s - (time.monotonic() - began))

    try:
        async with asyncio.timeout(timeout_s):
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(threads, copy_context().run, run)
    except TimeoutError as error:
        raise EmbedderUnavailable(
            f"the embedder has not answered within {timeout_s:.1f} s"
        ) from error


def _key(space: Space, passage: Passage) -> bytes:
    parts = space.fingerprint, str(passage.is_wish), passage.text, passage.line
    return sha256("\0".join(parts).encode("utf-8", "surrogatepass")).digest()


def fit_sample(texts: Sequence[T]) -> list[T]:
    """The texts to fit on: all of them, or every n-th of many."""
    return list(itertools.islice(texts, 0, None, sample_stride(len(texts))))


def sample_stride(count: int) -> int:
    """The n of `fit_sample` for `count` texts."""
    return max(1, -(-count // _FIT_SAMPLE))

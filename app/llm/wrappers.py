"""Models that wrap a model: a limit, a pause after failures, a cache, a trace of calls."""

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from functools import partial
from hashlib import sha256

import msgspec

from app.llm.chat import ChatModel, Reply, TokenUsage, Turn
from app.llm.chat_body import conversation
from app.llm.circuit import Circuit
from app.llm.errors import ModelError, ModelUnavailable
from app.storage.documents import Documents
from tree.errors import StoreUnavailable

logger = logging.getLogger(__name__)

_FAIR_S = 2.0  # a shorter timeout is no failure of the model


class Limited:
    """See ChatModel. Limits concurrent calls; waiting counts towards the turn's timeout."""

    def __init__(self, model: ChatModel, free: asyncio.Semaphore) -> None:
        self._model = model
        self._free = free

    @property
    def name(self) -> str:
        return self._model.name

    @property
    def room(self) -> int:
        return self._model.room

    async def complete(self, turn: Turn) -> Reply:
        """See ChatModel."""
        began = time.monotonic()
        try:
            async with asyncio.timeout(turn.timeout_s):
                await self._free.acquire()
        except TimeoutError as error:
            raise ModelUnavailable(
                f"no free call to the model within {turn.timeout_s:.1f} s",
                timed_out=True,
                asked=False,
            ) from error
        try:
            left = max(0.0, turn.timeout_s - (time.monotonic() - began))
            return await self._model.complete(replace(turn, timeout_s=left))
        finally:
            self._free.release()


class Breaker:
    """See ChatModel. An outage costs one request a timeout every `pause_s`: see Circuit."""

    def __init__(self, model: ChatModel, *, failures: int = 5, pause_s: float = 5.0) -> None:
        self._model = model
        self._circuit = Circuit(model.name, failures=failures, pause_s=pause_s, fair_s=_FAIR_S)

    @property
    def name(self) -> str:
        return self._model.name

    @property
    def room(self) -> int:
        return self._model.room

    async def complete(self, turn: Turn) -> Reply:
        """See ChatModel."""
        with self._circuit.watching(turn.timeout_s):
            return await self._model.complete(turn)


class _CachedReply(msgspec.Struct):
    text: str
    letters: dict[str, float]
    decisions: tuple[Mapping[int, float] | None, ...]


class Cached:
    """See ChatModel. Caches usable replies in the store, under everything they depend on.

    A reply from the cache has no usage.
    """

    def __init__(
        self, model: ChatModel, documents: Documents, ttl_s: int, endpoint: str = ""
    ) -> None:
        self._model = model
        self._documents = documents
        self._endpoint = endpoint
        self._ttl_s = ttl_s

    @property
    def name(self) -> str:
        return self._model.name

    @property
    def room(self) -> int:
        return self._model.room

    async def complete(self, turn: Turn) -> Reply:
        """See ChatModel. Raises StoreUnavailable too."""
        key = _key(self._endpoint, self._model.name, turn)
        if (stored := await self._documents.get("reply", key)) is not None:
            with suppress(msgspec.DecodeError):  # written by another release
                found = msgspec.json.decode(stored, type=_CachedReply)
                return Reply(found.text, found.letters, found.decisions, TokenUsage(), cached=True)
        reply = await self._model.complete(turn)
        data = msgspec.json.encode(_CachedReply(reply.text, dict(reply.letters), reply.decisions))
        return replace(reply, keep=partial(self._keep, key, data) if reply.complete else None)

    async def _keep(self, key: str, data: bytes) -> None:
        with suppress(StoreUnavailable):  # the reply is usable without the cache
            await self._documents.put("reply", key, data, self._ttl_s)


def _key(endpoint: str, model: str, turn: Turn) -> str:
    form = (type(turn.form).__name__, turn.form)
    messages = conversation(turn.messages)
    asked = (endpoint, model, messages, *form, turn.max_output_tokens, turn.seed)
    return sha256(msgspec.json.encode(asked)).hexdigest()


class Traced:
    """See ChatModel. Calls `record` after every call to the model."""

    def __init__(
        self, model: ChatModel, record: Callable[[Turn, float, str, Reply | None], None]
    ) -> None:
        self._model = model
        self._record = record

    @property
    def name(self) -> str:
        return self._model.name

    @property
    def room(self) -> int:
        return self._model.room

    async def complete(self, turn: Turn) -> Reply:
        """See ChatModel."""
        began = time.perf_counter()
        outcome, reply = "cancelled", None
        try:
            reply = await self._model.complete(turn)
            outcome = "answered"
            return reply
        except ModelError as error:
            outcome = f"{type(error).__name__}: {error}"
            raise
        finally:
            self._record(turn, (time.perf_counter() - began) * 1000, outcome, reply)

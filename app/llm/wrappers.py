"""Models around models: a limit, a pause after failures, a cache, a record of what was asked."""

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from hashlib import sha256

import msgspec

from app.llm.chat import ChatModel, Reply, TokenUsage, Turn
from app.llm.errors import InvalidReply, ModelError, ModelUnavailable
from tree.store.documents import Documents

_FAIR_S = 2.0  # a model that does not answer within this has failed


class Limited:
    """See ChatModel. Calls wait until `free` lets them; waiting counts as time of the turn."""

    def __init__(self, model: ChatModel, free: asyncio.Semaphore) -> None:
        self._model = model
        self._free = free

    @property
    def name(self) -> str:
        return self._model.name

    async def complete(self, turn: Turn) -> Reply:
        """See ChatModel."""
        try:
            async with asyncio.timeout(turn.timeout_s), self._free:
                return await self._model.complete(turn)
        except TimeoutError as error:
            raise ModelUnavailable(
                f"no free call to the model within {turn.timeout_s:.1f} s", timed_out=True
            ) from error


class Breaker:
    """See ChatModel. After several failures in a row, a pause in which no call is tried.

    An outage then costs readers one timeout every `pause_s`, not one each.
    """

    def __init__(self, model: ChatModel, *, failures: int = 5, pause_s: float = 5.0) -> None:
        self._model = model
        self._limit = failures
        self._pause_s = pause_s
        self._failures = 0
        self._last_failure = 0.0
        self._closed_until = 0.0

    @property
    def name(self) -> str:
        return self._model.name

    async def complete(self, turn: Turn) -> Reply:
        """See ChatModel."""
        began = time.monotonic()
        if began < self._closed_until:
            raise ModelUnavailable(
                f"the model failed {self._failures} times in a row: pausing", asked=False
            )
        try:
            reply = await self._model.complete(turn)
        except InvalidReply:
            self._failures = 0
            raise
        except ModelUnavailable as error:
            self._note(error, turn, began)
            raise
        self._failures = 0
        return reply

    def _note(self, error: ModelUnavailable, turn: Turn, began: float) -> None:
        """Count a failure: once for calls that were under way together, and none in a hurry."""
        hurried = error.timed_out and turn.timeout_s < _FAIR_S
        if hurried or began < self._last_failure:
            return
        self._last_failure = time.monotonic()
        self._failures += 1
        if self._failures >= self._limit:
            self._closed_until = self._last_failure + self._pause_s


class Cached:
    """See ChatModel. Replies are kept in the store, by everything that they depend on.

    A reply from the cache has no usage to pay for.
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

    async def complete(self, turn: Turn) -> Reply:
        """See ChatModel. Raises StoreUnavailable too."""
        key = _key(self._endpoint, self._model.name, turn)
        if (kept := await self._documents.get("reply", key)) is not None:
            with suppress(msgspec.DecodeError):  # kept by another release
                return replace(msgspec.json.decode(kept, type=Reply), usage=TokenUsage(), kept=True)
        reply = await self._model.complete(turn)
        if reply.complete:
            await self._documents.put("reply", key, msgspec.json.encode(reply), self._ttl_s)
        return reply


def _key(endpoint: str, model: str, turn: Turn) -> str:
    form = (type(turn.form).__name__, turn.form)
    asked = (endpoint, model, turn.messages, *form, turn.max_output_tokens, turn.seed)
    return sha256(msgspec.json.encode(asked)).hexdigest()


class Traced:
    """See ChatModel. Tells `record` of every call."""

    def __init__(self, model: ChatModel, record: Callable[[Turn, float, str], None]) -> None:
        self._model = model
        self._record = record

    @property
    def name(self) -> str:
        return self._model.name

    async def complete(self, turn: Turn) -> Reply:
        """See ChatModel."""
        began = time.perf_counter()
        outcome = "cancelled"
        try:
            reply = await self._model.complete(turn)
            outcome = "answered"
            return reply
        except ModelError as error:
            outcome = f"{type(error).__name__}: {error}"
            raise
        finally:
            self._record(turn, (time.perf_counter() - began) * 1000, outcome)

"""Models around models: a limit, a pause after failures, a cache, a record of what was asked."""

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
from app.llm.errors import ModelError, ModelUnavailable
from tree.errors import StoreUnavailable
from tree.store.documents import Documents

logger = logging.getLogger(__name__)

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
    """See ChatModel. After several failures in a row, a pause in which no call is tried.

    An outage then costs one reader a timeout every `pause_s`: after a pause one call goes first.
    """

    def __init__(self, model: ChatModel, *, failures: int = 5, pause_s: float = 5.0) -> None:
        self._model = model
        self._limit = failures
        self._pause_s = pause_s
        self._failures = 0
        self._last_failure = 0.0
        self._trying = False
        self._closed_until = 0.0

    @property
    def name(self) -> str:
        return self._model.name

    async def complete(self, turn: Turn) -> Reply:
        """See ChatModel."""
        began = time.monotonic()
        if began < self._closed_until or self._trying:
            raise ModelUnavailable(
                f"the model failed {self._failures} times in a row: pausing", asked=False
            )
        self._trying = self._failures >= self._limit
        try:
            reply = await self._model.complete(turn)
        except ModelUnavailable as error:
            self._note(error, turn, began)
            raise
        except ModelError:
            self._failures = 0  # it answers, if nothing that can be used
            raise
        finally:
            self._trying = False
        if self._failures >= self._limit:
            logger.warning("%s answers again", self.name)
        self._failures = 0
        return reply

    def _note(self, error: ModelUnavailable, turn: Turn, began: float) -> None:
        """Count a failure: once for calls that were under way together, and none in a hurry."""
        hurried = error.timed_out and turn.timeout_s < _FAIR_S
        if hurried or not error.asked or began < self._last_failure:
            return
        self._last_failure = time.monotonic()
        self._failures += 1
        if self._failures >= self._limit:
            self._closed_until = self._last_failure + self._pause_s
            logger.warning("%s is not asked for %.0f s: %s", self.name, self._pause_s, error)


class _Kept(msgspec.Struct):
    text: str
    letters: dict[str, float]
    decisions: tuple[Mapping[int, float] | None, ...]


class Cached:
    """See ChatModel. Replies that could be used are kept in the store, by what they depend on.

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
                found = msgspec.json.decode(kept, type=_Kept)
                return Reply(found.text, found.letters, found.decisions, TokenUsage(), kept=True)
        reply = await self._model.complete(turn)
        data = msgspec.json.encode(_Kept(reply.text, dict(reply.letters), reply.decisions))
        return replace(reply, keep=partial(self._keep, key, data) if reply.complete else None)

    async def _keep(self, key: str, data: bytes) -> None:
        with suppress(StoreUnavailable):  # a cache that cannot be written is only not warm
            await self._documents.put("reply", key, data, self._ttl_s)


def _key(endpoint: str, model: str, turn: Turn) -> str:
    form = (type(turn.form).__name__, turn.form)
    asked = (endpoint, model, turn.messages, *form, turn.max_output_tokens, turn.seed)
    return sha256(msgspec.json.encode(asked)).hexdigest()


class Traced:
    """See ChatModel. Tells `record` of every call."""

    def __init__(
        self, model: ChatModel, record: Callable[[Turn, float, str, Reply | None], None]
    ) -> None:
        self._model = model
        self._record = record

    @property
    def name(self) -> str:
        return self._model.name

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

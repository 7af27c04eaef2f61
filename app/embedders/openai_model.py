"""The embedder kind `openai`: text models behind any OpenAI-compatible /v1/embeddings."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from concurrent.futures import CancelledError, Future
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from http import HTTPStatus
from threading import Lock
from typing import TYPE_CHECKING, Any, TypeVar
from weakref import finalize

import numpy as np
from anyio.from_thread import start_blocking_portal

from app.embedders.batches import CHARS_PER_TEXT, batches
from app.embedders.divided_calls import (
    HARMLESS,
    TRIES,
    DividedCalls,
    RateLimited,
    ServerFault,
    TextsRefused,
)
from app.embedders.embedder_store import EmbedderStore
from app.embedders.embedding_reply import read_embeddings
from app.embedders.endpoint_limits import EndpointLimits
from app.embedders.spending import Bill, Spending
from app.embedders.text_model import TextModelKind
from app.llm.circuit import Circuit
from app.llm.errors import InvalidReply, ModelError, ModelRejected, ModelUnavailable
from tree.errors import EmbedderUnavailable, EmbedderUnusable
from tree.vectors import FloatArray
from tree.worker import together

if TYPE_CHECKING:  # takes a second to import
    from openai import APIStatusError, AsyncOpenAI

    from app.llm.endpoint.refusals import Refusal

T = TypeVar("T")

logger = logging.getLogger(__name__)

_KIND = "openai"

_CALLS_AT_ONCE = 8
_FAILURES = 3
_QUIET_S = 30.0  # after a failure with 500 is logged: a text that causes it is found by many calls
_SERVER_FAULTS = (500, 424)  # others of the kind are those of gateways: an outage


@dataclass(frozen=True, slots=True)
class EndpointAddress:
    """Where an OpenAI-compatible endpoint is, and its key."""

    base_url: str | None = None
    api_key: str | None = field(default=None, repr=False)

    @property
    def is_set(self) -> bool:
        """Whether there is an endpoint: a key alone means that of OpenAI."""
        return bool(self.base_url or self.api_key)


@dataclass(frozen=True, slots=True)
class EndpointTimes:
    """When calls with a deadline fail at once, in seconds: see Circuit. Tests wait less."""

    pause_s: float = 5.0  # after failures, until the endpoint is tried again
    fair_s: float = 0.9  # a shorter timeout is no failure of the endpoint


def openai_kind(
    address: EndpointAddress,
    times: EndpointTimes,
    store: EmbedderStore | None = None,
    spending: Spending | None = None,
) -> TextModelKind:
    """Text models at this address. `close` of the kind closes its connections.

    What is learned about the endpoint is kept in `store`; `spending` counts what it costs.
    """
    endpoint = EmbeddingEndpoint(address, times=times, store=store, spending=spending)
    return TextModelKind(_KIND, endpoint.open, is_local=False, close=endpoint.close)


class EmbeddingEndpoint:
    """Text models at one address. The client is imported at the first use.

    Calls block their thread: vectors are made in threads, mostly by the thousand.
    """

    def __init__(
        self,
        address: EndpointAddress,
        *,
        tries: int = TRIES,
        times: EndpointTimes = EndpointTimes(),
        store: EmbedderStore | None = None,
        spending: Spending | None = None,
    ) -> None:
        self._address = address
        self._tries = tries
        self._times = times
        self._store = store
        self.spending = spending or Spending()
        self._models: dict[str, EndpointModel] = {}
        self._lock = Lock()
        self._client_thread: _ClientThread | None = None

    def open(self, model: str) -> "EndpointModel":
        """See TextModelKind."""
        if not self._address.is_set:
            raise EmbedderUnusable(
                f"the embedder '{_KIND}:{model}' needs an endpoint: set "
                "UNILLMREC_EMBEDDER_BASE_URL, UNILLMREC_EMBEDDER_API_KEY, or both"
            )
        with self._lock:
            if self._client_thread is None:
                from app.llm.endpoint.address import connect

                self._client_thread = _ClientThread(
                    connect(self._address.base_url, self._address.api_key)
                )
            if model not in self._models:
                limits = EndpointLimits(model, self._address.base_url or "", self._store)
                self._models[model] = EndpointModel(
                    self._client_thread, model, self._tries, self._times, limits, self.spending
                )
            return self._models[model]

    def close(self) -> None:
        """Make running calls fail, and close connections."""
        for model, usage in self.spending.usage.items():
            logger.info("%s has read %s tokens of texts", model, f"{usage.tokens:,}")
        if self._client_thread is not None:
            self._client_thread.close()


class _ClientThread:
    """An asynchronous client in a thread of its own, for callers in other threads.

    The blocking client has timeouts per read only: an endpoint that sends byte by byte would
    block its callers for ever.
    """

    def __init__(self, client: "AsyncOpenAI") -> None:
        self.client = client
        self.slots = asyncio.Semaphore(_CALLS_AT_ONCE)  # shared by calls without a deadline
        self._running: set[Future[Any]] = set()
        self._closed = False
        self._lock = Lock()
        self._thread = ExitStack()
        self._portal = self._thread.enter_context(start_blocking_portal(name="embeddings"))
        finalize(self, self._thread.close)  # else a process that forgets to close it never ends

    def wait_for(self, ask: Callable[[], Awaitable[T]]) -> T:
        """What `ask` returns. Raises ModelUnavailable when this is closed meanwhile."""
        with self._lock:
            if self._closed:
                raise ModelUnavailable("its connections are closed", asked=False)
            future: Future[T] = self._portal.start_task_soon(ask)
            self._running.add(future)
        try:
            return future.result()
        except CancelledError as error:
            raise ModelUnavailable("its connections are closed") from error
        finally:
            with self._lock:
                self._running.discard(future)

    def close(self) -> None:
        """Make running calls fail."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            running = list(self._running)
        for future in running:
            future.cancel()
        with self._thread:
            self._portal.call(self.client.close)


class EndpointModel:
    """See TextModel. Calls without a deadline wait through limits and short outages.

    Calls with a deadline fail at once while the endpoint keeps failing: see Circuit.
    """

    def __init__(
        self,
        client_thread: _ClientThread,
        name: str,
        tries: int,
        times: EndpointTimes,
        limits: EndpointLimits,
        spending: Spending,
    ) -> None:
        self.name = name
        self._limits = limits
        self._quiet_until = 0.0
        self._answers = False  # once it has, a key or a model that it refuses is an outage
        self._has_tried_plain = False
        self._calls = DividedCalls(name, self._once, limits, tries)
        self._spending = spending
        self._client_thread = client_thread
        self._circuit = Circuit(
            name,
            failures=_FAILURES,
            pause_s=times.pause_s,
            fair_s=times.fair_s,
            counted=(ModelUnavailable, InvalidReply),
        )

    def vectors(self, texts: Sequence[str], timeout_s: float | None = None) -> FloatArray:
        """See TextModel. Zero for a text that the endpoint refuses while it accepts others."""
        self._limits.load()
        deadline = time.monotonic() + timeout_s if timeout_s is not None else np.inf
        watch = nullcontext() if timeout_s is None else self._circuit.watching(timeout_s)
        with self._translating(), watch:
            found = self._client_thread.wait_for(partial(self._together, texts, deadline))
        self._limits.save()
        self._circuit.answered()  # so calls with a deadline are tried again
        if len({rows.shape[1] for rows in found}) > 1:
            raise EmbedderUnavailable(f"{self.name} answers with vectors of different widths")
        return np.concatenate(found)

    async def _together(self, texts: Sequence[str], deadline: float) -> list[FloatArray]:
        """The vectors of batches. Calls with a deadline do not wait for calls without one."""
        has_deadline = deadline != np.inf
        slots = asyncio.Semaphore(_CALLS_AT_ONCE) if has_deadline else self._client_thread.slots

        async def ask(part: list[str]) -> list[FloatArray]:
            async with slots:
                return await self._calls.vectors(part, deadline)

        parts = batches([text[:CHARS_PER_TEXT] for text in texts], self._limits.most_texts)
        return [rows for found in await together(map(ask, parts)) for rows in found]

    async def _once(self, texts: list[str], timeout_s: float) -> FloatArray:
        """The vectors of one call.

        Some endpoints fail on base64 without a word of it (tabbyAPI): once, before the first
        answer, a call that fails is made again without it.
        """
        deadline = time.monotonic() + timeout_s
        try:
            return await self._asked(texts, timeout_s, base64=self._limits.base64)
        except ServerFault:
            if self._answers or self._has_tried_plain or not self._limits.base64:
                raise
            self._has_tried_plain = True
        rows = await self._asked(texts, deadline - time.monotonic(), base64=False)
        try:
            await self._asked([HARMLESS], deadline - time.monotonic(), base64=True)
        except (ServerFault, InvalidReply):
            self._limits.note_no_base64()
        except ModelError:
            pass  # it is tried again at the next start
        return rows

    async def _asked(self, texts: list[str], timeout_s: float, *, base64: bool) -> FloatArray:
        body: dict[str, object] = {"model": self.name, "input": texts}
        if base64:
            body["encoding_format"] = "base64"
        if timeout_s <= 0:
            raise ModelUnavailable("no time is left to ask it", timed_out=True, asked=False)
        async with self._spending.claiming(self.name, texts) as bill:
            response = await self._posted(body, timeout_s, bill)
            rows, tokens = read_embeddings(response, len(texts))
            self._answers = True
            bill.tokens, bill.texts = tokens or bill.tokens, len(texts)
        return rows

    async def _posted(self, body: Mapping[str, object], timeout_s: float, bill: Bill) -> bytes:
        """The reply. A call that is refused costs nothing; one that times out may cost all."""
        import httpx2
        import openai

        from app.llm.endpoint.faults import translated

        client = self._client_thread.client
        try:
            async with asyncio.timeout(timeout_s):  # the client's own timeout is per read
                response = await client.post(
                    "/embeddings",
                    cast_to=httpx2.Response,
                    body=body,
                    options={"timeout": timeout_s},
                )
        except TimeoutError as error:
            raise ModelUnavailable(f"no answer within {timeout_s:.1f} s", timed_out=True) from error
        except openai.APIStatusError as error:
            bill.tokens = 0
            raise self._sorted_out(error) from error
        except openai.OpenAIError as error:
            bill.tokens = 0
            raise translated(error, self.name, client.api_key, works=self._answers) from error
        except (ValueError, UnicodeError) as error:
            raise ModelRejected("the address or the key of the endpoint cannot be used") from error
        return response.content

    def _sorted_out(self, error: "APIStatusError") -> Exception:
        """The error of this package for one of the client.

        The client's may repeat the texts and the key: see `translated`.
        """
        from app.llm.endpoint.faults import error_of, refusal_of

        refusal = refusal_of(error, self._client_thread.client.api_key)
        status, named = refusal.status, refusal.brief
        if _about_texts(refusal):
            return TextsRefused(named)
        now = time.monotonic()
        if status in _SERVER_FAULTS and now < self._quiet_until:
            return ServerFault(f"the endpoint answers {named}", retry_after_s=0.0)
        own = error_of(refusal, works=self._answers)
        logger.warning("%s: %s", self.name, own)
        if status in _SERVER_FAULTS:
            self._quiet_until = now + _QUIET_S
            return ServerFault(f"the endpoint answers {named}", retry_after_s=0.0)
        wait_s = own.retry_after_s if isinstance(own, ModelUnavailable) else None
        if status == HTTPStatus.TOO_MANY_REQUESTS and wait_s is not None:
            return RateLimited(str(own), retry_after_s=wait_s)
        return own

    @contextmanager
    def _translating(self) -> Iterator[None]:
        """Translate errors of a model into errors of an embedder."""
        try:
            yield
        except ModelRejected as error:
            raise EmbedderUnusable(
                f"the embedder '{_KIND}:{self.name}' cannot be used: {error}; see "
                "UNILLMREC_EMBEDDER_BASE_URL and UNILLMREC_EMBEDDER_API_KEY"
            ) from error
        except ModelError as error:
            raise EmbedderUnavailable(
                f"the embedder '{_KIND}:{self.name}' does not answer: {error}; try again when "
                "its endpoint is back"
            ) from error


def _about_texts(refusal: "Refusal") -> bool:
    """Whether the endpoint may accept other or shorter texts, or the same ones as plain numbers.

    llama.cpp answers 500 to a text that is longer than its batch.
    """
    if refusal.status in (400, 413, 422):
        return refusal.fault.is_of_call
    words = ("too large to process", "encoding_format", "base64")
    return refusal.status in (404, 500, 501) and any(word in refusal.text for word in words)

"""The embedder kind `openai`: text models behind any OpenAI-compatible /v1/embeddings."""

import asyncio
import base64
import binascii
import logging
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from concurrent.futures import CancelledError, Future
from contextlib import ExitStack, contextmanager, nullcontext
from functools import partial
from threading import Lock
from typing import TYPE_CHECKING, Any, TypeVar
from weakref import finalize

import msgspec
import numpy as np
from anyio.from_thread import start_blocking_portal

from app.llm.circuit import Circuit
from app.llm.errors import InvalidReply, ModelError, ModelRejected, ModelUnavailable
from app.settings import Settings
from tree.embedders import EmbedderCache, ModelKind
from tree.embedders.sentences import SENTENCE_MODELS
from tree.errors import EmbedderUnavailable, EmbedderUnusable
from tree.vectors import FloatArray

if TYPE_CHECKING:  # takes a second to import
    from openai import APIStatusError, AsyncOpenAI

T = TypeVar("T")

logger = logging.getLogger(__name__)

OPENAI = "openai"

_TEXTS_PER_CALL = 256
_CHARS_PER_CALL = 200_000  # providers bound the tokens of a call: 300,000 at OpenAI
# Some 500 tokens: most of what a description says, and as much as many models read at all.
_CHARS_PER_TEXT = 2_000
_FEWEST_CHARS = 100
_HARMLESS = "a test"  # what no endpoint refuses that takes texts
_CALLS_AT_ONCE = 8
_CALL_S = 60.0  # of one call, for whoever has time
_PATIENCE_S = 180.0  # of one call with all its tries
_TRIES = 9  # some 25 seconds of an outage
_TRIES_IN_HASTE = 3
_FIRST_WAIT_S, _LONGEST_WAIT_S = 0.1, 60.0
_FAILURES, _PAUSE_S = 3, 5.0
_FAIR_S = 0.9  # an endpoint that does not answer within this has failed


def embedders_for(settings: Settings) -> EmbedderCache:
    """All embedders that these settings give access to. The caller closes it."""
    endpoint = endpoint_of(settings)
    kind = ModelKind(OPENAI, endpoint.open, anywhere=False, close=endpoint.close)
    return EmbedderCache(kinds=(SENTENCE_MODELS, kind))


def endpoint_of(settings: Settings) -> "EmbeddingEndpoint":
    """The endpoint that these settings name, which is that of the chat model unless they do."""
    base_url, key = settings.embedder_base_url, settings.embedder_api_key
    if base_url in (None, settings.llm_base_url):  # no key goes where it was not given for
        base_url, key = settings.llm_base_url, key or settings.llm_api_key
    return EmbeddingEndpoint(base_url, key.get_secret_value() if key else None)


class EmbeddingEndpoint:
    """Text models at one address; nothing is asked, nor the client imported, before it is needed.

    Whoever asks blocks a thread: vectors are made in threads, most of them by the thousand.
    """

    def __init__(self, base_url: str | None, api_key: str | None, *, tries: int = _TRIES) -> None:
        self._tries = tries
        self._base_url = base_url
        self._api_key = api_key
        self._models: dict[str, EndpointModel] = {}
        self._lock = Lock()
        self._line: _Line | None = None

    @property
    def configured(self) -> bool:
        return bool(self._base_url or self._api_key)

    def open(self, model: str) -> "EndpointModel":
        """See ModelKind."""
        if not self.configured:
            raise EmbedderUnusable(
                f"the embedder '{OPENAI}:{model}' needs an endpoint: set "
                "UNILLMREC_EMBEDDER_BASE_URL, UNILLMREC_EMBEDDER_API_KEY, or both"
            )
        with self._lock:
            if self._line is None:
                from app.llm.client import connect

                self._line = _Line(connect(self._base_url, self._api_key))
            if model not in self._models:
                self._models[model] = EndpointModel(self._line, model, self._tries)
            return self._models[model]

    def close(self) -> None:
        """Fail what is under way, and let go of connections."""
        for model in self._models.values():
            logger.info("%s has read %s tokens of texts", model.name, f"{model.tokens:,}")
        if self._line is not None:
            self._line.close()


class _Line:
    """A client at work in a thread of its own, for callers that block theirs.

    The client that blocks is no choice: its timeouts are of every single read, and an endpoint
    that drips holds its callers for ever.
    """

    def __init__(self, client: "AsyncOpenAI") -> None:
        self.client = client
        self.slots = asyncio.Semaphore(_CALLS_AT_ONCE)  # of all who have time
        self._under_way: set[Future[Any]] = set()
        self._closed = False
        self._lock = Lock()
        self._thread = ExitStack()
        self._portal = self._thread.enter_context(start_blocking_portal(name="embeddings"))
        finalize(self, self._thread.close)  # or a process that forgets to close it never ends

    def wait_for(self, ask: Callable[[], Awaitable[T]]) -> T:
        """Raises ModelUnavailable when the line is closed meanwhile."""
        with self._lock:
            if self._closed:
                raise ModelUnavailable("its connections are closed", asked=False)
            future: Future[T] = self._portal.start_task_soon(ask)
            self._under_way.add(future)
        try:
            return future.result()
        except CancelledError as error:
            raise ModelUnavailable("its connections are closed") from error
        finally:
            with self._lock:
                self._under_way.discard(future)

    def close(self) -> None:
        """Fail what is under way."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            under_way = list(self._under_way)
        for future in under_way:
            future.cancel()
        with self._thread:
            self._portal.call(self.client.close)


class EndpointModel:
    """See TextModel. Whoever has time waits through limits and short outages.

    Whoever has none is told at once while the endpoint fails: after several failures in a row one
    of them tries again every few seconds.
    """

    def __init__(self, line: _Line, name: str, tries: int) -> None:
        self._tries = tries
        self.name = name
        self.tokens = 0  # read by the model, as far as the endpoint tells
        self._line = line
        self._circuit = Circuit(
            name,
            failures=_FAILURES,
            pause_s=_PAUSE_S,
            fair_s=_FAIR_S,
            counted=(ModelUnavailable, InvalidReply),
        )

    def vectors(self, texts: Sequence[str], timeout_s: float | None = None) -> FloatArray:
        """See TextModel. Zero for a text that the endpoint refuses though it takes others."""
        deadline = time.monotonic() + timeout_s if timeout_s is not None else np.inf
        watch = nullcontext() if timeout_s is None else self._circuit.watching(timeout_s)
        with self._translating(), watch:
            found = self._line.wait_for(partial(self._together, texts, deadline))
        self._circuit.answered()  # whoever had time tells those who have none
        if len({rows.shape[1] for rows in found}) > 1:
            raise EmbedderUnavailable(f"{self.name} answers with vectors of different widths")
        return np.concatenate(found)

    async def _together(self, texts: Sequence[str], deadline: float) -> list[FloatArray]:
        """What is short of time does not queue up behind what is not."""
        hurried = deadline != np.inf
        slots = asyncio.Semaphore(_CALLS_AT_ONCE) if hurried else self._line.slots

        async def ask(part: list[str]) -> list[FloatArray]:
            async with slots:
                return await self._fitting(part, deadline)

        parts = _batches([text[:_CHARS_PER_TEXT] for text in texts])
        tasks = [asyncio.create_task(ask(part)) for part in parts]
        try:
            return [rows for found in await asyncio.gather(*tasks) for rows in found]
        finally:
            for task in tasks:
                task.cancel()

    async def _fitting(self, texts: list[str], deadline: float) -> list[FloatArray]:
        """The vectors of a batch; what is too long for the model is cut, that text alone.

        So that a text has the same vector in any company.
        """
        try:
            return [await self._asked(texts, deadline)]
        except _Refused as error:
            half = len(texts) // 2
            if half:
                first = await self._fitting(texts[:half], deadline)
                return [*first, *await self._fitting(texts[half:], deadline)]
            if len(texts[0]) >= 2 * _FEWEST_CHARS:
                return await self._fitting([texts[0][: len(texts[0]) // 2]], deadline)
            return [await self._nothing_of(error, deadline)]

    async def _nothing_of(self, refused: "_Refused", deadline: float) -> FloatArray:
        """Content filters refuse single texts, and nobody else's has to wait for that.

        A wrong key is refused in the same way: that is no reason to store zeros.
        """
        try:
            taken = await self._asked([_HARMLESS], deadline)
        except _Refused as error:
            raise ModelRejected(f"the endpoint takes no text: {error}") from error
        logger.warning("%s takes other texts, but refuses one: %s", self.name, refused)
        return np.zeros_like(taken)

    async def _asked(self, texts: list[str], deadline: float) -> FloatArray:
        """The answer to one call, tried again while that may help and there is time."""
        wait = _FIRST_WAIT_S
        most = self._tries if deadline == np.inf else min(_TRIES_IN_HASTE, self._tries)
        deadline = min(deadline, time.monotonic() + _PATIENCE_S)
        for tries in range(1, most + 1):
            try:
                return await self._once(texts, min(_CALL_S, deadline - time.monotonic()))
            except (ModelUnavailable, InvalidReply) as error:
                mends = not isinstance(error, ModelUnavailable) or (
                    error.timed_out or error.retry_after_s is not None
                )
                told = getattr(error, "retry_after_s", None) or 0.0
                pause = min(max(told, wait), _LONGEST_WAIT_S)
                if tries == most or not mends or time.monotonic() + pause >= deadline:
                    raise
                await asyncio.sleep(pause)
                wait *= 2
        raise AssertionError("the last try returns or raises")

    async def _once(self, texts: list[str], timeout_s: float) -> FloatArray:
        import httpx2
        import openai

        from app.llm.client import translated

        client = self._line.client
        body = {"model": self.name, "input": texts, "encoding_format": "base64"}
        if timeout_s <= 0:
            raise ModelUnavailable("no time is left to ask it", timed_out=True, asked=False)
        try:
            async with asyncio.timeout(timeout_s):  # the client's own is per read
                response = await client.post(
                    "/embeddings",
                    cast_to=httpx2.Response,
                    body=body,
                    options={"timeout": timeout_s},
                )
        except TimeoutError as error:
            raise ModelUnavailable(f"no answer within {timeout_s:.1f} s", timed_out=True) from error
        except openai.APIStatusError as error:
            if _about_texts(error.status_code, error.message):
                raise _Refused(error) from error
            raise translated(error, self.name, client.api_key, about_prompt=False) from error
        except openai.OpenAIError as error:
            raise translated(error, self.name, client.api_key, about_prompt=False) from error
        except (ValueError, UnicodeError) as error:
            raise ModelRejected("the address or the key of the endpoint cannot be used") from error
        rows, tokens = _read(response.content, len(texts))
        self.tokens += tokens
        return rows

    @contextmanager
    def _translating(self) -> Iterator[None]:
        """Errors of a model become those of an embedder."""
        try:
            yield
        except ModelRejected as error:
            raise EmbedderUnusable(
                f"the embedder '{OPENAI}:{self.name}' cannot be used: {error}; see "
                "UNILLMREC_EMBEDDER_BASE_URL and UNILLMREC_EMBEDDER_API_KEY"
            ) from error
        except ModelError as error:
            raise EmbedderUnavailable(
                f"the embedder '{OPENAI}:{self.name}' does not answer: {error}; try again when "
                "its endpoint is back"
            ) from error


class _Refused(Exception):
    """The endpoint does not take these texts: as they are, as long as they are, or any.

    What it says may repeat them, and the key: that goes nowhere.
    """

    def __init__(self, error: "APIStatusError") -> None:
        code = f" ({error.code})" if isinstance(error.code, str) else ""
        super().__init__(f"{error.status_code}{code}")


def _batches(texts: Sequence[str]) -> Iterator[list[str]]:
    batch: list[str] = []
    size = 0
    for text in texts:
        if batch and (len(batch) == _TEXTS_PER_CALL or size + len(text) > _CHARS_PER_CALL):
            yield batch
            batch, size = [], 0
        batch.append(text)
        size += len(text)
    if batch:
        yield batch


# -- what comes back


class _Row(msgspec.Struct):
    embedding: str | list[float]
    index: int | None = None


class _Usage(msgspec.Struct):
    prompt_tokens: int | None = None


class _Reply(msgspec.Struct):
    data: list[_Row]
    usage: _Usage | None = None


_reply = msgspec.json.Decoder(_Reply)


def _read(content: bytes, count: int) -> tuple[FloatArray, int]:
    """float32[count, width] of finite numbers, and the tokens read. Raises InvalidReply."""
    try:
        found = _reply.decode(content)
        rows = [_numbers(row.embedding) for row in found.data]
    except (msgspec.DecodeError, UnicodeDecodeError, binascii.Error, ValueError) as error:
        raise InvalidReply("the endpoint's answer holds no embeddings") from error
    places = [at if row.index is None else row.index for at, row in enumerate(found.data)]
    if sorted(places) != list(range(count)):
        raise InvalidReply(f"the endpoint answers {count} texts with {len(rows)} embeddings")
    if len({len(row) for row in rows}) != 1 or not len(rows[0]):
        raise InvalidReply("the endpoint answers with embeddings of different widths")
    vectors = np.empty((count, len(rows[0])), np.float32)
    vectors[places] = rows
    if not np.isfinite(vectors).all():
        raise InvalidReply("the endpoint answers with what is no number")
    usage = found.usage.prompt_tokens if found.usage else None
    return vectors, max(0, usage or 0)


def _numbers(embedding: str | list[float]) -> FloatArray:
    """As asked for, in base64, or as endpoints send it that know nothing else."""
    if isinstance(embedding, str):
        return np.frombuffer(base64.b64decode(embedding, validate=True), "<f4")
    with np.errstate(over="ignore"):  # what is too large is no number, and said to be none
        return np.array(embedding, np.float32)


def _about_texts(status: int, message: str) -> bool:
    """Whether other or shorter texts may be taken.

    llama.cpp says 500 to what is longer than its batch.
    """
    return status in (400, 413, 422) or (status == 500 and "too large to process" in message)

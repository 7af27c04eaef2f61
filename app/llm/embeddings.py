"""The embedder kind `openai`: text models behind any OpenAI-compatible /v1/embeddings."""

import base64
import binascii
import logging
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from threading import Event, Lock
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from app.llm.errors import InvalidReply, ModelError, ModelRejected, ModelUnavailable
from app.settings import Settings
from tree.embedders import EmbedderCache, ModelKind
from tree.embedders.sentences import SENTENCE_MODELS
from tree.errors import EmbedderUnavailable, EmbedderUnusable
from tree.vectors import FloatArray

if TYPE_CHECKING:  # takes a second to import
    from openai import OpenAI

logger = logging.getLogger(__name__)

OPENAI = "openai"

_TEXTS_PER_CALL = 256
_CHARS_PER_CALL = 200_000  # providers bound the tokens of a call: 300,000 at OpenAI
# Some 500 tokens: most of what a description says, and as much as many models read at all.
_CHARS_PER_TEXT = 2_000
_FEWEST_CHARS = 100
_CALLS_AT_ONCE = 8
_CALL_S = 60.0  # of one call, for whoever has time
_PATIENCE_S = 180.0  # of one call with all its tries
_TRIES = 9  # some 25 seconds of an outage
_TRIES_IN_HASTE = 3
_FIRST_WAIT_S, _LONGEST_WAIT_S = 0.1, 60.0
_FAILURES, _PAUSE_S = 3, 5.0
_FAIR_S = 1.0  # an endpoint that does not answer within this has failed


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

    The client is the blocking one: vectors are made in threads, most of them by the thousand.
    """

    def __init__(self, base_url: str | None, api_key: str | None, *, tries: int = _TRIES) -> None:
        self._tries = tries
        self._base_url = base_url
        self._api_key = api_key
        self._models: dict[str, EndpointModel] = {}
        self._lock = Lock()
        self._client: OpenAI | None = None
        self._closed = Event()
        self._calls = ThreadPoolExecutor(_CALLS_AT_ONCE, "embeddings")

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
            if self._client is None:
                from app.llm.client import connect_for_threads

                self._client = connect_for_threads(self._base_url, self._api_key)
            if model not in self._models:
                self._models[model] = EndpointModel(
                    self._client, model, self._calls, self._closed, self._tries
                )
            return self._models[model]

    def close(self) -> None:
        """Fail what is under way, and let go of connections."""
        self._closed.set()
        self._calls.shutdown(wait=False, cancel_futures=True)
        for model in self._models.values():
            logger.info("%s has read %s tokens of texts", model.name, f"{model.tokens:,}")
        if self._client is not None:
            self._client.close()


class EndpointModel:
    """See TextModel. Whoever has time waits through limits and short outages.

    Whoever has none is told at once while the endpoint fails: after several failures in a row one
    of them tries again every few seconds.
    """

    def __init__(
        self, client: "OpenAI", name: str, calls: ThreadPoolExecutor, closed: Event, tries: int
    ) -> None:
        self._tries = tries
        self.name = name
        self.tokens = 0  # read by the model, as far as the endpoint tells
        self._client = client
        self._calls = calls
        self._closed = closed
        self._breaker = _Breaker()

    def vectors(self, texts: Sequence[str], timeout_s: float | None = None) -> FloatArray:
        """See TextModel."""
        hurried = timeout_s is not None
        deadline = time.monotonic() + timeout_s if timeout_s is not None else np.inf
        with self._translating(), self._breaker.watching(timeout_s):
            parts = list(_batches([text[:_CHARS_PER_TEXT] for text in texts]))
            ask = partial(self._fitting, deadline=deadline)
            # What is short of time does not queue up behind what is not.
            found = list(map(ask, parts) if hurried or len(parts) == 1 else self._together(parts))
        if len({rows.shape[1] for rows in found}) > 1:
            raise EmbedderUnavailable(f"{self.name} answers with vectors of different widths")
        return np.concatenate(found)

    def _together(self, parts: Sequence[list[str]]) -> list[FloatArray]:
        ask = partial(self._fitting, deadline=np.inf)
        futures = [self._calls.submit(ask, part) for part in parts]
        try:
            return [future.result() for future in futures]
        finally:
            for future in futures:
                future.cancel()

    def _fitting(self, texts: list[str], deadline: float) -> FloatArray:
        """The vectors of a batch; what is too long for the model is cut, that text alone.

        So that a text has the same vector in any company.
        """
        try:
            return self._asked(texts, deadline)
        except _TooLong as error:
            half = len(texts) // 2
            if half:
                both = (self._fitting(part, deadline) for part in (texts[:half], texts[half:]))
                return np.concatenate(list(both))
            if len(texts[0]) < 2 * _FEWEST_CHARS:
                logger.warning("%s takes no text: %s", self.name, error)
                raise ModelRejected(f"the endpoint takes no text ({error.status})") from error
            return self._fitting([texts[0][: len(texts[0]) // 2]], deadline)

    def _asked(self, texts: list[str], deadline: float) -> FloatArray:
        """The answer to one call, tried again while that may help and there is time."""
        wait = _FIRST_WAIT_S
        most = self._tries if deadline == np.inf else min(_TRIES_IN_HASTE, self._tries)
        deadline = min(deadline, time.monotonic() + _PATIENCE_S)
        for tries in range(1, most + 1):
            try:
                return self._once(texts, min(_CALL_S, deadline - time.monotonic()))
            except (ModelUnavailable, InvalidReply) as error:
                mends = not isinstance(error, ModelUnavailable) or (
                    error.timed_out or error.retry_after_s is not None
                )
                told = getattr(error, "retry_after_s", None) or 0.0
                pause = min(max(told, wait), _LONGEST_WAIT_S)
                late = time.monotonic() + pause >= deadline
                if tries == most or not mends or late or self._closed.wait(pause):
                    raise
                wait *= 2
        raise AssertionError("the last try returns or raises")

    def _once(self, texts: list[str], timeout_s: float) -> FloatArray:
        import httpx2
        import openai

        from app.llm.client import translated

        key = self._client.api_key
        body = {"model": self.name, "input": texts, "encoding_format": "base64"}
        if timeout_s <= 0:
            raise ModelUnavailable("no time is left to ask it", timed_out=True, asked=False)
        try:
            response = self._client.post(
                "/embeddings", cast_to=httpx2.Response, body=body, options={"timeout": timeout_s}
            )
        except openai.APIStatusError as error:
            if _about_length(error.status_code, error.message):
                raise _TooLong(error.status_code, error.message) from error
            raise translated(error, self.name, key, about_prompt=False) from error
        except openai.OpenAIError as error:
            raise translated(error, self.name, key, about_prompt=False) from error
        except (ValueError, UnicodeError, RuntimeError) as error:  # or the client is closed
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


class _TooLong(Exception):
    """The endpoint does not take texts of that length."""

    def __init__(self, status: int, said: str) -> None:
        super().__init__(f"{status}: {' '.join(said.split())[:200]}")
        self.status = status


class _Breaker:
    """After several failures in a row of those who have no time, a pause for them."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._failures = 0
        self._last_failure = 0.0
        self._closed_until = 0.0

    @contextmanager
    def watching(self, timeout_s: float | None) -> Iterator[None]:
        """Raises ModelUnavailable in the pause, but for who has time, whose failures are nobody
        else's concern either. Every answer ends the pause."""
        began = time.monotonic()
        if timeout_s is not None:
            self._enter(began)
        try:
            yield
        except (ModelUnavailable, InvalidReply) as error:
            late = isinstance(error, ModelUnavailable) and error.timed_out
            if timeout_s is not None and not (late and timeout_s < _FAIR_S):
                self._note_failure(began)
            raise
        self._failures = 0

    def _enter(self, now: float) -> None:
        with self._lock:
            if self._failures < _FAILURES:
                return
            if now < self._closed_until:
                raise ModelUnavailable(
                    f"it failed {self._failures} times in a row: pausing", asked=False
                )
            self._closed_until = now + _PAUSE_S  # this one tries, the others wait for it

    def _note_failure(self, began: float) -> None:
        """Once for calls that were under way together."""
        with self._lock:
            if began >= self._last_failure:
                self._last_failure = time.monotonic()
                self._failures += 1
                self._closed_until = self._last_failure + _PAUSE_S


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


def _about_length(status: int, message: str) -> bool:
    """Whether shorter texts may be taken. llama.cpp says 500 to what is longer than its batch."""
    return status in (400, 413, 422) or (status == 500 and "too large to process" in message)

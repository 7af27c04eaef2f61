"""`BatchCalls`: the routes /v1/files and /v1/batches of a provider, one method each."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from functools import partial
from http import HTTPStatus
from typing import IO, Protocol, TypeVar

import httpx2
import msgspec
import openai
from openai import AsyncOpenAI

from app.llm.batch_lines import ENDPOINT, BatchPart
from app.llm.endpoint.faults import translated
from app.llm.errors import BatchGone, ModelError, ModelRejected, ModelUnavailable, NoBatchApi

logger = logging.getLogger(__name__)

_T = TypeVar("_T")
_RUN, _PART = "unillmrec_run", "unillmrec_part"
_FIRST, _LAST = "unillmrec_first", "unillmrec_last"
_ENDED = frozenset({"completed", "failed", "expired", "cancelled"})
_ABSENT = (HTTPStatus.NOT_FOUND, HTTPStatus.METHOD_NOT_ALLOWED, HTTPStatus.NOT_IMPLEMENTED)
_TRIES = 3
_PAGE = 100
_PIECE = 1_000_000
_MOST_BYTES = 1_000_000_000  # of a file of results


@dataclass(frozen=True, slots=True)
class BatchTimes:
    """How long the parts of a batch may take. Tests wait less."""

    first_poll_s: float = 5.0
    longest_poll_s: float = 60.0
    outage_s: float = 1_800.0  # the endpoint may fail for so long while a batch is followed
    retry_s: float = 2.0
    call_s: float = 60.0
    transfer_s: float = 900.0  # of a whole file


@dataclass(frozen=True, slots=True)
class Batch:
    """A batch at the provider, as far as it has come."""

    id: str
    status: str
    total: int = 0
    completed: int = 0
    failed: int = 0
    run: str = ""
    part: str = ""  # the digest of its requests
    first: str = ""  # custom id
    last: str = ""
    problems: tuple[str, ...] = ()  # codes that say why the whole batch has failed
    input_file: str | None = None
    output_file: str | None = None
    error_file: str | None = None

    @property
    def ended(self) -> bool:
        return self.status in _ENDED


class _Counts(msgspec.Struct):
    total: int | None = None
    completed: int | None = None
    failed: int | None = None


class _Problem(msgspec.Struct):
    code: str | None = None


class _Problems(msgspec.Struct):
    data: list[_Problem] | None = None


class _Batch(msgspec.Struct):
    id: str
    status: str
    input_file_id: str | None = None
    output_file_id: str | None = None
    error_file_id: str | None = None
    request_counts: _Counts | None = None
    errors: _Problems | None = None
    metadata: dict[str, str] | None = None


class _Page(msgspec.Struct):
    data: list[_Batch]
    has_more: bool = False


class _StoredFile(msgspec.Struct):
    id: str


class _Raw(Protocol):
    @property
    def content(self) -> bytes: ...


class BatchCalls:
    """Calls to the batch API, each within its time; those that change nothing are repeated.

    `name` is that of the model, for the log. Every method raises ModelUnavailable, ModelRejected.
    Answers are decoded into our own structs: other servers leave out fields that the client's
    models require.
    """

    def __init__(self, client: AsyncOpenAI, name: str, times: BatchTimes) -> None:
        self._client = client.with_options(max_retries=0, timeout=times.transfer_s)
        self._name = name
        self._times = times

    async def upload(self, part: BatchPart) -> str:
        """The id of a new file. Raises NoBatchApi."""
        return await self._repeated(partial(self._upload, part))

    async def create(self, run: str, part: BatchPart, file_id: str) -> Batch:
        """A new batch. Not repeated: an answer may be lost and the batch exist."""
        call = partial(
            self._client.batches.with_raw_response.create,
            input_file_id=file_id,
            endpoint=ENDPOINT,
            completion_window="24h",
            metadata={_RUN: run, _PART: part.digest, _FIRST: part.first, _LAST: part.last},
        )
        made = _batch(_decoded(await self._answer(call, NoBatchApi()), _Batch))
        # Some servers return no metadata.
        return replace(made, run=run, part=part.digest, first=part.first, last=part.last)

    async def newest(self, after: str | None) -> tuple[list[Batch], str | None]:
        """A page of all batches, newest first, and where the next one begins. Raises NoBatchApi."""
        call = partial(
            self._client.batches.with_raw_response.list,
            after=openai.omit if after is None else after,
            limit=_PAGE,
        )
        answer = await self._repeated(partial(self._answer, call, NoBatchApi()))
        page = _decoded(answer, _Page)
        goes_on = page.has_more and bool(page.data)
        return [_batch(one) for one in page.data], page.data[-1].id if goes_on else None

    async def state(self, batch_id: str) -> Batch:
        """How far a batch is. Not repeated: it is asked for again and again."""
        call = partial(self._client.batches.with_raw_response.retrieve, batch_id)
        return _batch(_decoded(await self._answer(call), _Batch))

    async def cancel(self, batch_id: str) -> None:
        """Ask for the end of a batch that has not ended."""
        call = partial(self._client.batches.with_raw_response.cancel, batch_id)
        await self._repeated(partial(self._answer, call))

    async def fetch(self, file_id: str, file: IO[bytes]) -> None:
        """Write a file of the provider to `file`, which is then at its beginning."""
        call = partial(self._fetch, file_id, file)
        await self._repeated(partial(self._answer, call, timeout_s=self._times.transfer_s))
        file.seek(0)

    async def remove(self, file_id: str) -> None:
        """Remove a file from the provider. A failure is only logged: files expire there."""
        call = partial(self._client.files.with_raw_response.delete, file_id)
        try:
            await self._repeated(partial(self._answer, call))
        except BatchGone:
            pass
        except ModelError as error:
            logger.warning("%s: a file of a batch stays: %s", self._name, error)

    async def _upload(self, part: BatchPart) -> str:
        call = partial(
            self._client.files.with_raw_response.create,
            file=(f"unillmrec-{part.digest}.jsonl", part.file, "application/jsonl"),
            purpose="batch",
        )
        answer = await self._answer(call, NoBatchApi(), timeout_s=self._times.transfer_s)
        return _decoded(answer, _StoredFile).id

    async def _fetch(self, file_id: str, file: IO[bytes]) -> None:
        file.seek(0)
        file.truncate()
        content = self._client.files.with_streaming_response.content(file_id)
        async with content as response:
            async for piece in response.iter_bytes(_PIECE):
                file.write(piece)
                if file.tell() > _MOST_BYTES:
                    raise ModelRejected("the results of the batch are too large")

    async def _repeated(self, call: Callable[[], Awaitable[_T]]) -> _T:
        for attempt in range(1, _TRIES + 1):
            try:
                return await call()
            except ModelUnavailable as error:
                if attempt == _TRIES or error.retry_after_s is None:
                    raise
                await asyncio.sleep(max(error.retry_after_s, self._times.retry_s * attempt))
        raise AssertionError

    async def _answer(
        self,
        call: Callable[[], Awaitable[_T]],
        absent: ModelRejected | None = None,
        *,
        timeout_s: float | None = None,
    ) -> _T:
        """The answer to one call; `absent` is raised when there is no such route or object."""
        try:
            async with asyncio.timeout(timeout_s or self._times.call_s):
                return await call()
        except TimeoutError as error:
            raise ModelUnavailable(
                "the batch API did not answer in time", timed_out=True, retry_after_s=0.0
            ) from error
        except httpx2.HTTPError as error:  # in the middle of a file, past the client's own errors
            raise ModelUnavailable("the connection broke off", retry_after_s=0.0) from error
        except openai.OpenAIError as error:
            if isinstance(error, openai.APIStatusError) and error.status_code in _ABSENT:
                gone = BatchGone("the endpoint does not know this batch, or its files")
                raise absent or gone from error
            key = self._client.api_key
            raise translated(error, self._name, key) from error


def _batch(found: _Batch) -> Batch:
    counts = found.request_counts or _Counts()
    problems = (found.errors.data or ()) if found.errors is not None else ()
    metadata = found.metadata or {}
    return Batch(
        found.id,
        found.status.lower(),  # Together writes COMPLETED
        counts.total or 0,
        counts.completed or 0,
        counts.failed or 0,
        metadata.get(_RUN, ""),
        metadata.get(_PART, ""),
        metadata.get(_FIRST, ""),
        metadata.get(_LAST, ""),
        tuple(dict.fromkeys(problem.code[:60] for problem in problems if problem.code)),
        found.input_file_id or None,
        found.output_file_id or None,
        found.error_file_id or None,
    )


def _decoded(answer: _Raw, kind: type[_T]) -> _T:
    try:
        return msgspec.json.decode(answer.content, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise NoBatchApi("the endpoint's answer is none of a batch API") from error

"""Files of the batch API: a request or a result of /chat/completions in every line of JSON."""

import tempfile
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass
from hashlib import sha256
from http import HTTPStatus
from typing import IO, Final

import msgspec

from app.llm.chat import Reply, TokenUsage
from app.llm.completion import read_completion, read_usage
from app.llm.errors import InvalidReply, ModelError, ModelRejected, ModelUnavailable

ENDPOINT: Final = "/v1/chat/completions"

_LONGEST_ID = 64
_LONGEST_LINE = 4_000_000  # bytes of a result; a reply has about 5,000
_PASSING = (HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.CONFLICT, HTTPStatus.TOO_MANY_REQUESTS)
_DENIED = (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN)


@dataclass(frozen=True, slots=True)
class BatchLimits:
    """The most that one batch may hold: the least of what is known of providers.

    OpenAI takes files of 200 MB; others, and its own earlier documents, say 100.
    """

    requests: int = 50_000
    file_bytes: int = 100_000_000


@dataclass(frozen=True, slots=True)
class BatchPart:
    """A file of requests, open at its beginning. The digest tells files of other requests apart."""

    file: IO[bytes]
    digest: str
    first: str  # custom id
    last: str


@dataclass(frozen=True, slots=True)
class ResultLine:
    """One line of results. `usage` is set where the call was made, also for an error."""

    custom_id: str
    outcome: Reply | ModelError
    usage: TokenUsage | None = None


async def split(
    requests: AsyncIterator[tuple[str, Mapping[str, object]]], limits: BatchLimits
) -> AsyncIterator[BatchPart]:
    """The requests, by custom id and body, in files within the limits.

    A file is on the disk until the next one is asked for. Raises ValueError for an id that comes
    twice, is empty or has more than 64 characters, and for a request that is too large.
    """
    writer = _Writer()
    seen: set[str] = set()
    try:
        async for custom_id, body in requests:
            if custom_id in seen or not 0 < len(custom_id) <= _LONGEST_ID:
                raise ValueError(f"the custom id {custom_id[:_LONGEST_ID]!r} cannot be used")
            seen.add(custom_id)
            line = _request_line(custom_id, body)
            if len(line) > limits.file_bytes:
                raise ValueError(f"the request {custom_id!r} has {len(line):,} bytes")
            too_large = writer.size + len(line) > limits.file_bytes
            if writer.lines and (too_large or writer.lines == limits.requests):
                yield writer.part()
                writer.close()
                writer = _Writer()
            writer.write(custom_id, line)
        if writer.lines:
            yield writer.part()
    finally:
        writer.close()


class _Writer:
    """A file of requests that is being written."""

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile()  # noqa: SIM115 - closed by `split`
        self._hash = sha256()
        self._first = self._last = ""
        self.lines = self.size = 0

    def write(self, custom_id: str, line: bytes) -> None:
        self._first = self._first or custom_id
        self._last = custom_id
        self._file.write(line)
        self._hash.update(line)
        self.lines += 1
        self.size += len(line)

    def part(self) -> BatchPart:
        self._file.seek(0)
        return BatchPart(self._file, self._hash.hexdigest()[:32], self._first, self._last)

    def close(self) -> None:
        self._file.close()


def _request_line(custom_id: str, body: Mapping[str, object]) -> bytes:
    line = {"custom_id": custom_id, "method": "POST", "url": ENDPOINT, "body": body}
    return msgspec.json.encode(line) + b"\n"


# -- results


class _Failure(msgspec.Struct):
    code: str | int | None = None


class _FailedBody(msgspec.Struct):
    error: _Failure | None = None


class _Response(msgspec.Struct):
    status_code: int = 200
    body: msgspec.Raw = msgspec.Raw(b"{}")


class _RawLine(msgspec.Struct):
    custom_id: str
    response: _Response | None = None
    error: _Failure | None = None


_line = msgspec.json.Decoder(_RawLine)
_UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


def read_results(file: IO[bytes]) -> Iterator[ResultLine | None]:
    """The results in a file; None for a line that cannot be read."""
    while line := file.readline(_LONGEST_LINE):
        if not line.endswith(b"\n") and len(line) == _LONGEST_LINE:
            while (rest := file.readline(_LONGEST_LINE)) and not rest.endswith(b"\n"):
                pass
            yield None
        elif line.strip():
            yield _result(line)


def _result(line: bytes) -> ResultLine | None:
    try:
        found = _line.decode(line)
    except _UNREADABLE:
        return None
    response = found.response
    if response is None:
        return ResultLine(found.custom_id, _never_asked(found.error))
    body = bytes(response.body)
    if response.status_code != HTTPStatus.OK:
        return ResultLine(found.custom_id, _of_status(response.status_code, body))
    usage = read_usage(body)
    try:
        return ResultLine(found.custom_id, read_completion(body), usage)
    except InvalidReply as error:
        return ResultLine(found.custom_id, error, usage)


def _never_asked(failure: _Failure | None) -> ModelError:
    """The error of a line without an answer of the model: the batch has ended before it."""
    code = failure.code if failure is not None else None
    return ModelUnavailable(f"the call of the batch was not made{_named(code)}", asked=False)


def _of_status(status: int, body: bytes) -> ModelError:
    try:
        failure = msgspec.json.decode(body, type=_FailedBody).error
    except _UNREADABLE:
        failure = None
    reason = f"the endpoint answers {status}{_named(failure.code if failure else None)}"
    if status in _PASSING or status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        return ModelUnavailable(reason)
    if status in _DENIED:
        return ModelRejected(reason)
    return InvalidReply(reason)  # about this prompt: others of the batch may be accepted


def _named(code: str | int | None) -> str:
    return f" ({str(code)[:60]})" if code is not None else ""

"""`Recorded` and `Replayed`: the replies of models in one run, stored in a file for another run.

The file has one line of JSON per question: its key, and the reply or the error. The same question
always gets the same reply, so a replay equals its recording in any order of the questions.
"""

import asyncio
from hashlib import sha256
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

import msgspec

from app.llm.chat import ChatModel, Reply, TokenUsage, Turn
from app.llm.chat_body import conversation
from app.llm.errors import (
    InvalidReply,
    ModelError,
    ModelRejected,
    ModelUnavailable,
    SpentOnThinking,
)

Failure = Literal["unavailable", "timed_out", "invalid"]

_OUTAGES = frozenset({"unavailable", "timed_out"})


class RecordingError(Exception):
    """A recording cannot be used. The message names the file, and the line if there is one."""


class _RecordedReply(msgspec.Struct, omit_defaults=True):
    """A line of the file."""

    key: str
    model: str
    text: str = ""
    letters: dict[str, float] = {}
    decisions: tuple[dict[int, float] | None, ...] = ()
    tokens: tuple[int, int, int] | None = None  # input, output, cached
    complete: bool = True
    failure: Failure | None = None
    reason: str = ""


class Recorder:
    """The file of a recording, which is continued; a context manager.

    A line that was cut off (the process was killed) is written again. A question that met an
    outage is asked again: the later line counts. Raises RecordingError for another kind of file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._locks: dict[str, asyncio.Lock] = {}

    def __enter__(self) -> Self:
        known, whole = _read(self._path, torn=True) if self._path.exists() else ({}, 0)
        self._known = {
            key: recorded for key, recorded in known.items() if recorded.failure not in _OUTAGES
        }
        self._file = self._path.open("ab")
        self._file.truncate(whole)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._file.close()

    async def reply(self, model: ChatModel, turn: Turn) -> _RecordedReply:
        """The reply of a model, asked once; others with the same question wait for it."""
        key = _key(model.name, turn)
        async with self._locks.setdefault(key, asyncio.Lock()):
            if (recorded := self._known.get(key)) is None:
                recorded = self._known[key] = await _answered(model, key, turn)
                self._file.write(msgspec.json.encode(recorded) + b"\n")
                self._file.flush()
        self._locks.pop(key, None)
        return recorded


class Recorded:
    """See ChatModel. Asks the model only what the recording does not hold, and records it."""

    def __init__(self, model: ChatModel, recorder: Recorder) -> None:
        self._model = model
        self._recorder = recorder

    @property
    def name(self) -> str:
        return self._model.name

    @property
    def room(self) -> int:
        return self._model.room

    async def complete(self, turn: Turn) -> Reply:
        """See ChatModel."""
        return _reply(await self._recorder.reply(self._model, turn))


class Replayed:
    """See ChatModel. Replies from a recording; no model is asked.

    Raises RecordingError for a question that the recording does not hold, and from the
    constructor, which reads the file.
    """

    def __init__(self, path: Path, name: str) -> None:
        self._path = path
        self._replies, _ = _read(path)
        self.name = name
        self.room = 1

    async def complete(self, turn: Turn) -> Reply:
        """See ChatModel."""
        recorded = self._replies.get(_key(self.name, turn))
        if recorded is None:
            raise RecordingError(
                f"{self._path} does not hold a question that this run asks of {self.name}: replay "
                "with the data, the seed, the systems and the options of the recording"
            )
        return _reply(recorded)


def recorded_models(path: Path) -> set[str]:
    """The names of the models in a recording. Raises RecordingError."""
    recorded, _ = _read(path)
    return {one.model for one in recorded.values()}


async def _answered(model: ChatModel, key: str, turn: Turn) -> _RecordedReply:
    """The reply or failure of a model.

    Raises ModelRejected: our own mistakes are not recorded; and SpentOnThinking: it is asked again.
    """
    try:
        reply = await model.complete(turn)
    except (ModelRejected, SpentOnThinking):
        raise
    except ModelUnavailable as error:
        failure: Failure = "timed_out" if error.timed_out else "unavailable"
        return _RecordedReply(key, model.name, failure=failure, reason=str(error))
    except InvalidReply as error:
        return _RecordedReply(key, model.name, failure="invalid", reason=str(error))
    usage = reply.usage
    return _RecordedReply(
        key,
        model.name,
        reply.text,
        dict(reply.letters),
        tuple(None if one is None else dict(one) for one in reply.decisions),
        (usage.input_tokens, usage.output_tokens, usage.cached_tokens) if usage else None,
        reply.complete,
    )


def _reply(recorded: _RecordedReply) -> Reply:
    if recorded.failure is not None:
        raise _error(recorded)
    usage = TokenUsage(*recorded.tokens) if recorded.tokens else None
    return Reply(recorded.text, recorded.letters, recorded.decisions, usage, recorded.complete)


def _error(recorded: _RecordedReply) -> ModelError:
    if recorded.failure == "invalid":
        return InvalidReply(recorded.reason)
    return ModelUnavailable(recorded.reason, timed_out=recorded.failure == "timed_out")


def _key(model: str, turn: Turn) -> str:
    form = (type(turn.form).__name__, turn.form)
    asked = (model, conversation(turn.messages), *form, turn.max_output_tokens, turn.seed)
    return sha256(msgspec.json.encode(asked)).hexdigest()[:32]


def _read(path: Path, *, torn: bool = False) -> tuple[dict[str, _RecordedReply], int]:
    """The replies in a file by key, and how many of its bytes are whole lines."""
    decoder = msgspec.json.Decoder(_RecordedReply)
    recorded: dict[str, _RecordedReply] = {}
    whole = 0
    try:
        with path.open("rb") as lines:
            for number, line in enumerate(lines, 1):
                if torn and not line.endswith(b"\n"):
                    break
                try:
                    one = decoder.decode(line)
                except msgspec.DecodeError as error:
                    raise RecordingError(
                        f"{path}:{number}: not a line of a recording ({error})"
                    ) from error
                recorded[one.key] = one
                whole += len(line)
    except OSError as error:
        raise RecordingError(f"{path}: cannot be read: {error}") from error
    return recorded, whole

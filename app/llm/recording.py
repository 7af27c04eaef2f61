"""`Recorded` and `Replayed`: what models said in one run, kept in a file, said again in another.

One line of JSON per question: its key and what came back, an error of the model included. Asked
twice, a question is answered twice with the same: so a replay is equal to its recording whatever
order the questions come in.
"""

import asyncio
from hashlib import sha256
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

import msgspec

from app.llm.chat import ChatModel, Reply, TokenUsage, Turn
from app.llm.errors import InvalidReply, ModelError, ModelRejected, ModelUnavailable

Failure = Literal["unavailable", "timed_out", "invalid"]

_OUTAGES = frozenset({"unavailable", "timed_out"})


class RecordingError(Exception):
    """A recording cannot be used. The message names the file, and the line where there is one."""


class _Said(msgspec.Struct, omit_defaults=True):
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
    """The file of a recording, which it goes on with; a context manager.

    A line that was cut off (the process was killed) is made again, and what a model was not there
    to answer is asked again: the later line is the one that counts. Raises RecordingError when
    the file is something else.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._under_way: dict[str, asyncio.Lock] = {}

    def __enter__(self) -> Self:
        known, whole = _read(self._path, torn=True) if self._path.exists() else ({}, 0)
        self._known = {key: said for key, said in known.items() if said.failure not in _OUTAGES}
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

    async def said(self, model: ChatModel, turn: Turn) -> _Said:
        """What a model says, asked once: who asks the same meanwhile waits for that."""
        key = _key(model.name, turn)
        async with self._under_way.setdefault(key, asyncio.Lock()):
            if (said := self._known.get(key)) is None:
                said = self._known[key] = await _asked(model, key, turn)
                self._file.write(msgspec.json.encode(said) + b"\n")
                self._file.flush()
        self._under_way.pop(key, None)
        return said


class Recorded:
    """See ChatModel. Asks the model what the recording does not hold, and writes it down."""

    def __init__(self, model: ChatModel, recorder: Recorder) -> None:
        self._model = model
        self._recorder = recorder

    @property
    def name(self) -> str:
        return self._model.name

    async def complete(self, turn: Turn) -> Reply:
        """See ChatModel."""
        return _reply(await self._recorder.said(self._model, turn))


class Replayed:
    """See ChatModel. Only what a recording holds: nothing is asked, nothing is paid.

    Raises RecordingError for a question that is not in it: something else than the recording was
    run. The file is read when this is made.
    """

    def __init__(self, path: Path, name: str) -> None:
        self._path = path
        self._said, _ = _read(path)
        self.name = name

    async def complete(self, turn: Turn) -> Reply:
        """See ChatModel."""
        said = self._said.get(_key(self.name, turn))
        if said is None:
            raise RecordingError(
                f"{self._path} does not hold a question that this run asks of {self.name}: replay "
                "with the data, the seed, the systems and the options of the recording"
            )
        return _reply(said)


def recorded_models(path: Path) -> set[str]:
    """The names of the models in a recording. Raises RecordingError."""
    said, _ = _read(path)
    return {one.model for one in said.values()}


async def _asked(model: ChatModel, key: str, turn: Turn) -> _Said:
    """Raises ModelRejected: our own mistakes are not worth a record."""
    try:
        reply = await model.complete(turn)
    except ModelRejected:
        raise
    except ModelUnavailable as error:
        failure: Failure = "timed_out" if error.timed_out else "unavailable"
        return _Said(key, model.name, failure=failure, reason=str(error))
    except InvalidReply as error:
        return _Said(key, model.name, failure="invalid", reason=str(error))
    usage = reply.usage
    return _Said(
        key,
        model.name,
        reply.text,
        dict(reply.letters),
        tuple(None if one is None else dict(one) for one in reply.decisions),
        (usage.input_tokens, usage.output_tokens, usage.cached_tokens) if usage else None,
        reply.complete,
    )


def _reply(said: _Said) -> Reply:
    if said.failure is not None:
        raise _error(said)
    usage = TokenUsage(*said.tokens) if said.tokens else None
    return Reply(said.text, said.letters, said.decisions, usage, said.complete)


def _error(said: _Said) -> ModelError:
    if said.failure == "invalid":
        return InvalidReply(said.reason)
    return ModelUnavailable(said.reason, timed_out=said.failure == "timed_out")


def _key(model: str, turn: Turn) -> str:
    asked = (model, turn.messages, type(turn.form).__name__, turn.form, turn.max_output_tokens)
    return sha256(msgspec.json.encode((*asked, turn.seed))).hexdigest()[:32]


def _read(path: Path, *, torn: bool = False) -> tuple[dict[str, _Said], int]:
    """What is in a file by key, and how many bytes of it are whole lines."""
    decoder = msgspec.json.Decoder(_Said)
    said: dict[str, _Said] = {}
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
                said[one.key] = one
                whole += len(line)
    except OSError as error:
        raise RecordingError(f"{path}: cannot be read: {error}") from error
    return said, whole

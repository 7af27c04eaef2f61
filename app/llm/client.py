"""`OpenAIChat`: any OpenAI-compatible endpoint through the official client."""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from http import HTTPStatus
from typing import NoReturn

import openai
from openai import AsyncOpenAI

from app.llm.chat import Decisions, JsonObject, JsonSchema, Letters, Reply, Text, TokenUsage, Turn
from app.llm.chat_body import chat_body, decision_body, possible_changes
from app.llm.completion import read_completion
from app.llm.decision_reply import read_decision
from app.llm.endpoint.address import connect
from app.llm.endpoint.attempts import Attempt
from app.llm.endpoint.dialect import GROWTH, Dialect, hinted
from app.llm.endpoint.faults import (
    about_pictures,
    connection_failure,
    error_of,
    may_be_accepted_otherwise,
    refusal_of,
    refuses_form,
)
from app.llm.endpoint.known import KnownEndpoint
from app.llm.endpoint.outages import Outages
from app.llm.endpoint.poster import Poster
from app.llm.endpoint.refusals import Fault, Refusal
from app.llm.endpoint.search import Search
from app.llm.errors import (
    AnsweredWithError,
    InvalidReply,
    ModelError,
    ModelRejected,
    ModelUnavailable,
    PicturesRefused,
    SpentOnThinking,
    UnsupportedReplyMode,
)

__all__ = ["OpenAIChat", "connect"]

_MOST_REFUSED = 3
_NEARLY = 0.9
_MANY_ANSWERS = 50
_CHAT, _DECISIONS = "/chat/completions", "/decisions"


class OpenAIChat:
    """See ChatModel. The caller owns and closes `client`.

    A call that the endpoint refuses is made again with changes, until one is accepted; later calls
    are made in the same way: see Dialect and Search. Replies are decoded into our own small
    structs: the client's models take 2 ms of CPU more per call, and its `parse` 4 ms.
    """

    def __init__(
        self,
        client: AsyncOpenAI,
        model: str,
        known: KnownEndpoint | None = None,
        *,
        reasoning_effort: str | None = None,
        outages: Outages | None = None,
        listen: Callable[[Attempt], None] | None = None,
    ) -> None:
        self._client = client
        self._poster = Poster(client)
        self._name = model
        self._known = known or KnownEndpoint(model)
        self._reasoning_effort = reasoning_effort
        self._outages = outages or Outages()
        self._listen = listen
        self._spacious = 0  # answers in a row that needed far less than the room
        self._refused: dict[str, int] = {}  # forms that were accepted; refusals since then

    @property
    def name(self) -> str:
        return self._name

    @property
    def room(self) -> int:
        """See ChatModel."""
        return self._known.dialect.room

    @property
    def dialect(self) -> Dialect:
        """What the endpoint accepts, as far as is known."""
        return self._known.dialect

    def body_of(self, turn: Turn) -> dict[str, object]:
        """What a turn sends in a batch, in the dialect that is known so far."""
        body = chat_body(self._name, turn, self._known.dialect, self._reasoning_effort)
        return {name: value for name, value in body.items() if not name.startswith("stream")}

    async def complete(self, turn: Turn) -> Reply:
        """See ChatModel. Learns what the endpoint accepts. Raises SpentOnThinking too."""
        try:
            async with asyncio.timeout(turn.timeout_s):  # the client's own timeout is per read
                await self._known.load()
                reply = await self._answer(turn)
        except TimeoutError as error:
            found = ModelUnavailable(
                f"no answer from the model within {turn.timeout_s:.1f} s", timed_out=True
            )
            self._tell(turn, self._known.dialect, str(found))
            raise self._noted("timeout", found) from error
        except openai.OpenAIError as error:
            raise self._noted("connection", connection_failure(error)) from error
        except (ValueError, UnicodeError) as error:
            raise ModelRejected("the address or the key of the endpoint cannot be used") from error
        self._outages.answered(self._name)
        return reply

    async def _answer(self, turn: Turn) -> Reply:
        shape, search, is_repeated = _shape(turn), None, False
        began = dialect = self._known.dialect
        while not isinstance(answer := await self._once(turn, dialect), Reply):
            if began != self._known.dialect:  # another call has learned meanwhile
                began = dialect = self._known.dialect
                search = None
                continue
            if answer.fault is Fault.REPLY and not is_repeated:  # a bad reply, and perhaps bad luck
                turn, is_repeated = replace(turn, seed=turn.seed + 1), True
                continue
            search = search or self._search(turn, shape)
            if not _goes_on(search, turn, answer):
                await self._fail(answer, turn, shape)
            dialect = search.dialect
        await self._known.learn(_route(turn), began, dialect)
        self._refused[shape] = 0
        if turn.probe and search is not None:
            await self._refine(turn, search)
        if not isinstance(turn.form, Letters | Decisions):
            if _is_starved(answer, turn.longest(dialect.room)):
                await self._give_room(dialect, answer)
            await self._take_room(turn, dialect, answer)
        return answer

    def _search(self, turn: Turn, shape: str) -> Search:
        dialect = self._known.dialect
        decides = isinstance(turn.form, Decisions)
        return Search(
            dialect,
            () if decides else possible_changes(turn, dialect, self._reasoning_effort),
            known=decides or self._knows(shape),
            formed=not isinstance(turn.form, Text),
            probe=turn.probe,
        )

    def _knows(self, shape: str) -> bool:
        """Whether the endpoint accepts calls of this form: what it refuses now is a prompt.

        After some refusals in a row without an answer it may not be so any more.
        """
        return self._refused.get(shape, _MOST_REFUSED) < _MOST_REFUSED

    async def _fail(self, refusal: Refusal, turn: Turn, shape: str) -> NoReturn:
        """Raise the error of this package for a call that no change makes acceptable."""
        said = f"the endpoint answers {refusal.named}"
        if refusal.fault is Fault.ROOM:
            await self._give_room(self._known.dialect, Reply(only_thinking=True))
        if turn.pictures and about_pictures(refusal):
            raise PicturesRefused(said)
        known = self._knows(shape)
        if refusal.fault is Fault.PARAMETERS and known:
            self._refused[shape] += 1
        if _has_refusable_form(turn) and refuses_form(refusal, known=known):
            raise UnsupportedReplyMode(said)
        crashed = refusal.status == HTTPStatus.INTERNAL_SERVER_ERROR
        if turn.probe and crashed and _has_refusable_form(turn):
            raise UnsupportedReplyMode(said, perhaps=True)
        seen = self._known.works(_route(turn)) or refusal.fault is Fault.PAGE
        works = seen and not turn.probe
        raise self._noted(str(refusal.status), error_of(refusal, works=works))

    async def _refine(self, turn: Turn, search: Search) -> None:
        """Undo changes without which the endpoint accepts the call, too."""
        for undone in search.undoings():
            dialect = undone(self._known.dialect)
            if dialect == self._known.dialect:
                continue
            if isinstance(await self._once(turn, dialect), Reply):
                await self._known.restore(dialect)

    async def _give_room(self, dialect: Dialect, reply: Reply) -> None:
        """Raise SpentOnThinking, unless the reply is all that this model has room for."""
        more = await self._known.grow(dialect.room)
        if more or reply.only_thinking:
            raise self._noted("thinking", SpentOnThinking(reply.usage, more_room=more))

    async def _take_room(self, turn: Turn, dialect: Dialect, reply: Reply) -> None:
        """Give a model less room after many answers in a row that needed far less.

        Each call claims the whole room from its budget, so one strange answer must not cost room
        for good.
        """
        used = reply.usage.output_tokens if reply.usage is not None else 0
        less = turn.longest(dialect.room // GROWTH)
        self._spacious = self._spacious + 1 if 0 < 2 * used <= less else 0
        if dialect.room > 1 and self._spacious >= _MANY_ANSWERS:
            self._spacious = 0
            await self._known.shrink(dialect.room)

    def _noted(self, reason: str, error: ModelError) -> ModelError:
        self._outages.failed(self._name, reason, error)
        return error

    async def _once(self, turn: Turn, dialect: Dialect) -> Reply | Refusal:
        """The answer to one call."""
        try:
            answer: Reply | Refusal = await self._asked(turn, dialect)
        except openai.APIStatusError as error:
            answer = refusal_of(error, self._client.api_key)
        except AnsweredWithError as error:
            answer = Refusal.of_answer(error, self._client.api_key)
        except _WebPage as page:
            answer = Refusal.of(HTTPStatus.OK, {}, page.content, key=self._client.api_key)
        except (InvalidReply, openai.OpenAIError) as error:
            self._tell(turn, dialect, str(error))
            raise
        self._tell(turn, dialect, _shown(answer) if isinstance(answer, Reply) else answer.named)
        return answer

    def _tell(self, turn: Turn, dialect: Dialect, outcome: str) -> None:
        if self._listen is not None:
            sent = "; ".join([_shape(turn), *dialect.words()])
            self._listen(Attempt(self._name, sent, outcome))

    async def _asked(self, turn: Turn, dialect: Dialect) -> Reply:
        if isinstance(turn.form, Decisions):
            body = decision_body(self._name, turn.messages, turn.form)
            content = await self._poster.post(_DECISIONS, body, turn.timeout_s)
            return read_decision(content, turn.form)
        body = chat_body(self._name, turn, dialect, self._reasoning_effort)
        content = await self._poster.post(_CHAT, body, turn.timeout_s)
        if content.lstrip()[:1] == b"<":
            raise _WebPage(content)
        return read_completion(content)


class _WebPage(Exception):
    """The endpoint answers with a page for people."""

    def __init__(self, content: bytes) -> None:
        super().__init__()
        self.content = content


def _goes_on(search: Search, turn: Turn, refusal: Refusal) -> bool:
    """Whether the call is made again in another dialect."""
    if not may_be_accepted_otherwise(refusal, probe=turn.probe):
        return False
    if turn.pictures and about_pictures(refusal) and not hinted(refusal.text):
        return False
    return search.goes_on(refusal)


def _route(turn: Turn) -> str:
    return _DECISIONS if isinstance(turn.form, Decisions) else _CHAT


def _has_refusable_form(turn: Turn) -> bool:
    return isinstance(turn.form, JsonSchema | JsonObject | Letters)


def _shape(turn: Turn) -> str:
    """The form of the reply, in words; a schema by its name."""
    match turn.form:
        case JsonSchema(name):
            return f"json_schema {name}"
        case JsonObject():
            return "json_object"
        case Letters():
            return "logprobs"
        case Decisions():
            return "decisions"
        case Text():
            return "text, with pictures" if turn.pictures else "text"


def _is_starved(reply: Reply, most: int) -> bool:
    """Whether thoughts took the room of the answer, or half of it where the answer was cut off.

    Thoughts that ended by themselves, with tokens left of the `most`, are a bad answer.
    """
    usage = reply.usage or TokenUsage()
    if reply.only_thinking:
        return not reply.complete or usage.output_tokens >= _NEARLY * most
    return not reply.complete and 0 < usage.output_tokens <= 2 * usage.reasoning_tokens


def _shown(reply: Reply) -> str:
    """What a reply is, in words; its text may be long."""
    if reply.only_thinking:
        return "200: thoughts and no answer"
    return "200: an answer" if reply.complete else "200: an answer that was cut off"

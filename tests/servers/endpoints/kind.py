"""`Kind`: what an endpoint takes, how its model writes, and how it sends what the model wrote."""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from tests.servers.endpoints.answerer import Answer, Json, Writing

Outcome = Literal["model", "outage", "refused"]
"""What is right: answered by the model; answered without it while the endpoint is in trouble, and
by it afterwards; a start that is refused with the endpoint's words."""

CHARACTERS_PER_TOKEN = 4


@dataclass(frozen=True, slots=True)
class Asked:
    """A request. `number` counts the requests for chats, from 1; `trouble` is on for a time."""

    body: Json
    number: int = 1
    query: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    trouble: bool = False

    @property
    def room(self) -> int:
        """How many tokens the model may write."""
        return int(self.body.get("max_completion_tokens") or self.body.get("max_tokens") or 100_000)


@dataclass(frozen=True, slots=True)
class Sent:
    """An answer over HTTP; a `body` that is no text is sent as JSON."""

    body: object
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    media: str = "application/json"

    @property
    def content(self) -> bytes:
        if isinstance(self.body, bytes):
            return self.body
        said = self.body if isinstance(self.body, str) else json.dumps(self.body)
        return said.encode()


@dataclass(frozen=True, slots=True)
class Written:
    """What the model wrote: a text, and thoughts apart from it."""

    text: str
    thoughts: str = ""
    finish: str = "stop"
    usage: Json = field(default_factory=dict)

    def message(self, **more: object) -> Json:
        """The message of a completion."""
        return {"role": "assistant", "content": self.text, **more}

    def completion(self, message: Json | None = None, **more: object) -> Json:
        """The completion as OpenAI sends it."""
        choice = {
            "index": 0,
            "message": self.message() if message is None else message,
            "finish_reason": self.finish,
        }
        said = {"id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": "any"}
        return {**said, "choices": [choice], "usage": self.usage, **more}


Objection: TypeAlias = Callable[[Asked], Sent | None]
Sending: TypeAlias = Callable[[Written], Sent]


def as_it_is(answer: Answer) -> str:
    return answer.text


def plainly(written: Written) -> Sent:
    return Sent(written.completion())


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of endpoint. `source` says whose manners these are."""

    name: str
    source: str
    objections: tuple[Objection, ...] = ()
    writes: Writing = as_it_is
    sends: Sending = plainly
    thinks: int = 0  # tokens of thoughts before every answer
    shows_thoughts: bool = False  # as content, when there was no room for more
    outcome: Outcome = "model"
    base: str = "/v1"  # of the address, behind the server's
    key: str = "key-of-the-test"
    mode: str | None = None  # the reply mode that has to be found
    words: str = ""  # of the endpoint, in the message of a refused start

    def answer(self, asked: Asked, answer: Answer) -> Sent:
        """What the endpoint sends."""
        for objection in self.objections:
            if (sent := objection(asked)) is not None:
                return sent
        text = self.writes(answer)
        needed = self.thinks + _tokens(text)
        prompt = _tokens(json.dumps(asked.body["messages"]))
        finish = "stop"
        thoughts = "hmm, " * self.thinks
        if needed > asked.room:
            left = max(0, asked.room - self.thinks) * CHARACTERS_PER_TOKEN
            text, finish = text[:left], "length"
            if not left and self.shows_thoughts:
                text = f"<think>{thoughts[: asked.room * CHARACTERS_PER_TOKEN]}"
        elif self.shows_thoughts:
            text = f"<think>{thoughts}</think>{text}"
        usage: Json = {
            "prompt_tokens": prompt,
            "completion_tokens": min(needed, asked.room),
            "total_tokens": prompt + min(needed, asked.room),
        }
        if self.thinks:
            spent = {"reasoning_tokens": min(self.thinks, asked.room)}
            usage |= {"completion_tokens_details": spent}
        return self.sends(Written(text, thoughts[:200], finish, usage))


def _tokens(text: str) -> int:
    return -(-len(text) // CHARACTERS_PER_TOKEN)


# -- what an endpoint objects to


def without(name: str, status: int, body: object, media: str = "application/json") -> Objection:
    """Refuses every request that has this parameter."""

    def objects(asked: Asked) -> Sent | None:
        return Sent(body, status, media=media) if name in asked.body else None

    return objects


def unless(
    fine: Callable[[Asked], bool], status: int, body: object, media: str = "application/json"
) -> Objection:
    """Refuses every request that is not fine."""

    def objects(asked: Asked) -> Sent | None:
        return None if fine(asked) else Sent(body, status, media=media)

    return objects


def formats(*allowed: str) -> Callable[[Asked], bool]:
    """Whether a request has no `response_format`, or one of these types."""
    return lambda asked: _format(asked) in (None, *allowed)


def _format(asked: Asked) -> str | None:
    return (asked.body.get("response_format") or {}).get("type")


def no_role(role: str) -> Callable[[Asked], bool]:
    """Whether no message of a request has this role."""
    return lambda asked: all(message["role"] != role for message in asked.body["messages"])


def keywords_of(asked: Asked) -> list[tuple[str, str]]:
    """The limits in the schema of a request: the type that has them, and their names."""
    schema = (asked.body.get("response_format") or {}).get("json_schema", {}).get("schema")
    return list(_keywords(schema))


def _keywords(schema: object) -> Iterator[tuple[str, str]]:
    if isinstance(schema, dict):
        for name in ("minimum", "maximum", "maxLength", "minLength", "maxItems", "minItems"):
            if name in schema and not isinstance(schema[name], dict):
                yield str(schema.get("type")), name
        for value in schema.values():
            yield from _keywords(value)


def troubled(*sent: Sent) -> Objection:
    """Answers so while there is trouble, one after the other."""
    return lambda asked: sent[asked.number % len(sent)] if asked.trouble else None


def at_first(calls: int, sent: Sent) -> Objection:
    """Answers the first calls so."""
    return lambda asked: sent if asked.number <= calls else None


def every(nth: int, sent: Sent) -> Objection:
    """Answers every nth call so, beginning with the second."""
    return lambda asked: sent if asked.number % nth == 2 % nth else None

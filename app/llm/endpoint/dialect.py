"""`Dialect`: what an endpoint accepts in a call to a model, and which words point to what."""

import re
from collections.abc import Mapping
from enum import StrEnum

import msgspec

GROWTH = 4  # of the room, where all of it was spent on thinking
MOST_ROOM = 16


class Change(StrEnum):
    """A change of a call that an endpoint refuses. Their order is that in which they are tried."""

    STREAMED = "streamed"
    STREAM = "stream"
    SEED = "seed"
    TEMPERATURE = "temperature"
    REASONING_EFFORT = "reasoning_effort"
    BOUNDS = "bounds of the schema"
    ADDITIONAL = "additionalProperties of the schema"
    STRICT = "strict of the schema"
    SYSTEM_ROLE = "system role"
    MAX_TOKENS = "max_tokens"
    OUTPUT_LIMIT = "max_completion_tokens"
    THINKING = "thinking"

    @property
    def done(self) -> str:
        """What is done, in words."""
        match self:
            case Change.SYSTEM_ROLE:
                return "the system message is the start of the user message"
            case Change.MAX_TOKENS:
                return "max_completion_tokens in place of max_tokens"
            case Change.OUTPUT_LIMIT:
                return "no limit of output tokens"
            case Change.STREAMED:
                return "the reply is streamed"
            case Change.THINKING:
                return "enable_thinking is false"
            case _:
                return f"no {self}"


class Dialect(msgspec.Struct, frozen=True):
    """What an endpoint accepts from one model, as far as its refusals have told.

    `room`: how many times the output tokens of a turn a call may take, for a model that thinks
    within them; at most `most_room`.
    """

    changes: frozenset[Change] = frozenset()
    room: int = 1
    most_room: int = MOST_ROOM

    def changed(self, *changes: Change) -> "Dialect":
        """The same with more changes."""
        return msgspec.structs.replace(self, changes=_needed(self.changes.union(changes)))

    def without(self, change: Change) -> "Dialect":
        """The same without one of its changes."""
        return msgspec.structs.replace(self, changes=self.changes - {change})

    def with_room(self, room: int) -> "Dialect":
        """The same with another room."""
        return msgspec.structs.replace(self, room=room)

    def joined(self, before: "Dialect", found: "Dialect") -> "Dialect":
        """This dialect with what a call that began with `before` has found to be accepted."""
        room = found.room if found.room != before.room else self.room
        return Dialect(
            _needed(self.changes | (found.changes - before.changes)),
            room,
            min(self.most_room, found.most_room),
        )

    def words(self) -> list[str]:
        """What is changed in every call, in words."""
        told = [change.done for change in Change if change in self.changes]
        return [*told, f"{self.room} times the output tokens"] if self.room > 1 else told


def _needed(changes: frozenset[Change]) -> frozenset[Change]:
    """The changes that make a difference: a limit that is not sent has no name."""
    return changes - {Change.MAX_TOKENS} if Change.OUTPUT_LIMIT in changes else changes


_HINTS: Mapping[Change, re.Pattern[str]] = {
    Change.STREAMED: re.compile(
        r"only supports? stream|only stream|streaming (?:is|mode is) required|stream mode"
        r"|(?:set|enable)[^\n]{0,20}\bstream\b"
        r"|\bstream\W{0,3}(?:must|has to|should) be[^\n]{0,12}true"
    ),
    Change.STREAM: re.compile(r"\bstream\b"),
    Change.SEED: re.compile(r"\b(?:random_)?seed\b"),
    Change.TEMPERATURE: re.compile(r"temperature|sampling param"),
    Change.REASONING_EFFORT: re.compile(r"reasoning"),
    Change.BOUNDS: re.compile(
        r"min(?:imum|_?items|_?length)\b|max(?:imum|_?items|_?length)\b"
        r"|(?<!json_)(?<!json-)(?<!json )(?<!response_)(?<!response)schemas?\b|grammar"
    ),
    Change.ADDITIONAL: re.compile(r"additional_?properties"),
    Change.STRICT: re.compile(r"\bstrict\b"),
    Change.SYSTEM_ROLE: re.compile(
        r"\bsystem\W{0,3}(?:role|messages?|prompt|instruction)|\brole\W{1,4}system"
        r"|developer instruction|\broles? [^\n]{0,60}(?:support|alternat|allowed|one of)"
        r"|alternat[^\n]{0,30}\broles?|jinja|chat[_ ]template"
    ),
    Change.MAX_TOKENS: re.compile(r"max_?(?:output_|new_)?tokens|max tokens"),
    Change.OUTPUT_LIMIT: re.compile(r"max_completion_tokens"),
    Change.THINKING: re.compile(r"enable_thinking"),
}
_FORM_HINT = re.compile(
    r"response[_ ]?(?:format|schema)|json[_ -]?(?:schema|object|mode)|structured[_ ]outputs?"
    r"|output_config|guided|response_?mime|logprobs|logits|grammar"
)


def hinted(text: str) -> list[Change]:
    """The changes that the words of a refusal point to, in lower case, the first named first."""
    places = {
        change: found.start() for change, hint in _HINTS.items() if (found := hint.search(text))
    }
    return sorted(places, key=lambda change: (places[change], list(Change).index(change)))


def hints_at_form(text: str) -> bool:
    """Whether the words of a refusal point to the form of the reply."""
    return _FORM_HINT.search(text) is not None

"""`ChatModel`: one stateless turn of a conversation, and the two models that need no network."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal, Protocol, TypeAlias

from app.llm.errors import ModelUnavailable

Role = Literal["system", "user", "assistant"]

_THOUGHTS = 512


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture in a message, after a line of text that says what it belongs to."""

    caption: str
    url: str = field(repr=False)  # https:, or data: with the picture itself


@dataclass(frozen=True, slots=True)
class Message:
    """One message of a conversation; the pictures follow the text."""

    role: Role
    content: str
    pictures: tuple[Picture, ...] = ()


@dataclass(frozen=True, slots=True)
class Text:
    """The reply is free text."""


@dataclass(frozen=True, slots=True)
class JsonObject:
    """The reply is some JSON object."""


@dataclass(frozen=True, slots=True)
class JsonSchema:
    """The reply is JSON of a strict schema: every property is required, no other is allowed."""

    name: str
    schema: Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Letters:
    """The reply is one token, with the probabilities of the `count` likeliest ones (at most 20)."""

    count: int


@dataclass(frozen=True, slots=True)
class Choice:
    """A question which of the options 1 … `options` (2 to 255) fits: a probability for each."""

    instructions: str
    options: int


@dataclass(frozen=True, slots=True)
class Predicate:
    """A question how likely a statement is true."""

    instructions: str


@dataclass(frozen=True, slots=True)
class Decisions:
    """The reply is no text, but the probabilities for 1 to 400 questions."""

    questions: tuple[Choice | Predicate, ...]


Form: TypeAlias = Text | JsonObject | JsonSchema | Letters | Decisions


@dataclass(frozen=True, slots=True)
class Turn:
    """One call to a model.

    `probe`: a tiny question of ours, whose call may be repeated to find out what the endpoint
    accepts. Whatever is wrong then is told as a mistake of the settings.
    """

    messages: tuple[Message, ...]
    form: Form
    max_output_tokens: int
    timeout_s: float
    seed: int = 0
    probe: bool = False

    @property
    def pictures(self) -> tuple[Picture, ...]:
        """All pictures of its messages."""
        return tuple(picture for message in self.messages for picture in message.pictures)

    def longest(self, room: int) -> int:
        """The most tokens that a call may write, with so much room: see `ChatModel.room`.

        A short reply needs as many thoughts as a long one: with more room than 1, a call gets at
        least that of a reply of 512 tokens.
        """
        if room == 1 or isinstance(self.form, Letters | Decisions):  # these think about nothing
            return self.max_output_tokens
        return room * max(self.max_output_tokens, _THOUGHTS)

    def without_pictures(self) -> "Turn":
        """The same turn with the text alone."""
        return replace(self, messages=tuple(replace(one, pictures=()) for one in self.messages))


@dataclass(frozen=True, slots=True)
class TokenUsage:
    """Tokens of one call, as the provider counts them."""

    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0  # of the input
    reasoning_tokens: int = 0  # of the output


@dataclass(frozen=True, slots=True)
class Reply:
    """The reply of a model; which fields are set depends on the form of the turn.

    `text` is the answer without the model's thoughts; `only_thinking` says that there were thoughts
    and no answer, as when all output tokens were spent on them: the model needs more room.
    `letters` maps tokens to log-probabilities. `decisions` has an entry per question: the
    probabilities of the options (one for a predicate), or None when the model declined.
    """

    text: str = ""
    letters: Mapping[str, float] = field(default_factory=dict)
    decisions: tuple[Mapping[int, float] | None, ...] = ()
    usage: TokenUsage | None = None  # None when the provider does not report it
    complete: bool = True  # False when the reply was cut off at `max_output_tokens`
    only_thinking: bool = False
    cached: bool = False  # from our cache: no call was made
    keep: Callable[[], Awaitable[None]] | None = (
        None  # stores the reply in the cache; call it once the reply has proved usable
    )


class ChatModel(Protocol):
    """One stateless turn. Behaviour is added by wrapping: see `app.llm.wrappers`."""

    @property
    def name(self) -> str:
        """The name of the model at the provider; part of cache keys."""
        ...

    @property
    def room(self) -> int:
        """How many times `max_output_tokens` a call may take: some models think before they answer.

        See `Turn.longest`. It grows when a call raises SpentOnThinking.
        """
        ...

    async def complete(self, turn: Turn) -> Reply:
        """The reply, within the turn's timeout.

        Raises ModelUnavailable, InvalidReply, ModelRejected.
        """
        ...


@dataclass(frozen=True, slots=True)
class OfflineChat:
    """No model: every call fails, as in an outage, which every stage can handle."""

    name: str = "none"
    room: int = 1

    async def complete(self, turn: Turn) -> Reply:  # noqa: ARG002
        """See ChatModel: always raises ModelUnavailable."""
        raise ModelUnavailable("no model is configured", asked=False)


@dataclass(frozen=True, slots=True)
class ScriptedChat:
    """A model whose replies a function computes, for tests and measurements."""

    script: Callable[[Turn], Reply | Awaitable[Reply]]
    name: str = "scripted"
    room: int = 1

    async def complete(self, turn: Turn) -> Reply:
        """See ChatModel. Raises what the script raises."""
        reply = self.script(turn)
        return reply if isinstance(reply, Reply) else await reply

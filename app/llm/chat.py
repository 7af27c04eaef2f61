"""`ChatModel`: one stateless turn of a conversation, and the two models that need no network."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal, Protocol, TypeAlias

from app.llm.errors import ModelUnavailable

Role = Literal["system", "user", "assistant"]


@dataclass(frozen=True, slots=True)
class Message:
    """One message of a conversation."""

    role: Role
    content: str


@dataclass(frozen=True, slots=True)
class Text:
    """The reply is free text."""


@dataclass(frozen=True, slots=True)
class JsonObject:
    """The reply is some JSON object."""


@dataclass(frozen=True, slots=True)
class JsonSchema:
    """The reply is JSON of a schema, which is strict: every property required, none other."""

    name: str
    schema: Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Letters:
    """The reply is one token; wanted are the chances of the `count` likeliest ones (at most 20)."""

    count: int


@dataclass(frozen=True, slots=True)
class Choice:
    """Which of the options 1 … `options` (2 to 255) fits, as a chance for each."""

    instructions: str
    options: int


@dataclass(frozen=True, slots=True)
class Predicate:
    """How likely a statement is true."""

    instructions: str


@dataclass(frozen=True, slots=True)
class Decisions:
    """No text: 1 to 400 questions about the conversation, answered by chances."""

    questions: tuple[Choice | Predicate, ...]


Form: TypeAlias = Text | JsonObject | JsonSchema | Letters | Decisions


@dataclass(frozen=True, slots=True)
class Turn:
    """What is asked in one call."""

    messages: tuple[Message, ...]
    form: Form
    max_output_tokens: int
    timeout_s: float
    seed: int = 0


@dataclass(frozen=True, slots=True)
class TokenUsage:
    """Tokens of one call, as the provider counts them."""

    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0  # of the input


@dataclass(frozen=True, slots=True)
class Reply:
    """What came back; which field is filled depends on the form that was asked for.

    `letters` maps tokens to log-probabilities. `decisions` has an entry per question: the chances
    of the options (one for a predicate), None where the model declined.
    """

    text: str = ""
    letters: Mapping[str, float] = field(default_factory=dict)
    decisions: tuple[Mapping[int, float] | None, ...] = ()
    usage: TokenUsage | None = None  # None where the provider does not tell
    complete: bool = True  # False when the reply was cut off at its longest
    kept: bool = False  # came from a cache: no call was made
    keep: Callable[[], Awaitable[None]] | None = None  # to be called once it has proved usable


class ChatModel(Protocol):
    """One stateless turn. Behaviour is added by wrapping: see `app.llm.wrappers`."""

    @property
    def name(self) -> str:
        """What the provider calls the model; part of cache keys."""
        ...

    async def complete(self, turn: Turn) -> Reply:
        """Raises ModelUnavailable, InvalidReply, ModelRejected, within the turn's timeout."""
        ...


@dataclass(frozen=True, slots=True)
class OfflineChat:
    """No model at all: a permanent outage, which every stage knows how to live with."""

    name: str = "none"

    async def complete(self, turn: Turn) -> Reply:  # noqa: ARG002
        """See ChatModel: always raises ModelUnavailable."""
        raise ModelUnavailable("no model is configured", asked=False)


@dataclass(frozen=True, slots=True)
class ScriptedChat:
    """A model whose replies are computed: for tests and measurements."""

    script: Callable[[Turn], Reply | Awaitable[Reply]]
    name: str = "scripted"

    async def complete(self, turn: Turn) -> Reply:
        """See ChatModel; raises whatever the script does."""
        reply = self.script(turn)
        return reply if isinstance(reply, Reply) else await reply

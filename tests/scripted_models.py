"""Models of known worth: they read the real prompts, and know what is right, or do not."""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from hashlib import blake2b
from random import Random
from typing import Literal, TypeAlias, cast, get_args

from app.llm import Reply, TokenUsage, Turn
from app.llm.tokens import estimated_tokens

Habit: TypeAlias = Literal["random", "first", "constant", "same", "reversed"]
HABITS: tuple[Habit, ...] = get_args(Habit)

_OPTION = re.compile(r"^(\d+)\. (.*)$", re.MULTILINE)
_INTEREST = re.compile(r"^\d+\. .* \(\d+ %\)$", re.MULTILINE)
_WANTED = re.compile(r"at most (\d+) picks")
_WORD = re.compile(r"\w{3,}")
_NUMBERS = tuple(Random(5).sample(range(1, 65), 64))

Order: TypeAlias = tuple[Sequence[int], Sequence[int]]  # of the numbers, and their scores


@dataclass(slots=True)
class ScriptedModel:
    """A script for `ScriptedChat`, in the reply modes of JSON.

    In `knows` of the prompts, by chance, it puts the right options first; otherwise it has its
    habit. Which options are right follows from the slate (`answers`, by the set of its lines) or
    is set for the current task (`right`). The same prompt gets the same reply. `reversed` ranks by
    common words, worst first.
    """

    habit: Habit = "random"
    knows: float = 0.0
    answers: dict[frozenset[str], frozenset[str]] = field(default_factory=dict)
    right: ContextVar[frozenset[str]] = field(
        default_factory=lambda: ContextVar("right", default=frozenset())
    )
    calls: int = 0

    def __call__(self, turn: Turn) -> Reply:
        """The reply to a prompt for a slate, for topics or for titles."""
        self.calls += 1
        contents = [message.content for message in turn.messages]
        system, user = contents[-2:]
        listed, _, person = user.partition("\n\n")
        options = {int(number): line for number, line in _OPTION.findall(listed)}
        right = self.answers.get(frozenset(options.values()), self.right.get())
        chance = Random(_digest(self.habit, str(self.knows), *sorted(right), user))
        known = right if chance.random() < self.knows else frozenset()
        reply: dict[str, object] = {}
        interests = len(_INTEREST.findall(person)) or 1
        if '"topics"' in system:
            topics = _topics(user, known, chance)
            reply |= {"topics": topics, "avoid": []}
            interests = len(topics)
        if '"titles"' in system:
            reply["titles"] = sorted(known) or _by_chance(user, chance)
        if '"picks"' in system:
            order, scores = self._order(options, person, known, chance)
            wanted = int(_WANTED.search(system)[1])  # type: ignore[index]
            by_interest = '"for"' in system
            reply["picks"] = [
                {"n": number, "score": score}
                | ({"for": chance.randint(1, interests)} if by_interest else {})
                for number, score in zip(order[:wanted], scores, strict=False)
            ]
        text = json.dumps(reply)
        return Reply(text, usage=TokenUsage(estimated_tokens(*contents), estimated_tokens(text)))

    def _order(
        self, options: Mapping[int, str], person: str, known: frozenset[str], chance: Random
    ) -> Order:
        order, scores = _HABITS[self.habit](options, person, chance)
        first = [number for number in order if options[number] in known]
        rest = [number for number in order if options[number] not in known]
        return [*first, *rest], [*(100 for _ in first), *scores]


def _random(options: Mapping[int, str], _: str, chance: Random) -> Order:
    order = chance.sample(list(options), len(options))
    return order, sorted((chance.randint(10, 95) for _ in order), reverse=True)


def _first(options: Mapping[int, str], _: str, __: Random) -> Order:
    return list(options), [max(10, 95 - 2 * at) for at in range(len(options))]


def _constant(options: Mapping[int, str], _: str, __: Random) -> Order:
    order = [number for number in _NUMBERS if number in options]
    return order, [max(10, 90 - at) for at in range(len(order))]


def _same(options: Mapping[int, str], _: str, __: Random) -> Order:
    return list(options), [50] * len(options)


def _reversed(options: Mapping[int, str], person: str, chance: Random) -> Order:
    about = _words(person)

    def overlap(number: int) -> tuple[float, float]:
        words = _words(options[number])
        return len(words & about) / (1 + len(words)), chance.random()

    order = sorted(options, key=overlap)
    return order, [max(10, 95 - at) for at in range(len(order))]


_HABITS: Mapping[Habit, Callable[[Mapping[int, str], str, Random], Order]] = {
    "random": _random,
    "first": _first,
    "constant": _constant,
    "same": _same,
    "reversed": _reversed,
}


def _topics(user: str, known: frozenset[str], chance: Random) -> list[dict[str, object]]:
    """What is right in words where it is known, else words of the prompt by chance."""
    named = [line[:60] for line in sorted(known)[:1]] or _by_chance(user, chance)
    return [
        {"topic": topic, "weight": chance.randint(20, 100), "choices": [at]}
        for at, topic in enumerate(named, 1)
    ]


def _by_chance(user: str, chance: Random) -> list[str]:
    words = _WORD.findall(user)
    return [" ".join(chance.sample(words, min(3, len(words)))) for _ in range(3)]


def _words(text: str) -> frozenset[str]:
    return frozenset(word.casefold() for word in cast(list[str], _WORD.findall(text)))


def _digest(*parts: str) -> bytes:
    text = "\0".join(parts).encode("utf-8", "surrogatepass")
    return blake2b(text, digest_size=8).digest()

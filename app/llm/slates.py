"""Slates: numbered options that a model scores, in any reply mode; read back as `Scored`."""

import math
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from string import ascii_uppercase
from typing import TypeAlias

import msgspec
import numpy as np
import numpy.typing as npt

from app.llm.chat import (
    Choice,
    Decisions,
    Form,
    JsonObject,
    JsonSchema,
    Letters,
    Message,
    Predicate,
    Reply,
    Text,
    Turn,
)
from app.llm.errors import InvalidReply, ReplyFlaw
from app.llm.json_reply import JsonReply, ListForm, in_either_form
from prompts import Prompt, numbered, phrase

FloatArray: TypeAlias = npt.NDArray[np.float32]

SLATE_WIDTH = 64  # models rank better on slates of moderate size
_MAX_SCORE = 100
_LOG_SPAN = 8.0  # probabilities below e^-8 count as equal
_TOKENS_PER_PICK = 20


class ReplyMode(StrEnum):
    """The form in which a model must reply."""

    JSON_SCHEMA = "json_schema"
    JSON_OBJECT = "json_object"
    TEXT = "text"
    LOGPROBS = "logprobs"
    DECISIONS = "decisions"
    PREDICATES = "predicates"

    @property
    def width(self) -> int:
        """Most options of a slate: providers return the probabilities of at most 20 tokens."""
        return 20 if self is ReplyMode.LOGPROBS else SLATE_WIDTH

    @property
    def for_text(self) -> "ReplyMode":
        """The mode for questions that are not a choice among options."""
        match self:
            case ReplyMode.LOGPROBS:
                return ReplyMode.TEXT
            case ReplyMode.DECISIONS | ReplyMode.PREDICATES:
                return ReplyMode.JSON_SCHEMA
            case _:
                return self


@dataclass(frozen=True, slots=True)
class Slate:
    """Options to be scored for a user, at most `mode.width` of them.

    `need` is the description of the user, as text for the prompt; with `interests`, an option may
    have a score for each of them. `wanted` is how many options the model is asked to score.
    """

    prompt: Prompt
    options: Sequence[str]
    need: str
    interests: Sequence[str]
    wanted: int
    max_chars: int = 110

    @property
    def columns(self) -> int:
        return max(1, len(self.interests))


@dataclass(frozen=True, slots=True)
class Scored:
    """float32[options, interests], 0 … 1, NaN without a score; and the flaws of the reply."""

    values: FloatArray
    flaws: Counter[ReplyFlaw]


def turn_of(slate: Slate, mode: ReplyMode, *, timeout_s: float, seed: int) -> Turn:
    """The call that asks for the scores of a slate."""
    labels = ascii_uppercase[: len(slate.options)] if mode is ReplyMode.LOGPROBS else None
    system, user = slate.prompt.render(
        options=numbered(slate.options, slate.max_chars, labels), need=slate.need
    )
    form, how, longest = _form(slate, mode)
    messages = (Message("system", f"{system}\n\n{how}"), Message("user", user))
    return Turn(messages, form, longest, timeout_s, seed)


def read(slate: Slate, mode: ReplyMode, reply: Reply) -> Scored:
    """The scores in a reply. Raises InvalidReply when none is usable.

    Unknown numbers, repetitions and broken lines are counted as flaws, and ignored.
    """
    match mode:
        case ReplyMode.JSON_SCHEMA | ReplyMode.JSON_OBJECT:
            picks, flaws = _read_picks(reply.text, json=True)
        case ReplyMode.TEXT:
            picks, flaws = _read_picks(reply.text, json=False)
        case ReplyMode.LOGPROBS:
            return _from_letters(slate, reply)
        case ReplyMode.DECISIONS | ReplyMode.PREDICATES:
            return _from_decisions(slate, mode, reply)
    return scored(picks, flaws, len(slate.options), slate.columns)


# -- asking


def _form(slate: Slate, mode: ReplyMode) -> tuple[Form, str, int]:
    """The form of the reply, the text that asks for it, and how many tokens it may take."""
    suffix = "_interests" if slate.interests else ""
    longest = 32 + _TOKENS_PER_PICK * slate.wanted
    match mode:
        case ReplyMode.JSON_SCHEMA:
            how = phrase(f"picks_json{suffix}", wanted=slate.wanted)
            return picks_schema(len(slate.interests), slate.wanted), how, longest
        case ReplyMode.JSON_OBJECT:
            return JsonObject(), phrase(f"picks_json{suffix}", wanted=slate.wanted), longest
        case ReplyMode.TEXT:
            return Text(), phrase(f"picks_text{suffix}", wanted=slate.wanted), longest
        case ReplyMode.LOGPROBS:
            return Letters(ReplyMode.LOGPROBS.width), phrase("letter"), 1
        case ReplyMode.DECISIONS:
            return Decisions(tuple(_choices(slate))), phrase("decide"), 1
        case ReplyMode.PREDICATES:
            asked = (
                Predicate(phrase("predicate", number=number))
                for number in range(1, len(slate.options) + 1)
            )
            return Decisions(tuple(asked)), phrase("decide"), 1


def _choices(slate: Slate) -> Iterable[Choice]:
    options = max(2, len(slate.options))  # endpoints reject a choice of one
    if slate.columns == 1:
        yield Choice(phrase("choice"), options)
        return
    for number in range(1, slate.columns + 1):  # the interests themselves stand in the user part
        yield Choice(phrase("choice_interest", number=number), options)


@lru_cache(maxsize=256)
def picks_schema(interests: int, wanted: int) -> JsonSchema:
    """The strict schema of picks; equal for all slates, so providers compile it once."""
    return JsonSchema("picks", closed({"picks": pick_list(interests, wanted)}))


def pick_list(interests: int, wanted: int) -> dict[str, object]:
    """The schema of a list of picks; with interests, each pick names its interest."""
    fields: dict[str, object] = {
        "n": {"type": "integer", "minimum": 1, "maximum": SLATE_WIDTH},
        "score": {"type": "integer", "minimum": 0, "maximum": _MAX_SCORE},
    }
    if interests:
        fields["for"] = {"type": "integer", "minimum": 1, "maximum": interests}
    return {"type": "array", "maxItems": wanted, "items": closed(fields)}


def closed(fields: dict[str, object]) -> dict[str, object]:
    """An object schema for strict mode: all properties required, no others allowed."""
    return {
        "type": "object",
        "properties": fields,
        "required": list(fields),
        "additionalProperties": False,
    }


# -- reading


class Pick(msgspec.Struct):
    """One option that a model has picked."""

    n: int
    score: float = math.nan
    interest: int | None = msgspec.field(default=1, name="for")


_PICKS = ListForm(
    "picks",
    Pick,
    "n",
    "score",
    {"number": "n", "option": "n", "id": "n", "index": "n", "rating": "score",
     "relevance": "score", "interest": "for", "topic": "for"},
)  # fmt: skip
# "7: 85 (1)", and variants that models write: bullets, bold, table rows, "85 %", "85/100", commas.
# Repetitions are bounded, so no text takes quadratic time.
_LINE = re.compile(
    r"(?:^|[,;])[^\w\n]{0,8}(\d{1,4})(?=[^\w\n]{0,6}[:=.)|\-\u2013])[^\w\n]{1,8}"
    r"(\d{1,3}(?:\.\d{1,9})?)(?:/100\b)?(?:[^\w\n/]{1,8}(\d{1,4})\b(?!\s*[:=\-\u2013]))?",
    re.MULTILINE,
)
_NUMBER = re.compile(r"\b\d{1,4}\b")


def picks_in_json(reply: JsonReply) -> tuple[list[Pick], Counter[ReplyFlaw]]:
    """The picks in a reply; from broken JSON, the whole picks. Raises InvalidReply."""
    picks = reply.entries(_PICKS)
    of_one = any(0 < pick.score < 1 for pick in picks) and all(pick.score <= 1 for pick in picks)
    for pick in picks if of_one else ():  # "score": 0.85
        pick.score *= _MAX_SCORE
    return picks, _flaw("wrong_format", of_one or not reply.is_well_formed)


def _read_picks(text: str, *, json: bool) -> tuple[list[Pick], Counter[ReplyFlaw]]:
    """The picks in a reply in either form, and whether it is the wrong one. Raises InvalidReply."""

    def from_json(reply: JsonReply) -> tuple[list[Pick], Counter[ReplyFlaw]]:
        picks, flaws = picks_in_json(reply)
        return picks, flaws if json else _flaw("wrong_format")

    def from_lines(text: str) -> tuple[list[Pick], Counter[ReplyFlaw]]:
        return _picks_in_lines(text, asked=not json)

    return in_either_form(text, from_json, from_lines, json=json)


def _picks_in_lines(text: str, *, asked: bool) -> tuple[list[Pick], Counter[ReplyFlaw]]:
    """The picks in lines. Numbers of any kind count where lines were `asked` for."""
    lines = [
        Pick(int(number), float(score), int(interest or 1))
        for number, score, interest in _LINE.findall(_last_lines(text))
    ]
    if lines:
        return lines, _flaw("wrong_format", not asked)
    named = list(dict.fromkeys(map(int, _NUMBER.findall(text))))[:SLATE_WIDTH]
    if not named or not asked:
        raise InvalidReply("no numbers in the reply" if asked else "no picks in the reply")
    ranked = [Pick(number, _MAX_SCORE * (1 - at / len(named))) for at, number in enumerate(named)]
    return ranked, _flaw("wrong_format")


def _last_lines(text: str) -> str:
    """The lines of the last answer in a text that gives one more than once, with words between."""
    answers: list[list[tuple[str, str]]] = [[]]  # the option and the whole line
    for line in text.splitlines():
        if found := _LINE.search(line):
            answers[-1].append((found[1], line))
        elif answers[-1] and any(map(str.isalpha, line)):
            answers.append([])
    *drafts, last = filter(None, answers) if any(answers) else [[]]
    numbers = {number for number, _ in last}
    repeated = numbers & {number for draft in drafts for number, _ in draft}
    return "\n".join(line for _, line in last) if 2 * len(repeated) > len(numbers) else text


def scored(picks: Sequence[Pick], flaws: Counter[ReplyFlaw], options: int, columns: int) -> Scored:
    """Picks as a matrix. Raises InvalidReply when no pick is an option of the slate."""
    values = np.full((options, columns), np.nan, np.float32)
    for rank, pick in enumerate(picks):
        interest = pick.interest or 1
        if not 1 <= pick.n <= options or not 1 <= interest <= columns:
            flaws["out_of_range"] += 1
            continue
        score = pick.score
        if math.isnan(score):
            score = _MAX_SCORE * (1 - rank / len(picks))
        if not 0 <= score <= _MAX_SCORE:
            flaws["out_of_range"] += 1
            score = min(max(score, 0), _MAX_SCORE)
        if math.isnan(values[pick.n - 1, interest - 1]):
            values[pick.n - 1, interest - 1] = score / _MAX_SCORE
        else:
            flaws["repeated"] += 1
    if not picks:
        flaws["missing"] += 1  # "none of them" is a valid answer
    elif np.isnan(values).all():
        raise InvalidReply("no pick is of an option that was offered", "out_of_range")
    return Scored(values, flaws)


def _from_letters(slate: Slate, reply: Reply) -> Scored:
    chances: dict[str, float] = {}
    for token, logprob in reply.letters.items():
        letter = token.strip().upper()
        chances[letter] = chances.get(letter, 0.0) + math.exp(min(logprob, 0.0))
    letters = ascii_uppercase[: len(slate.options)]
    if not any(letter in chances for letter in letters):
        raise InvalidReply("none of the likeliest tokens is the letter of an option")
    column = [_log_scaled(chances.get(letter, 0.0)) for letter in letters]
    missing = sum(letter not in chances for letter in letters)
    values = np.repeat(np.array(column, np.float32)[:, None], slate.columns, axis=1)
    return Scored(values, _flaw("missing", missing))


def _from_decisions(slate: Slate, mode: ReplyMode, reply: Reply) -> Scored:
    options = len(slate.options)
    values = np.full((options, slate.columns), np.nan, np.float32)
    flaws: Counter[ReplyFlaw] = Counter()
    for at, chances in enumerate(reply.decisions):
        if chances is None:
            flaws["missing"] += 1
        elif mode is ReplyMode.PREDICATES:
            if at < options and 1 in chances:
                values[at] = min(max(chances[1], 0.0), 1.0)
        elif at < slate.columns:
            for number, chance in chances.items():
                if 1 <= number <= options:
                    values[number - 1, at] = _log_scaled(chance)
                elif number != 2:
                    flaws["out_of_range"] += 1
    if np.isnan(values).all():
        raise InvalidReply("no decision about any option", "missing")
    return Scored(values, flaws)


def _flaw(kind: ReplyFlaw, count: int = 1) -> Counter[ReplyFlaw]:
    flaws: Counter[ReplyFlaw] = Counter()
    if count:
        flaws[kind] = count
    return flaws


def _log_scaled(chance: float) -> float:
    """A probability on a log scale, 0 … 1: an added offset multiplies the probability."""
    return 1 + math.log(min(max(chance, math.exp(-_LOG_SPAN)), 1.0)) / _LOG_SPAN

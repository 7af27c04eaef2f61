"""What an endpoint answers to /decisions."""

import re
from collections.abc import Mapping

import msgspec

from app.llm.chat import Decisions, Reply, TokenUsage
from app.llm.errors import InvalidReply

_NUMBER = re.compile(r"[0-9]{1,4}")
_UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


class _Details(msgspec.Struct):
    cached_tokens: int | None = None


class _Probability(msgspec.Struct):
    probability: float
    value: str | bool


class _Answer(msgspec.Struct):
    type: str
    probability: float | None = None
    probabilities: list[_Probability] = []


class _DecisionUsage(msgspec.Struct):
    input_tokens: int | None = None
    output_tokens: int | None = None
    input_tokens_details: _Details | None = None


class _Decision(msgspec.Struct):
    answers: list[_Answer]
    usage: _DecisionUsage | None = None


_decision = msgspec.json.Decoder(_Decision)


def read_decision(content: bytes, form: Decisions) -> Reply:
    """The reply in an answer of /decisions. Raises InvalidReply."""
    try:
        found = _decision.decode(content)
    except _UNREADABLE as error:
        raise InvalidReply(f"the endpoint's answer is not a decision: {error}") from error
    answers = [_probabilities(answer) for answer in found.answers[: len(form.questions)]]
    answers += [None] * (len(form.questions) - len(answers))
    return Reply(decisions=tuple(answers), usage=_usage(found.usage))


def _probabilities(answer: _Answer) -> Mapping[int, float] | None:
    """Probabilities by option; that of a predicate under 1. None when the model declined."""
    if answer.type == "predicate" and answer.probability is not None:
        return {1: answer.probability}
    if answer.type == "choice":
        return {
            int(entry.value): entry.probability
            for entry in answer.probabilities
            if isinstance(entry.value, str) and _NUMBER.fullmatch(entry.value)
        }
    return None


def _usage(found: _DecisionUsage | None) -> TokenUsage | None:
    """The usage that a provider reports, with plausible values; None when it reports none."""
    if found is None or found.input_tokens is None or found.input_tokens < 0:
        return None
    read, details = found.input_tokens, found.input_tokens_details
    cached = (details.cached_tokens or 0) if details is not None else 0
    return TokenUsage(read, max(0, found.output_tokens or 0), min(max(0, cached), read))

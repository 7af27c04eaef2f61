"""A server for POST /v1/decisions that takes and gives what the client's own types say."""

import json
import random
from collections.abc import Callable, Iterable, Iterator
from hashlib import sha256
from typing import Any, TypeAlias

from openai.types.decision import (
    Answer,
    AnswerAnswerResourceChoice,
    AnswerAnswerResourceChoiceProbability,
    AnswerAnswerResourcePredicate,
    AnswerAnswerResourceRefusal,
    AnswerAnswerResourceScore,
    AnswerAnswerResourceScoreProbability,
    Decision,
    Usage,
    UsageInputTokensDetails,
    UsageOutputTokensDetails,
)
from openai.types.decision_create_params import DecisionCreateParams
from pydantic import TypeAdapter, ValidationError
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from tests.servers.loopback import Loopback

Question: TypeAlias = dict[str, Any]
Input: TypeAlias = str | list[Any]
Answering: TypeAlias = Callable[[Question, Input], Answer]

_CHARACTERS_PER_TOKEN = 4
_SEED = b"0"


class DecisionsServer:
    """Answers every question with `answer`, less what the attributes leave out."""

    answer: Answering
    refused: set[int]  # positions of questions, from 0
    answers_at_most: int | None  # of one request: the rest is missing
    options_at_most: int | None  # of one choice: the probabilities of the rest are missing
    requests: list[dict[str, Any]]

    def __init__(self) -> None:
        app = Starlette(routes=[Route("/v1/decisions", self._decide, methods=["POST"])])
        self._loopback = Loopback(app)
        self.base_url = self._loopback.base_url
        self.reset()

    def reset(self) -> None:
        """Forget what a test has set and sent."""
        self._loopback.drop_connections()
        self.answer = random_answer
        self.refused = set()
        self.answers_at_most = self.options_at_most = None
        self.requests = []

    def stop(self) -> None:
        """Stop at once."""
        self._loopback.stop()

    async def _decide(self, request: Request) -> JSONResponse:
        body = json.loads(await request.body())
        self.requests.append(body)
        if objection := _objection(body):
            error = {"message": objection, "type": "invalid_request_error", "param": None}
            return JSONResponse({"error": {**error, "code": None}}, status_code=400)
        questions = body["questions"]
        answers = [self._answered(at, body["input"], ask) for at, ask in enumerate(questions)]
        decision = Decision(
            answers=answers[: self.answers_at_most], model=body["model"], usage=_usage(body)
        )
        return JSONResponse(decision.to_dict(mode="json", exclude_unset=False))

    def _answered(self, position: int, shown: Input, question: Question) -> Answer:
        if position in self.refused:
            return refusal(question)
        answer = self.answer(question, shown)
        if isinstance(answer, AnswerAnswerResourceChoice):
            answer.probabilities = answer.probabilities[: self.options_at_most]
        return answer


def random_answer(question: Question, shown: Input) -> Answer:
    """Probabilities that depend on the question alone."""
    digest = sha256(_SEED + json.dumps(question, sort_keys=True).encode()).digest()
    draw = random.Random(digest)
    match question["type"]:
        case "predicate":
            return predicate(question, draw.random())
        case "choice":
            return choice(question, [draw.expovariate(1) for _ in question["choices"]])
        case _:
            return score(question, [draw.expovariate(1) for _ in question["levels"]])


def predicate(question: Question, probability: float) -> AnswerAnswerResourcePredicate:
    """How likely the statement is to be true."""
    return AnswerAnswerResourcePredicate(
        type="predicate", name=question.get("name"), probability=probability
    )


def choice(question: Question, weights: Iterable[float]) -> AnswerAnswerResourceChoice:
    """Probabilities in proportion to one weight per option; the heaviest option is chosen."""
    values = [option["value"] for option in question["choices"]]
    shares = _shares(weights)
    confidence = max(shares)
    return AnswerAnswerResourceChoice(
        type="choice",
        name=question.get("name"),
        choice=values[shares.index(confidence)],
        confidence=confidence,
        probabilities=[
            AnswerAnswerResourceChoiceProbability(value=value, probability=share)
            for value, share in zip(values, shares, strict=True)
        ],
    )


def score(question: Question, weights: Iterable[float]) -> AnswerAnswerResourceScore:
    """The expected level, counted from 0, of probabilities in proportion to the weights."""
    shares = _shares(weights)
    return AnswerAnswerResourceScore(
        type="score",
        name=question.get("name"),
        confidence=max(shares),
        score=sum(value * share for value, share in enumerate(shares)),
        probabilities=[
            AnswerAnswerResourceScoreProbability(
                label=level["label"], value=value, probability=share
            )
            for value, (level, share) in enumerate(zip(question["levels"], shares, strict=True))
        ],
    )


def refusal(question: Question) -> AnswerAnswerResourceRefusal:
    """The model declines this question."""
    return AnswerAnswerResourceRefusal(type="refusal", name=question.get("name"))


def _objection(body: dict[str, Any]) -> str | None:
    unknown = body.keys() - DecisionCreateParams.__annotations__.keys()
    if unknown:
        return f"Unknown parameter: '{min(unknown)}'."
    try:
        _exhaust(TypeAdapter(DecisionCreateParams).validate_python(body))
    except ValidationError as error:
        return str(error)
    if not 1 <= len(body["questions"]) <= 400:
        return "Ask 1 to 400 questions."
    for question in body["questions"]:
        if question["type"] == "choice":
            values = [(type(each["value"]), each["value"]) for each in question["choices"]]
            if not 2 <= len(values) <= 255:
                return "A choice has 2 to 255 options."
            if len(set(values)) < len(values):
                return "Each choice must be unique."
        if question["type"] == "score" and not 2 <= len(question["levels"]) <= 10:
            return "A score has 2 to 10 levels."
    return None


def _exhaust(value: object) -> None:
    """Walk to the end: pydantic checks what is typed as Iterable while it is read."""
    match value:
        case dict():
            _exhaust(iter(value.values()))
        case Iterator():
            for part in value:
                _exhaust(part)


def _usage(body: dict[str, Any]) -> Usage:
    shown = json.dumps([body["input"], body["questions"]], ensure_ascii=False)
    tokens = -(-len(shown) // _CHARACTERS_PER_TOKEN)
    return Usage(
        input_tokens=tokens,
        input_tokens_details=UsageInputTokensDetails(cache_write_tokens=0, cached_tokens=0),
        output_tokens=0,
        output_tokens_details=UsageOutputTokensDetails(reasoning_tokens=0),
        total_tokens=tokens,
    )


def _shares(weights: Iterable[float]) -> list[float]:
    weights = list(weights)
    return [weight / sum(weights) for weight in weights]

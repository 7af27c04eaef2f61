"""`Account`: what one request asks of models, stage by stage, and what went wrong."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from app.budget import Budget, BudgetExceeded
from app.llm.ask import FREE, Line, Price, Spent
from app.llm.chat import ChatModel, Reply, Turn
from app.llm.errors import InvalidReply, ModelError, ModelUnavailable
from app.llm.wrappers import Traced

Stage = Literal["profile", "search", "recall", "rerank"]
STAGES: tuple[Stage, ...] = ("profile", "search", "recall", "rerank")
Degraded: TypeAlias = Literal[
    "llm_unavailable", "llm_timeout", "llm_invalid", "budget", "store", "embedder_unavailable"
]


class AnswerDegraded(Exception):
    """A model failed, and the request said that it wants no answer without one."""

    def __init__(self, reason: Degraded) -> None:
        super().__init__(f"a model could not be used ({reason}), and on_degraded is error")
        self.reason = reason


@dataclass(frozen=True, slots=True)
class StageModel:
    """Which model a stage asks, and what that costs."""

    model: ChatModel
    price: Price = FREE


@dataclass(slots=True)
class Account:
    """Opened for a request, kept in its trace."""

    models: Mapping[Stage, StageModel]
    timeout_s: float  # of one call
    budget: Budget
    endpoint: str = ""  # part of what a profile depends on
    spent: dict[Stage, Spent] = field(default_factory=lambda: {stage: Spent() for stage in STAGES})
    strict: bool = False  # no answer rather than one without the model
    degraded: Degraded | None = None
    calls: list[dict[str, object]] = field(default_factory=list)

    def line(self, stage: Stage) -> Line:
        """For the calls of one stage."""
        found = self.models[stage]

        def record(turn: Turn, duration_ms: float, outcome: str, reply: Reply | None) -> None:
            usage = reply.usage if reply is not None else None
            self.calls.append(
                {
                    "stage": stage,
                    "model": found.model.name,
                    "form": type(turn.form).__name__,
                    "duration_ms": round(duration_ms, 1),
                    "outcome": outcome,
                    "input_tokens": usage.input_tokens if usage else None,
                    "output_tokens": usage.output_tokens if usage else None,
                }
            )

        model = Traced(found.model, record)
        return Line(model, found.price, self.budget, self.spent[stage])

    def begin_round(self, stage: Stage) -> None:
        """The next calls of this stage wait for what came before them."""
        self.spent[stage].between_rounds = True

    def fall_back(self, stage: Stage, error: ModelError | BudgetExceeded) -> None:
        """The embedded ranker stands in for a model; the first reason is the answer's.

        Raises AnswerDegraded when that is not wanted.
        """
        self.spent[stage].fallbacks += 1
        self.degrade(_reason(error))

    def degrade(self, reason: Degraded) -> None:
        """The answer lacks something; the first reason is the answer's. Raises AnswerDegraded."""
        self.degraded = self.degraded or reason
        if self.strict:
            raise AnswerDegraded(self.degraded)


def _reason(error: ModelError | BudgetExceeded) -> Degraded:
    match error:
        case BudgetExceeded(resource="time"):
            return "llm_timeout"
        case BudgetExceeded():
            return "budget"
        case ModelUnavailable(timed_out=True):
            return "llm_timeout"
        case InvalidReply():
            return "llm_invalid"
        case _:
            return "llm_unavailable"

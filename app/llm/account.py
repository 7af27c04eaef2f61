"""`Account`: what one request asks of models, stage by stage, and what went wrong."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from app.budget import Budget, BudgetExceeded
from app.llm.ask import FREE, Line, Price, Spent
from app.llm.chat import ChatModel, Turn
from app.llm.errors import InvalidReply, ModelError, ModelUnavailable
from app.llm.wrappers import Traced

Stage = Literal["profile", "search", "recall", "rerank"]
STAGES: tuple[Stage, ...] = ("profile", "search", "recall", "rerank")
Degraded: TypeAlias = Literal["llm_unavailable", "llm_timeout", "llm_invalid", "budget", "store"]


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
    spent: dict[Stage, Spent] = field(default_factory=lambda: {stage: Spent() for stage in STAGES})
    degraded: Degraded | None = None
    calls: list[dict[str, object]] = field(default_factory=list)

    def line(self, stage: Stage) -> Line:
        """For the calls of one stage."""
        found = self.models[stage]

        def record(turn: Turn, duration_ms: float, outcome: str) -> None:
            self.calls.append(
                {
                    "stage": stage,
                    "model": found.model.name,
                    "form": type(turn.form).__name__,
                    "duration_ms": round(duration_ms, 1),
                    "outcome": outcome,
                }
            )

        model = Traced(found.model, record)
        return Line(model, found.price, self.budget, self.spent[stage])

    def begin_round(self, stage: Stage) -> None:
        """The next calls of this stage wait for what came before them."""
        self.spent[stage].rounds += 1

    def fall_back(self, stage: Stage, error: ModelError | BudgetExceeded) -> None:
        """The embedded ranker stands in for a model; the first reason is the answer's."""
        self.spent[stage].fallbacks += 1
        self.degraded = self.degraded or _reason(error)


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

"""`RequestLedger`: the calls of one request to models, by stage, and what went wrong."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from app.budget import Budget, BudgetExceeded, SharedBudget
from app.llm.ask import FREE, CallContext, Price, UsageTotals
from app.llm.chat import ChatModel, Reply, Turn
from app.llm.errors import InvalidReply, ModelError, ModelUnavailable
from app.llm.wrappers import Traced

Stage = Literal["profile", "search", "recall", "rerank"]
STAGES: tuple[Stage, ...] = ("profile", "search", "recall", "rerank")
Degraded: TypeAlias = Literal[
    "llm_unavailable", "llm_timeout", "llm_invalid", "budget", "store", "embedder_unavailable"
]


class AnswerDegraded(Exception):
    """A model failed, and the request asks for an error in that case."""

    def __init__(self, reason: Degraded) -> None:
        super().__init__(f"a model could not be used ({reason}), and on_degraded is error")
        self.reason = reason


@dataclass(frozen=True, slots=True)
class StageModel:
    """The model that a stage asks, and its price."""

    model: ChatModel
    price: Price = FREE


@dataclass(slots=True)
class RequestLedger:
    """The calls of one request to models; they become part of its trace."""

    models: Mapping[Stage, StageModel]
    timeout_s: float  # of one call
    budget: Budget
    endpoint: str = ""  # part of what a profile depends on
    totals: dict[Stage, UsageTotals] = field(
        default_factory=lambda: {stage: UsageTotals() for stage in STAGES}
    )
    strict: bool = False  # an error instead of an answer without the model
    degraded: Degraded | None = None
    calls: list[dict[str, object]] = field(default_factory=list)
    shared_budget: SharedBudget | None = None  # several requests share it

    def call_context(self, stage: Stage) -> CallContext:
        """What the calls of one stage need."""
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
        return CallContext(model, found.price, self.budget, self.totals[stage], self.shared_budget)

    def begin_round(self, stage: Stage) -> None:
        """The next calls of this stage are a new round: they wait for the calls before them."""
        self.totals[stage].between_rounds = True

    def fall_back(self, stage: Stage, error: ModelError | BudgetExceeded) -> None:
        """Note that vectors replace a model; the answer shows the first reason.

        Raises AnswerDegraded when the ledger is strict.
        """
        self.totals[stage].fallbacks += 1
        self.degrade(_reason(error))

    def degrade(self, reason: Degraded) -> None:
        """Note that the answer is degraded; it shows the first reason. Raises AnswerDegraded."""
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

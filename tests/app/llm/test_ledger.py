"""The account of a request: its lines, its rounds, and why it is degraded."""

import pytest

from app.budget import Budget, BudgetExceeded
from app.llm.ask import Price, ask
from app.llm.chat import JsonObject, Message, Reply, ScriptedChat, TokenUsage, Turn
from app.llm.errors import InvalidReply, ModelError, ModelUnavailable
from app.llm.ledger import STAGES, AnswerDegraded, RequestLedger, StageModel

TURN = Turn((Message("user", "Yes?"),), JsonObject(), 5, 1.0)


@pytest.fixture
def ledger() -> RequestLedger:
    cheap = StageModel(ScriptedChat(lambda _: Reply("a", usage=TokenUsage(10, 1)), "cheap"))
    dear = StageModel(ScriptedChat(lambda _: Reply("b"), "dear"), Price(1.0, 1.0))
    models = dict.fromkeys(STAGES, cheap) | {"rerank": dear}
    return RequestLedger(models, 1.0, Budget(10, 1_000))


async def test_each_stage_asks_its_own_model_and_has_its_own_count(ledger: RequestLedger) -> None:
    assert await ask(ledger.call_context("search"), TURN, lambda reply: reply.text) == "a"
    assert await ask(ledger.call_context("rerank"), TURN, lambda reply: reply.text) == "b"
    assert [ledger.totals[stage].calls for stage in STAGES] == [0, 1, 0, 1]
    assert ledger.totals["search"].input_tokens == 10
    assert ledger.totals["rerank"].cost_usd > 0 == ledger.totals["search"].cost_usd
    assert ledger.budget.calls_left == 8
    assert ledger.call_context("rerank").price == Price(1.0, 1.0)


async def test_every_call_is_told(ledger: RequestLedger) -> None:
    await ask(ledger.call_context("search"), TURN, lambda reply: reply.text)
    (told,) = ledger.calls
    assert told.pop("duration_ms") >= 0  # type: ignore[operator]
    assert told == {
        "stage": "search", "model": "cheap", "form": "JsonObject", "outcome": "answered",
        "input_tokens": 10, "output_tokens": 1,
    }  # fmt: skip


async def test_rounds_are_counted_by_stage_and_only_where_something_was_asked(
    ledger: RequestLedger,
) -> None:
    for _ in range(2):
        ledger.begin_round("search")
        for _ in range(3):
            await ask(ledger.call_context("search"), TURN, lambda reply: reply.text)
    ledger.begin_round("recall")
    assert [ledger.totals[stage].rounds for stage in STAGES] == [0, 2, 0, 0]


async def test_a_strict_account_wants_no_answer_without_the_model() -> None:
    ledger = RequestLedger({}, 1.0, Budget(10, 1_000), strict=True)
    with pytest.raises(AnswerDegraded) as raised:
        ledger.fall_back("search", InvalidReply("what?"))
    assert raised.value.reason == "llm_invalid"


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (ModelUnavailable("down"), "llm_unavailable"),
        (ModelUnavailable("slow", timed_out=True), "llm_timeout"),
        (InvalidReply("what?"), "llm_invalid"),
        (BudgetExceeded("time"), "llm_timeout"),
        (BudgetExceeded("calls"), "budget"),
        (BudgetExceeded("tokens"), "budget"),
        (BudgetExceeded("cost"), "budget"),
    ],
)
def test_why_an_answer_is_degraded(
    ledger: RequestLedger, error: ModelError | BudgetExceeded, reason: str
) -> None:
    ledger.fall_back("recall", error)
    assert ledger.degraded == reason
    assert ledger.totals["recall"].fallbacks == 1


def test_the_first_reason_is_the_answers(ledger: RequestLedger) -> None:
    ledger.fall_back("search", InvalidReply("what?"))
    ledger.fall_back("recall", ModelUnavailable("down"))
    assert ledger.degraded == "llm_invalid"
    assert [ledger.totals[stage].fallbacks for stage in STAGES] == [0, 1, 1, 0]

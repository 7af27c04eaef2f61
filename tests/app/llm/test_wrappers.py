"""Models around models: a limit, a pause, a cache and a record."""

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from app.llm.chat import (
    ChatModel,
    Form,
    JsonObject,
    JsonSchema,
    Letters,
    Message,
    Reply,
    ScriptedChat,
    Text,
    TokenUsage,
    Turn,
)
from app.llm.errors import InvalidReply, ModelUnavailable
from app.llm.wrappers import Breaker, Cached, Limited, Traced
from app.storage.documents import MemoryDocuments

TURN = Turn((Message("system", "Be brief."), Message("user", "One?")), Text(), 40, 5.0, seed=1)


def counting(name: str = "scripted", **changes: Any) -> tuple[ScriptedChat, list[Turn]]:
    """A model that numbers its replies, and the turns it has seen."""
    seen: list[Turn] = []

    def answer(turn: Turn) -> Reply:
        seen.append(turn)
        reply = Reply(str(len(seen)), usage=TokenUsage(10, 2, 5))
        return replace(reply, **changes)

    return ScriptedChat(answer, name), seen


# -- Limited


@pytest.mark.parametrize("limit", [1, 3])
async def test_no_more_calls_at_once_than_allowed(limit: int) -> None:
    running = most = 0

    async def answer(_: Turn) -> Reply:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.001)
        running -= 1
        return Reply("yes")

    model = Limited(ScriptedChat(answer), asyncio.Semaphore(limit))
    replies = await asyncio.gather(*(model.complete(TURN) for _ in range(10)))
    assert most == limit
    assert [reply.text for reply in replies] == ["yes"] * 10


async def test_models_can_share_a_limit() -> None:
    free = asyncio.Semaphore(1)
    first, second = (Limited(counting(name)[0], free) for name in ("a", "b"))
    await free.acquire()
    calls = [asyncio.create_task(model.complete(TURN)) for model in (first, second)]
    await asyncio.sleep(0.002)
    assert not any(call.done() for call in calls)
    free.release()
    assert [reply.text for reply in await asyncio.gather(*calls)] == ["1", "1"]


async def test_waiting_too_long_is_a_timeout() -> None:
    model, seen = counting()
    free = asyncio.Semaphore(1)
    await free.acquire()
    with pytest.raises(ModelUnavailable) as caught:
        await Limited(model, free).complete(replace(TURN, timeout_s=0.003))
    assert caught.value.timed_out
    assert caught.value.retry_after_s is None
    assert seen == []
    free.release()
    assert (await Limited(model, free).complete(TURN)).text == "1", "nobody holds the place"


@pytest.mark.parametrize("error", [InvalidReply("what?"), ModelUnavailable("down")])
async def test_a_call_that_fails_gives_its_place_back(error: Exception) -> None:
    def fail(_: Turn) -> Reply:
        raise error

    free = asyncio.Semaphore(1)
    for _ in range(3):
        with pytest.raises(type(error)):
            await Limited(ScriptedChat(fail), free).complete(TURN)
    assert not free.locked()


# -- Cached


async def usable(cached: Cached, turn: Turn) -> Reply:
    """A reply that has proved usable, as `ask` keeps it."""
    reply = await cached.complete(turn)
    if reply.keep is not None:
        await reply.keep()
    return replace(reply, keep=None)


async def test_a_reply_that_proved_useless_is_not_kept() -> None:
    model, seen = counting()
    cached = Cached(model, MemoryDocuments(), 60)
    await cached.complete(TURN)  # nobody calls `keep`
    assert not (await cached.complete(TURN)).cached
    assert len(seen) == 2


async def test_endpoints_do_not_share_replies() -> None:
    documents = MemoryDocuments()
    (first, _), (second, seen) = counting(), counting()
    await usable(Cached(first, documents, 60, "one"), TURN)
    await usable(Cached(second, documents, 60, "other"), TURN)
    assert len(seen) == 1


async def test_the_same_turn_is_asked_once() -> None:
    model, seen = counting()
    cached = Cached(model, MemoryDocuments(), 60)
    first = await usable(cached, TURN)
    second = await usable(cached, replace(TURN, timeout_s=0.5))
    assert len(seen) == 1
    assert first == Reply("1", usage=TokenUsage(10, 2, 5))
    assert second == Reply("1", usage=TokenUsage(), cached=True)


@pytest.mark.parametrize(
    "other",
    [
        replace(TURN, seed=2),
        replace(TURN, max_output_tokens=41),
        replace(TURN, form=JsonObject()),
        replace(TURN, messages=(Message("system", "Be brief."), Message("user", "Two?"))),
        replace(TURN, messages=(Message("user", "Be brief."), Message("user", "One?"))),
        replace(TURN, messages=(Message("system", "Be brief.One?"),)),
    ],
)
async def test_what_changes_the_answer_is_asked_for_itself(other: Turn) -> None:
    model, seen = counting()
    cached = Cached(model, MemoryDocuments(), 60)
    replies = [(await usable(cached, turn)).text for turn in (TURN, other, TURN, other)]
    assert replies == ["1", "2", "1", "2"]
    assert seen == [TURN, other]


async def test_forms_of_one_shape_are_told_apart() -> None:
    model, seen = counting()
    cached = Cached(model, MemoryDocuments(), 60)
    forms: list[Form] = [
        Text(), JsonObject(), Letters(3), Letters(4), JsonSchema("a", {"type": "object"}),
        JsonSchema("a", {"type": "array"}), JsonSchema("b", {"type": "array"}),
    ]  # fmt: skip
    for form in forms:
        await usable(cached, replace(TURN, form=form))
    assert len(seen) == len(forms)


async def test_models_do_not_share_replies() -> None:
    documents = MemoryDocuments()
    (first, _), (second, seen) = counting("a"), counting("b")
    await usable(Cached(first, documents, 60), TURN)
    await usable(Cached(second, documents, 60), TURN)
    assert len(seen) == 1


async def test_wrappers_on_one_store_share_replies() -> None:
    documents = MemoryDocuments()
    (first, _), (second, seen) = counting(), counting()
    await usable(Cached(first, documents, 60), TURN)
    assert (await usable(Cached(second, documents, 60), TURN)).cached
    assert seen == []


async def test_a_reply_of_any_kind_comes_back_whole() -> None:
    model, _ = counting(letters={"A": -0.5, " B": -2.0}, decisions=({1: 0.25, 2: 0.75}, None))
    cached = Cached(model, MemoryDocuments(), 60)
    first, second = await usable(cached, TURN), await usable(cached, TURN)
    assert second == replace(first, usage=TokenUsage(), cached=True)


async def test_a_reply_that_was_cut_off_is_not_kept() -> None:
    model, seen = counting(complete=False)
    cached = Cached(model, MemoryDocuments(), 60)
    await usable(cached, TURN)
    assert not (await usable(cached, TURN)).cached
    assert len(seen) == 2


async def test_a_failure_is_not_kept() -> None:
    outcomes = iter((ModelUnavailable("down"), Reply("yes")))

    def answer(_: Turn) -> Reply:
        outcome = next(outcomes)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    cached = Cached(ScriptedChat(answer), MemoryDocuments(), 60)
    with pytest.raises(ModelUnavailable):
        await usable(cached, TURN)
    assert await usable(cached, TURN) == Reply("yes")


# -- Traced


async def test_every_call_is_told_with_its_outcome() -> None:
    told: list[tuple[Turn, float, str, Reply | None]] = []
    outcomes = iter((Reply("yes"), InvalidReply("what?"), ModelUnavailable("down")))

    def answer(_: Turn) -> Reply:
        outcome = next(outcomes)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    model = Traced(ScriptedChat(answer), lambda *call: told.append(call))
    assert await model.complete(TURN) == Reply("yes")
    with pytest.raises(InvalidReply):
        await model.complete(TURN)
    with pytest.raises(ModelUnavailable):
        await model.complete(TURN)
    assert [outcome for _, _, outcome, _ in told] == [
        "answered", "InvalidReply: what?", "ModelUnavailable: down",
    ]  # fmt: skip
    assert all(turn is TURN and duration_ms >= 0 for turn, duration_ms, _, _ in told)
    assert [reply and reply.text for *_, reply in told] == ["yes", None, None]


async def test_a_cancelled_call_is_told_too() -> None:
    told: list[str] = []
    begun = asyncio.Event()

    async def hang(_: Turn) -> Reply:
        begun.set()
        await asyncio.Event().wait()
        raise AssertionError

    model = Traced(ScriptedChat(hang), lambda _turn, _ms, outcome, _reply: told.append(outcome))
    call = asyncio.create_task(model.complete(TURN))
    await begun.wait()
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert told == ["cancelled"]


def test_a_wrapper_has_the_name_of_its_model() -> None:
    model, _ = counting("gpt")
    wrapped: list[ChatModel] = [
        Limited(model, asyncio.Semaphore(1)),
        Cached(model, MemoryDocuments(), 60),
        Traced(model, lambda *_: None),
    ]
    assert [one.name for one in wrapped] == ["gpt"] * 3


# -- Breaker


async def test_after_failures_in_a_row_no_call_is_tried_for_a_while() -> None:
    asked: list[Turn] = []

    def fail(asking: Turn) -> Reply:
        asked.append(asking)
        raise ModelUnavailable("down")

    model = Breaker(ScriptedChat(fail), failures=3, pause_s=60)
    for _ in range(5):
        with pytest.raises(ModelUnavailable):
            await model.complete(TURN)
    assert len(asked) == 3


async def test_a_hurried_timeout_and_a_success_between_failures_do_not_pause() -> None:
    outcomes = iter(["late", "late", "down", "fine", "down", "fine"])

    def script(_: Turn) -> Reply:
        match next(outcomes):
            case "late":
                raise ModelUnavailable("late", timed_out=True)
            case "down":
                raise ModelUnavailable("down")
            case _:
                return Reply("yes")

    model = Breaker(ScriptedChat(script), failures=2, pause_s=60)
    hurried = replace(TURN, timeout_s=0.1)
    answers = []
    for asking in (hurried, hurried, TURN, TURN, TURN, TURN):
        try:
            answers.append((await model.complete(asking)).text)
        except ModelUnavailable as error:
            answers.append(str(error))
    assert answers == ["late", "late", "down", "yes", "down", "yes"]

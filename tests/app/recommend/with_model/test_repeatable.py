"""The same version, reader and request: the same prompts, to the last bit."""

from collections.abc import Sequence
from dataclasses import replace

from app.llm import Reply, ReplyMode, ScriptedChat, TokenUsage, Turn
from app.recommend import RecommendRequest
from tests.app.recommend.with_model.support import HISTORY, Shelf, ask, ids, over, sensible

BRANCHES, ITEMS = "Branches:", "Items:"


class Recorder:
    """A sensible model that keeps what it was asked."""

    def __init__(self) -> None:
        self.turns: list[Turn] = []
        self.chat = ScriptedChat(self._said)

    def _said(self, turn: Turn) -> Reply:
        self.turns.append(replace(turn, timeout_s=0))  # what is left of the time
        return Reply(sensible(turn.messages[-1].content), usage=TokenUsage(100, 10))

    def slates(self, heading: str) -> list[list[str]]:
        """The options of every slate under this heading, in their order, without numbers."""
        parts = [turn.messages[1].content.split("\n\n")[0].split("\n") for turn in self.turns]
        return [
            [line.split(". ", 1)[1] for line in lines] for first, *lines in parts
            if first == heading
        ]  # fmt: skip


async def asked(shelf: Shelf, *requests: RecommendRequest) -> tuple[Recorder, Sequence[list[str]]]:
    """What a model hears of requests of a reader who is new each time."""
    recorder = Recorder()
    answers = []
    for request in requests:
        recommender = over(shelf, recorder.chat, ReplyMode.JSON_SCHEMA)
        answers.append(ids(await recommender.recommend(request)))
        async for name, _ in shelf.documents.list("profile"):
            await shelf.documents.delete("profile", name)
    return recorder, answers


async def test_prompts_are_the_same_to_the_last_bit(demo: Shelf) -> None:
    for effort, strategy in (("economy", "beam"), ("balanced", "beam"), ("auto", "walk")):
        request = ask(
            history=HISTORY,
            user_id="u1",
            effort=effort,
            strategy=strategy,
            instruction="no musicals",
        )
        once, first = await asked(demo, request)
        again, second = await asked(demo, request)
        assert once.turns == again.turns
        assert len(once.turns) > (effort != "economy")
        assert first == second


async def test_another_reader_sees_items_in_another_order_and_the_same_branches(
    demo: Shelf,
) -> None:
    requests = [ask(history=HISTORY, user_id=user, strategy="walk") for user in ("u1", "u2")]
    one, _ = await asked(demo, requests[0])
    other, _ = await asked(demo, requests[1])
    assert one.slates(BRANCHES)[0] == other.slates(BRANCHES)[0]
    mine, yours = one.slates(ITEMS), other.slates(ITEMS)
    assert {line for slate in mine for line in slate} == {line for slate in yours for line in slate}
    assert mine != yours


async def test_the_first_slate_is_a_prefix_that_all_readers_share(demo: Shelf) -> None:
    recorder, _ = await asked(
        demo,
        ask(history=HISTORY, user_id="u1", strategy="walk"),
        ask(history=HISTORY[:3], user_id="u2", strategy="walk"),
        ask(history=HISTORY[2:5], profile="likes nature writing", strategy="walk"),
    )
    first = [turn for turn in recorder.turns if turn.messages[1].content.startswith(BRANCHES)]
    assert len(first) == 3
    prefixes = {
        (turn.messages[0].content, turn.messages[1].content.split("\n\n")[0]) for turn in first
    }
    assert len(prefixes) == 1


async def test_warm_readers_share_the_prefix_of_the_first_slate_too(demo: Shelf) -> None:
    recorder = Recorder()
    recommender = over(demo, recorder.chat, ReplyMode.JSON_SCHEMA)
    requests = [
        ask(history=history, user_id=user, strategy="walk")
        for user, history in (("u1", HISTORY), ("u2", HISTORY[1:4]))
    ]
    for request in (*requests, *requests):
        await recommender.recommend(request)
    *_, one, other = [turn for turn in recorder.turns if "Branches:\n" in turn.messages[1].content]
    assert one.messages[0] == other.messages[0]
    assert one.messages[1] != other.messages[1]
    assert len(set(map(tuple, recorder.slates(BRANCHES)[2:]))) == 1

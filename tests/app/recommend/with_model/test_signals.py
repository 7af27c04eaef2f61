"""What users did reaches a model's slates, and what a model said of a user goes with the user."""

import pytest

from app.embedders import EmbedderCache
from app.llm import STAGES, Models, Reply, ReplyMode, ScriptedChat, StageModel, TokenUsage, Turn
from app.llm.ask import FREE
from app.recommend import RecommendConfig, Recommender
from app.settings import Settings
from app.signals import erase
from app.storage.feedback import Event, Feedback
from app.storage.memory_feedback import MemoryFeedback
from tests.app.recommend.with_model.support import Shelf, ask, ids, sensible

PROFILE = "Chosen, latest first:"


class Clerk:
    """A model that does as it is told and remembers what it was shown."""

    def __init__(self) -> None:
        self.prompts: list[str] = []

    def __call__(self, turn: Turn) -> Reply:
        prompt = turn.messages[-1].content
        self.prompts.append(turn.messages[0].content + prompt)
        return Reply(sensible(prompt), usage=TokenUsage(100, 10))


def over(shelf: Shelf, clerk: Clerk, feedback: Feedback) -> Recommender:
    stages = dict.fromkeys(STAGES, StageModel(ScriptedChat(clerk), FREE))
    models = Models(stages, shelf.documents, ReplyMode.JSON_SCHEMA, 20, "here")
    return Recommender(
        "shop", shelf.store, shelf.documents, EmbedderCache(), RecommendConfig.of(Settings()),
        models, feedback=feedback,
    )  # fmt: skip


@pytest.mark.parametrize("effort", ["economy", "balanced"])
async def test_what_goes_together_is_shown_to_the_model(demo, demo_items, effort):
    first = demo_items[0]
    request = ask(history=[{"item_id": first.id}], effort=effort, limit=5)
    clerk = Clerk()
    await over(demo, clerk, MemoryFeedback()).recommend(request)
    far = next(
        item
        for item in reversed(demo_items)
        if not any(item.title in prompt for prompt in clerk.prompts)
    )
    feedback = MemoryFeedback()
    for user in range(30):
        visits = [(f"{user} a", first.id), (f"{user} b", far.id)]
        await feedback.record([Event(one, str(user), item, at)
                               for at, (one, item) in enumerate(visits)])  # fmt: skip
    clerk = Clerk()
    answer = await over(demo, clerk, feedback).recommend(request)
    assert any(far.title in prompt for prompt in clerk.prompts)
    assert len(ids(answer)) == 5


async def test_a_cached_profile_goes_with_the_user(demo, demo_items):
    feedback = MemoryFeedback()
    history = [{"item_id": item.id} for item in demo_items[:4]]

    async def asked(user: str | None) -> int:
        """How many questions for a profile it took."""
        clerk = Clerk()
        request = ask(user_id=user, history=history, effort="balanced")
        await over(demo, clerk, feedback).recommend(request)
        return sum(PROFILE in prompt for prompt in clerk.prompts)

    assert [await asked("u"), await asked("u"), await asked("v")] == [1, 0, 0]
    await erase(feedback, demo.documents, "v")
    assert [await asked("u"), await asked("u")] == [1, 0], "it was of v's history as well"
    await erase(feedback, demo.documents, "u")
    assert [name async for name in demo.documents.list("profile")] == []

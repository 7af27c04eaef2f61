"""The words of a catalogue's owner stand in every prompt of the chain, and nowhere without them."""

from collections.abc import Sequence

import pytest

from app.llm import Reply, ReplyMode, ScriptedChat, Turn
from app.llm.chat import Text
from app.recommend import PromptConfig
from prompts import owner_note
from tests.app.recommend.with_model.support import HISTORY, Shelf, ask, over, sensible

OWNER = PromptConfig("shop", guidance="Films of one small shop.", objective="Prefer old ones.")


class _Model:
    """Answers as it is told, and keeps the prompts."""

    def __init__(self) -> None:
        self.turns: list[Turn] = []

    def __call__(self, turn: Turn) -> Reply:
        self.turns.append(turn)
        user = turn.messages[-1].content
        if isinstance(turn.form, Text):
            return Reply("1: 90\n2: 80" if "\nItems:\n" in f"\n{user}" else "Stalker\nSolaris")
        first, _, rest = user.partition("\n\n")
        return Reply(sensible(rest if first.startswith("The owner ") else user))

    def prompts(self) -> list[tuple[str, str]]:
        return [(turn.messages[0].content, turn.messages[-1].content) for turn in self.turns]


async def _asked(
    shelf: Shelf, config: PromptConfig | None, mode: ReplyMode, **request: object
) -> Sequence[tuple[str, str]]:
    model = _Model()
    recommender = over(shelf, ScriptedChat(model), mode)
    if config is not None:
        recommender.reword(config)
    await recommender.recommend(ask(history=HISTORY, **request))
    await recommender.aclose()
    return model.prompts()


@pytest.mark.parametrize("effort", ["economy", "balanced"])
async def test_prompts_differ_by_the_owners_lines_alone(demo: Shelf, effort: str) -> None:
    plain = await _asked(demo, None, ReplyMode.JSON_SCHEMA, effort=effort)
    if effort == "economy":  # the other one has a profile now, and asks less
        silent = PromptConfig("shop", guidance=" ", objective="")
        assert await _asked(demo, silent, ReplyMode.JSON_SCHEMA, effort=effort) == plain
    noted = await _asked(demo, OWNER, ReplyMode.JSON_SCHEMA, effort=effort)
    both, guidance = owner_note(OWNER.guidance, OWNER.objective), owner_note(OWNER.guidance)
    notes = {user: both if "Items:" in user else guidance for _, user in plain}
    assert len(noted) == len(plain)
    assert {(system, f"{notes[user]}\n\n{user}") for system, user in plain} == set(noted)


async def test_a_profile_is_about_the_user_and_not_about_what_the_owner_wants(demo: Shelf) -> None:
    noted = await _asked(demo, OWNER, ReplyMode.TEXT, effort="balanced")
    [profile] = [user for _, user in noted if "Chosen, latest first:" in user]
    assert profile.startswith(owner_note(OWNER.guidance) + "\n\nChosen, latest first:")
    assert all("Prefer old ones." in user for _, user in noted if user != profile)
    assert all(user.count(OWNER.guidance) == 1 for _, user in noted)


async def test_other_guidance_is_another_profile(demo: Shelf) -> None:
    model = _Model()
    recommender = over(demo, ScriptedChat(model), ReplyMode.TEXT)
    for guidance, asked in (("A", 1), ("A", 1), ("B", 2), ("", 3), ("B", 3)):
        recommender.reword(PromptConfig("shop", guidance=guidance))
        await recommender.recommend(ask(history=HISTORY, effort="balanced"))
        assert sum("Chosen, latest first:" in user for _, user in model.prompts()) == asked
    await recommender.aclose()


async def test_the_papers_chain_asks_as_published(demo: Shelf) -> None:
    plain = await _asked(demo, None, ReplyMode.JSON_SCHEMA, strategy="paper")
    assert await _asked(demo, OWNER, ReplyMode.JSON_SCHEMA, strategy="paper") == plain

"""When a model is examined, and what its standing does to requests."""

import logging
import time

import msgspec
import pytest

from app.llm import Reply, ScriptedChat, TokenUsage, Turn
from app.recommend import RecommendRequest
from app.recommend.standing.standing import Standing
from app.recommend.standing.standings import DAY_S, Standings
from app.storage.feedback import User, Visit
from app.storage.leases import Leases
from app.storage.memory_feedback import MemoryFeedback
from tests.app.recommend.standing.support import examined, examiner_of, standings_of, teach
from tests.scripted_models import ScriptedModel

HISTORY = [{"item_id": "book-dune"}, {"item_id": "film-solaris"}, {"item_id": "film-alien"}]


def ask(**fields) -> RecommendRequest:
    return RecommendRequest.model_validate(
        {"history": HISTORY, "limit": 10, "timeout_ms": 60_000, **fields}
    )


def of_factor(standings: Standings, factor: float, *, age_s: float = 0.0) -> Standing:
    accuracy = 0.5 + factor / 3
    of = standings.examiner.fingerprint
    return Standing(of, "m", 20, accuracy, 0.04, 0.8, factor, 19_000, 0.0, time.time() - age_s)


async def run(standings: Standings) -> Standing | None:
    standings.keep_examined(is_used=True)
    return await standings.examined()


def ids(answer) -> list[str]:
    return [item.item_id for item in answer.items]


@pytest.mark.parametrize("effort", ["economy", "balanced"])
async def test_a_weak_model_is_not_asked_and_the_answer_says_so(demo, effort):
    model = ScriptedModel("first")
    recommender = examined(demo, model)
    standing = await run(standings_of(recommender))
    assert standing is not None
    assert not standing.is_asked
    calls = model.calls
    answer = await recommender.recommend(ask(effort=effort))
    assert model.calls == calls
    assert ids(answer) == ids(await demo.recommender.recommend(ask()))
    assert (answer.degraded, answer.usage.calls) == (False, 0)
    [warning] = answer.warnings
    assert warning.code == "llm_weak"
    assert "scripted" in warning.message
    trace = await recommender.trace(answer.recommendation_id)
    assert trace is not None
    assert trace["strategy"] == "embedded"
    assert trace["standing"] == msgspec.to_builtins(standing)
    await recommender.aclose()


async def test_on_degraded_error_is_not_about_weak_models(demo):
    recommender = examined(demo, ScriptedModel("same"))
    await run(standings_of(recommender))
    answer = await recommender.recommend(ask(on_degraded="error"))
    assert [warning.code for warning in answer.warnings] == ["llm_weak"]
    await recommender.aclose()


@pytest.mark.parametrize("strategy", ["paper", "flat"])
async def test_strategies_for_comparison_ask_any_model(demo, strategy):
    model = ScriptedModel("same")
    recommender = examined(demo, model)
    await standings_of(recommender).keep(of_factor(standings_of(recommender), 0.0))
    answer = await recommender.recommend(ask(strategy=strategy, timeout_ms=600_000))
    assert answer.usage.calls > 0
    assert answer.warnings == []
    await recommender.aclose()


@pytest.mark.parametrize(("factor", "weight"), [(1.0, 0.85), (0.5, 0.425), (None, 0.85)])
async def test_a_model_weighs_what_it_has_earned(demo, factor, weight):
    recommender = examined(demo, ScriptedModel())
    standings = standings_of(recommender)
    if factor is not None:
        await standings.keep(of_factor(standings, factor))
    answer = await recommender.recommend(ask(effort="economy"))
    trace = await recommender.trace(answer.recommendation_id)
    assert trace is not None
    assert trace["model_weight"] == weight
    assert answer.usage.calls == 1
    await recommender.aclose()


async def test_a_request_makes_the_catalogue_due(demo):
    model = ScriptedModel(knows=1.0)
    recommender = examined(demo, model)
    standings = standings_of(recommender)
    standings.keep_examined()
    assert await standings.examined() is None
    assert model.calls == 0, "nobody asks for this catalogue"
    await teach(demo, recommender, model, int(time.time() // DAY_S))
    await recommender.recommend(ask(effort="economy"))
    standings.keep_examined()
    standing = await standings.examined()
    assert standing is not None
    assert standing.factor == 1
    await recommender.aclose()


async def test_a_standing_is_stored_for_all_processes(demo):
    first = examined(demo, ScriptedModel("first"))
    found = await run(standings_of(first))
    model = ScriptedModel("first")
    other = examined(demo, model)
    assert await standings_of(other).current() == found
    assert await run(standings_of(other)) == found
    assert model.calls == 0
    await first.aclose()
    await other.aclose()


async def test_one_process_examines_at_a_time(demo):
    model = ScriptedModel("first")
    recommender = examined(demo, model)
    leases = Leases(demo.documents)
    assert await leases.take("examination", "another", 60)
    assert await run(standings_of(recommender)) is None
    assert model.calls == 0
    await leases.release("examination", "another", 60)
    assert await leases.holder("examination") is None
    await recommender.aclose()


@pytest.mark.parametrize(("age_s", "again"), [(DAY_S - 600, False), (DAY_S + 600, True)])
async def test_a_model_is_examined_once_a_day(demo, age_s, again):
    model = ScriptedModel("first")
    recommender = examined(demo, model)
    standings = standings_of(recommender)
    await standings.keep(of_factor(standings, 0.5, age_s=age_s))
    await recommender.aclose()
    restarted = standings_of(examined(demo, model))
    old = await restarted.current()
    assert old is not None
    assert old.factor == 0.5, "what is old counts until there is a new one"
    found = await run(restarted)
    assert found is not None
    assert (found.factor == 0) == again
    assert (model.calls > 0) == again
    assert await Leases(demo.documents).holder("examination") is None
    await restarted.aclose()


async def test_other_prompts_and_models_have_a_standing_of_their_own(demo):
    one, other = (
        examined(demo, ScriptedModel(), perspective=perspective)
        for perspective in ("interest", "action")
    )
    assert examiner_of(one).fingerprint != examiner_of(other).fingerprint
    await standings_of(one).keep(of_factor(standings_of(one), 0.0))
    assert await standings_of(other).current() is None
    await one.aclose()
    await other.aclose()


async def test_the_log_says_when_a_model_loses_and_regains_its_place(demo, caplog):
    caplog.set_level(logging.INFO)
    weak = examined(demo, ScriptedModel("same"))
    standings = standings_of(weak)
    await standings.keep(of_factor(standings, 1.0, age_s=2 * DAY_S))
    restarted = standings_of(examined(demo, ScriptedModel("same")))
    await run(restarted)
    [lost] = [one for one in caplog.records if one.levelno == logging.WARNING]
    assert "does not rank items of shop" in lost.message
    caplog.clear()

    await restarted.keep(of_factor(standings, 0.0, age_s=2 * DAY_S))
    model = ScriptedModel(knows=1.0)
    strong = examined(demo, model)
    await teach(demo, strong, model, int(time.time() // DAY_S))
    await run(standings_of(strong))
    assert [one.message for one in caplog.records if "100 % of its weight" in one.message]
    for one in (weak, strong):
        await one.aclose()
    await restarted.aclose()


async def test_histories_of_stored_users_are_asked_about(demo, demo_items):
    feedback = MemoryFeedback()
    films = [item for item in demo_items if item.domain == demo_items[0].domain][:12]
    visits = tuple(Visit(film.id, at) for at, film in enumerate(films))
    await feedback.put_user("u", User(visits))
    prompts: list[str] = []

    def script(turn: Turn) -> Reply:
        prompts.append(turn.messages[-1].content)
        return ScriptedModel()(turn)

    recommender = examined(demo, ScriptedChat(script), feedback)
    await run(standings_of(recommender))
    shown = [film.title for film in films[3:8]]  # the four after them are what may be right
    people = [prompt.partition("The person looks for")[2] for prompt in prompts]
    assert any(all(title[:50] in person for title in shown) for person in people)
    await recommender.aclose()


async def test_an_examination_that_is_too_dear_is_not_tried_again_soon(demo, caplog):
    calls = []

    def thinks(turn: Turn) -> Reply:
        calls.append(turn)
        picks = '{"picks": [{"n": 1, "score": 90, "for": 1}]}'
        return Reply(picks, usage=TokenUsage(600, 4_500))

    recommender = examined(demo, ScriptedChat(thinks))
    standings = standings_of(recommender)
    assert await run(standings) is None
    assert 0 < len(calls) < 8
    asked = len(calls)
    assert "has its configured weight in shop for a day" in caplog.text
    standings.keep_examined(is_used=True)
    await standings.examined()
    assert len(calls) == asked
    await recommender.aclose()

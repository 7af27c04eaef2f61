"""What an examination finds out about models of known worth."""

import time

import numpy as np
import pytest

from app.llm import ModelUnavailable, Reply, ScriptedChat
from app.llm.errors import ModelRejected
from app.recommend.standing.examination import TOKENS, pairs_in_order
from app.recommend.standing.standing import LEAST_SLATES, Standing
from tests.app.conftest import Shop
from tests.app.recommend.standing.support import examined, examiner_of, teach
from tests.scripted_models import HABITS, ScriptedModel

_DAYS = 3


async def standing_of(shop: Shop, model: ScriptedModel, seed: int = 0) -> Standing:
    recommender = examined(shop, model)
    await teach(shop, recommender, model, seed)
    found = await examiner_of(recommender).examine(await shop.store.load(), [], seed)
    await recommender.aclose()
    assert found is not None
    return found


def test_pairs_are_counted():
    scores, right = np.array([0.9, 0.5, 0.5, 0.1], np.float32), np.array([True, False, True, False])
    assert pairs_in_order(scores, right) == pytest.approx((2 + 1.5) / 4)
    assert pairs_in_order(-scores, right) == pytest.approx((0 + 0.5) / 4)
    assert pairs_in_order(np.zeros(4, np.float32), right) == 0.5
    assert pairs_in_order(scores, np.zeros(4, bool)) == 0.5


async def test_a_model_that_knows_has_its_whole_weight_after_few_slates(demo):
    standing = await standing_of(demo, ScriptedModel(knows=1.0))
    assert (standing.accuracy, standing.factor) == (1.0, 1.0)
    assert standing.slates == LEAST_SLATES
    assert 0 < standing.tokens < TOKENS / 2
    assert standing.embedded > 0.5
    assert abs(standing.at - time.time()) < 60


@pytest.mark.parametrize("habit", HABITS)
async def test_a_model_without_knowledge_has_next_to_no_weight(demo, habit):
    """Each day by itself may be wrong, once in thirty."""
    days = [await standing_of(demo, ScriptedModel(habit), seed) for seed in range(_DAYS)]
    assert np.mean([day.factor for day in days]) < 0.1
    assert all(day.slates > LEAST_SLATES for day in days)
    assert all(day.tokens <= TOKENS for day in days)


async def test_the_weight_grows_with_what_a_model_knows(demo):
    factors = [
        np.mean([(await standing_of(demo, ScriptedModel(knows=knows), day)).factor
                 for day in range(_DAYS)])
        for knows in (0.1, 0.5, 0.9)
    ]  # fmt: skip
    assert factors == sorted(factors)
    assert factors[0] < 0.4
    assert factors[2] > 0.9


async def test_nonsense_is_worth_a_guess(demo):
    recommender = examined(demo, ScriptedChat(lambda _: Reply("I cannot help with that.")))
    standing = await examiner_of(recommender).examine(await demo.store.load(), [], 0)
    await recommender.aclose()
    assert standing is not None
    assert (standing.accuracy, standing.factor) == (0.5, 0.0)


async def test_a_part_of_the_slates_is_told_on_the_way(demo):
    model = ScriptedModel("same")
    recommender = examined(demo, model)
    heard: list[Standing] = []

    async def hear(so_far: Standing) -> None:
        heard.append(so_far)

    found = await examiner_of(recommender).examine(await demo.store.load(), [], 0, hear)
    await recommender.aclose()
    assert found == heard[-1]
    assert [one.slates for one in heard][:2] == [4, 8]


@pytest.mark.parametrize("answered", [0, 5])
async def test_an_endpoint_that_fails_decides_nothing(demo, answered):
    model = ScriptedModel(knows=0.0)

    def script(turn):
        if model.calls >= answered:
            raise ModelUnavailable("429: too many requests", asked=True)
        return model(turn)

    recommender = examined(demo, ScriptedChat(script))
    assert await examiner_of(recommender).examine(await demo.store.load(), [], 0) is None
    await recommender.aclose()


async def test_a_wrong_key_is_no_mark(demo):
    def script(_):
        raise ModelRejected("401: wrong key")

    recommender = examined(demo, ScriptedChat(script))
    with pytest.raises(ModelRejected):
        await examiner_of(recommender).examine(await demo.store.load(), [], 0)
    await recommender.aclose()


async def test_a_small_catalogue_costs_nothing(shop, demo_items):
    await shop.curator.apply_batch(demo_items[:60], [])
    model = ScriptedModel()
    recommender = examined(shop, model)
    assert await examiner_of(recommender).examine(await shop.store.load(), [], 0) is None
    assert model.calls == 0
    await recommender.aclose()

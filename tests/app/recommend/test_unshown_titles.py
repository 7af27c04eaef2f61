"""The title of an item that may not be shown stands in no reason and no prompt."""

from datetime import UTC, datetime

import pytest

from app.rank_weights import RankWeights
from app.recommend import RecommendRequest
from app.recommend.context import history_of
from app.recommend.resolve import RequestVectors, resolve_request

REQUEST = RecommendRequest.model_validate(
    {"history": [{"item_id": "book-dune"}], "explain": "full", "limit": 30}
)
PLACE = "Books › Science fiction"
UNSHOWN = [{"hidden": True}, {"expires_at": datetime(2020, 1, 1, tzinfo=UTC)}]


async def told(demo) -> tuple[set[str], tuple[str, ...]]:
    """The reasons of an answer, and the choices that a model is told of."""
    answer = await demo.recommender.recommend(REQUEST)
    tree = await demo.store.load()
    resolved = resolve_request(tree, REQUEST, RequestVectors(), RankWeights(), 10)
    history = await history_of(REQUEST, tree, resolved, demo.store)
    return {item.reason for item in answer.items}, history.choices


@pytest.mark.parametrize("gone", UNSHOWN, ids=str)
async def test_what_may_not_be_shown_is_named_by_its_place(demo, demo_items, gone):
    interest = f"because of your interest in {PLACE}"
    reasons, choices = await told(demo)
    assert reasons == {f"{interest}; closest to “Dune” in your history"}
    assert choices == ("Dune",)
    item = next(item for item in demo_items if item.id == "book-dune")
    await demo.curator.put([item.model_copy(update={"title": "UNRELEASED", **gone})])
    reasons, choices = await told(demo)
    assert reasons == {interest}
    assert choices == (PLACE,)

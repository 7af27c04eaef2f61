"""Answers in which each thing, and each group, appears once."""

import pytest

from app.recommend import RecommendRequest, SimilarRequest
from tests.app.conftest import built
from tree.item import Item

COLOURS = ["red", "blue", "green", "black", "white"]
OTHERS = ["Mug Owl", "Poster Fox", "Lamp Moon", "Rug River", "Clock Tower", "Vase Rose"]


def shirts(count: int) -> list[Item]:
    return [
        Item(
            id=f"shirt-{at:03}",
            title=f"T-Shirt Cat, {COLOURS[at % 5]}, size {at}",
            attributes={"brand": "Paws"},
            popularity=1000 - at,
        )
        for at in range(count)
    ]


def others() -> list[Item]:
    return [
        Item(
            id=f"other-{at}",
            title=title,
            description=f"A {title.lower()} for the living room.",
            attributes={
                "brand": ["Night", "DAY", "day"][at % 3],
                "tags": ("home", f"tag {at % 2}"),
            },
        )
        for at, title in enumerate(OTHERS)
    ]


async def stocked(shop, items: list[Item]) -> None:
    tree = await built(items)
    await shop.store.stage(items)
    await shop.store.replace(tree, base=0)


async def recommended(shop, **fields):
    return await shop.recommender.recommend(RecommendRequest.model_validate(fields))


def ids(answer) -> list[str]:
    return [item.item_id for item in answer.items]


@pytest.mark.parametrize("diversity", [0, 0.3])
async def test_a_shirt_in_300_sizes_appears_once_and_the_answer_is_full(shop, diversity):
    await stocked(shop, shirts(300) + others())
    answer = await recommended(shop, instruction="cat shirt", limit=7, diversity=diversity)
    found = ids(answer)
    assert len(found) == 7
    assert sorted(found[1:]) == [f"other-{at}" for at in range(6)]
    assert found[0].startswith("shirt-")
    assert [item.rank for item in answer.items] == list(range(1, 8))
    scores = [item.score for item in answer.items]
    assert diversity or scores == sorted(scores, reverse=True)


async def test_the_best_one_stays_and_names_the_others(shop):
    await stocked(shop, shirts(5) + others())
    first, *rest = (await recommended(shop, limit=3, diversity=0)).items
    assert first.item_id == "shirt-000"  # the most popular one
    assert first.folded == ["shirt-001", "shirt-002", "shirt-003", "shirt-004"]
    assert all(item.folded == [] for item in rest)


async def test_folding_can_be_switched_off(shop):
    await stocked(shop, shirts(5) + others())
    answer = await recommended(shop, limit=5, fold=False, diversity=0)
    assert ids(answer) == [f"shirt-00{at}" for at in range(5)]
    assert all(item.folded == [] for item in answer.items)


async def test_another_one_comes_where_the_best_one_may_not_be_shown(shop):
    await stocked(shop, shirts(3) + others())
    hide = {"all": [{"field": "id", "ne": "shirt-000"}]}
    answer = await recommended(shop, limit=1, diversity=0, filter=hide, exclude_items=["shirt-001"])
    assert ids(answer) == ["shirt-002"]


async def test_of_a_group_one_item_comes(shop):
    await stocked(shop, shirts(300) + others())
    answer = await recommended(shop, group_by="brand", limit=10, fold=False)
    brands = sorted(str(item.item_id)[:6] for item in answer.items)
    assert brands == ["other-", "other-", "shirt-"]  # Night, Day and Paws
    assert answer.warnings == []


async def test_items_without_the_attribute_are_no_group(shop):
    await stocked(shop, shirts(3) + others())
    answer = await recommended(shop, group_by="tags", limit=10, fold=False)
    tagged = [item for item in ids(answer) if item.startswith("other-")]
    assert len(tagged) == 1  # all have the tag "home" in common
    assert sorted(set(ids(answer)) - set(tagged)) == ["shirt-000", "shirt-001", "shirt-002"]


@pytest.mark.parametrize(
    ("field", "groups"),
    [("domain", 3), ("categories", 5), ("published_at", 6), ("title", 6), ("keywords", 6)],
)
async def test_fields_of_items_make_groups_too(shop, field, groups):
    """An item without the field, or with an empty one, is in no group."""
    items = others()
    for at, domain in [(0, "films"), (1, "Films"), (2, "films"), (3, "books"), (4, "books")]:
        path = ("All", "Few") if at < 2 else (f"Category {at}",)
        items[at] = items[at].model_copy(update={"domain": domain, "categories": path})
    await stocked(shop, items)
    answer = await recommended(shop, group_by=field, limit=100)
    assert len(answer.items) == groups
    assert answer.warnings == []


async def test_a_field_that_no_item_has_is_a_warning(shop):
    await stocked(shop, shirts(3) + others())
    answer = await recommended(shop, group_by="brnad", limit=3)
    [warning] = answer.warnings
    assert warning.code == "unknown_field"
    assert "'brnad'" in warning.message
    assert "'brand'" in warning.message
    assert len(answer.items) == 3


async def test_similar_items_are_other_things(shop):
    await stocked(shop, shirts(40) + others())
    answer = await shop.recommender.similar(SimilarRequest(item_id="shirt-007", limit=5))
    assert sorted(item.item_id[:6] for item in answer.items) == ["other-"] * 5
    assert len(answer.folded) == 39
    assert "shirt-007" not in answer.folded
    every = await shop.recommender.similar(SimilarRequest(item_id="shirt-007", limit=5, fold=False))
    assert all(item.item_id.startswith("shirt-") for item in every.items)
    assert every.folded == []

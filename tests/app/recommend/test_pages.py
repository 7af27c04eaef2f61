"""The pages of a list: nothing is shown twice, whatever happens in between."""

from collections import Counter

import pytest

from app.recommend import RecommendRequest
from app.recommend.pages import CursorExpired, CursorOfAnother
from tests.app.conftest import built
from tree.edits import DropItem
from tree.item import Item

COLOURS = ["red", "blue", "green"]


def things(count: int) -> list[Item]:
    """Every thing in three colours, of brands with four things each."""
    return [
        Item(
            id=f"{thing}-{colour}",
            title=f"Lamp model{thing} of room{thing % 7}, {colour}",
            attributes={"brand": f"Brand {thing // 4}"},
            popularity=1000 - thing,
        )
        for thing in range(count)
        for colour in COLOURS
    ]


async def stocked(shop, items: list[Item]) -> None:
    tree = await built(items)
    await shop.store.stage(items)
    await shop.store.replace(tree, base=(await shop.store.load()).version)


async def pages(shop, most: int = 100, **fields) -> list[list[str]]:
    """The ids on each page."""
    found: list[list[str]] = []
    cursor: str | None = None
    while len(found) < most:
        request = RecommendRequest.model_validate({**fields, "cursor": cursor})
        answer = await shop.recommender.recommend(request)
        found.append([item.item_id for item in answer.items])
        assert [item.rank for item in answer.items] == [*range(1, len(answer.items) + 1)]
        if answer.next_cursor is None:
            break
        cursor = answer.next_cursor
    return found


@pytest.mark.parametrize(
    ("fields", "each"),
    [
        ({"fold": False}, lambda item_id: item_id),
        ({"diversity": 0.3}, lambda item_id: item_id.split("-")[0]),
        ({"group_by": "brand"}, lambda item_id: int(item_id.split("-")[0]) // 4),
        ({"filter": {"all": [{"field": "brand", "ne": "Brand 3"}]}}, lambda it: it.split("-")[0]),
    ],
)
async def test_all_pages_together_show_every_thing_once(shop, fields, each):
    await stocked(shop, things(40))
    found = await pages(shop, instruction="lamp", limit=7, **fields)
    shown = [item_id for page in found for item_id in page]
    assert set(Counter(map(each, shown)).values()) == {1}
    wanted = {each(item.id) for item in things(40)}
    if "filter" in fields:
        wanted -= {"12", "13", "14", "15"}
    assert {each(item_id) for item_id in shown} == wanted
    assert all(len(page) == 7 for page in found[:-1])


async def test_the_pages_of_a_list_are_the_beginning_of_a_longer_one(shop):
    await stocked(shop, things(40))
    asked = {"instruction": "lamp of room3", "diversity": 0, "fold": False}
    (whole,) = await pages(shop, most=1, limit=60, **asked)
    found = await pages(shop, most=4, limit=15, **asked)
    assert [item_id for page in found for item_id in page] == whole


async def test_a_page_is_the_same_after_a_rebuild_without_what_has_gone(shop):
    items = things(40)
    await stocked(shop, items)
    request = RecommendRequest(instruction="lamp", limit=5, fold=False)
    first = await shop.recommender.recommend(request)
    next_one = request.model_copy(update={"cursor": first.next_cursor})
    second = [item.item_id for item in (await shop.recommender.recommend(next_one)).items]
    await stocked(shop, [item for item in reversed(items) if item.id != second[1]])
    again = [item.item_id for item in (await shop.recommender.recommend(next_one)).items]
    assert [one for one in second if one in again] == second[:1] + second[2:]
    assert not set(again) & {item.item_id for item in first.items}


async def test_a_group_is_not_shown_again_after_its_item_has_been_deleted(shop):
    items = things(40)
    numbered = [
        item.model_copy(update={"attributes": {"brand": number // 12, "set": number % 2 == 0}})
        for number, item in enumerate(items)
    ]
    for field, groups in (("brand", 10), ("set", 2)):
        await stocked(shop, numbered)
        request = RecommendRequest(instruction="lamp", limit=1, group_by=field)
        shown = []
        for _ in range(groups):
            answer = await shop.recommender.recommend(request)
            shown += [item.item_id for item in answer.items]
            request = request.model_copy(update={"cursor": answer.next_cursor})
            version = (await shop.store.load()).version
            await shop.store.commit([DropItem(shown[-1])], base=version)
        values = {item.id: item.attributes[field] for item in numbered}
        assert len({values[item_id] for item_id in shown}) == len(shown) == groups


async def test_a_cursor_is_for_its_user_and_expires(shop):
    await stocked(shop, things(10))
    answer = await shop.recommender.recommend(RecommendRequest(user_id="u1", limit=3))
    asked = RecommendRequest(user_id="u2", limit=3, cursor=answer.next_cursor)
    with pytest.raises(CursorOfAnother):
        await shop.recommender.recommend(asked)
    asked = RecommendRequest(user_id="u1", limit=3, cursor="rec_none")
    with pytest.raises(CursorExpired):
        await shop.recommender.recommend(asked)


async def test_where_nothing_is_left_there_is_no_cursor(shop):
    await stocked(shop, things(3))
    for limit in (9, 10):
        answer = await shop.recommender.recommend(RecommendRequest(limit=limit, fold=False))
        assert (len(answer.items), answer.next_cursor) == (9, None)

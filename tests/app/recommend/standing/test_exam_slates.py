"""What an examination asks: slates whose right options are known."""

import re
import time

import numpy as np
import pytest

from app.recommend.standing.exam_slates import OPTIONS, ExamSlate, ExamWriter
from tests.app.conftest import Shop
from tests.app.recommend.standing.support import pool_of
from tree.item import Item
from tree.item_line import ItemLine
from tree.snapshot import SemanticTree

_COUNT = 24
_WORD = re.compile(r"\w{3,}")


async def slates(
    shop: Shop, *, seed: int = 1, histories: list[list[str]] | None = None
) -> list[ExamSlate]:
    tree = await shop.store.load()
    return await ExamWriter(tree, pool_of(shop), seed).slates(histories or [], _COUNT)


def kind(tree: SemanticTree, row: int) -> int:
    path = tree.path(int(tree.rows.leaf[row]))
    return path[-2].id


def key(slate: ExamSlate) -> tuple[str, list[int], list[int]]:
    return slate.request.model_dump_json(), slate.rows.tolist(), sorted(slate.right)


def histories_in(found: list[ExamSlate]) -> list[ExamSlate]:
    return [slate for slate in found if slate.request.history]


async def test_right_options_stand_among_items_of_other_kinds(demo, demo_tree):
    found = histories_in(await slates(demo))
    assert len(found) >= _COUNT // 2
    for slate in found:
        rows = slate.rows.tolist()
        assert len(set(rows)) == len(rows) == OPTIONS
        shown = demo_tree.rows_of([entry.item_id for entry in slate.request.history])
        assert 0 < len(slate.right) < OPTIONS / 2
        assert slate.right < set(rows)
        assert not set(shown) & set(rows), "the history would be an answer"
        kinds = {kind(demo_tree, row) for row in shown}
        assert {kind(demo_tree, row) for row in slate.right} <= kinds
        assert not kinds & {kind(demo_tree, row) for row in rows if row not in slate.right}


async def test_the_same_seed_asks_the_same(demo):
    first, again, other = [
        [key(slate) for slate in await slates(demo, seed=seed)] for seed in (1, 1, 2)
    ]
    assert first == again
    assert len(first) == _COUNT
    assert not {str(one) for one in first} & {str(one) for one in other}


async def test_what_a_user_had_later_is_right_where_it_is_of_a_kind(demo, demo_tree):
    writer = ExamWriter(demo_tree, pool_of(demo), 3)
    by_kind: dict[int, list[str]] = {}
    for row in range(demo_tree.size):
        by_kind.setdefault(kind(demo_tree, row), []).append(demo_tree.rows.id(row))
    mine, others = sorted(by_kind.values(), key=len, reverse=True)[:2]
    history = [*mine[:5], others[0], mine[5]]
    of_users = [
        slate
        for slate in await writer.slates([history], _COUNT)
        if slate.request.history and slate.request.history[0].item_id in history
        and len(slate.request.history) == 4
    ]  # fmt: skip
    [slate] = of_users
    assert [entry.item_id for entry in slate.request.history] == mine[:4]
    right = {demo_tree.rows.id(row) for row in slate.right}
    assert right == {mine[4], mine[5]}, "nobody can know what is of another kind"
    assert demo_tree.row(others[0]) not in slate.rows


@pytest.mark.parametrize("history", [[], ["nowhere"] * 9, ["book-dune", "film-alien"]])
async def test_histories_that_say_too_little_are_left_out(demo, history):
    with_it = await slates(demo, histories=[history])
    assert [key(one) for one in with_it] == [key(one) for one in await slates(demo)]


async def test_a_wish_is_an_item_in_words_that_its_title_lacks(demo, demo_tree, demo_items):
    found = [slate for slate in await slates(demo) if slate.request.instruction]
    assert len(found) >= _COUNT // 4
    titles = {item.id: item.title for item in demo_items}
    for slate in found:
        assert len(slate.rows) == OPTIONS
        [row] = slate.right
        named = {word.casefold() for word in _WORD.findall(titles[demo_tree.rows.id(row)])}
        words = {word.casefold() for word in _WORD.findall(str(slate.request.instruction))}
        assert words
        assert not words & named
    near = [
        sum(demo_tree.rows.leaf[row] == demo_tree.rows.leaf[next(iter(slate.right))]
            for row in slate.rows) - 1
        for slate in found
    ]  # fmt: skip
    assert np.mean(near) > 1, "neighbours stand beside it"


async def test_the_line_of_an_item_is_its_wish(demo, demo_items):
    line = "A quiet companion for long evenings by the fire, with room for doubts and tea"
    described = [item.with_line(ItemLine(line)) for item in demo_items]
    await demo.store.stage(described)
    found = [slate for slate in await slates(demo) if slate.request.instruction]
    assert len(found) == _COUNT // 3
    assert all(set(str(slate.request.instruction).split()) <= set(line.split()) for slate in found)


async def test_nothing_is_asked_of_a_small_catalogue(shop, demo_items):
    await shop.curator.apply_batch(demo_items[:60], [])
    assert await slates(shop) == []


async def test_hidden_items_are_neither_shown_nor_offered(demo, demo_items):
    hidden = [item.model_copy(update={"hidden": True}) for item in demo_items[::2]]
    await demo.curator.apply_batch(hidden, [])
    tree = await demo.store.load()
    allowed = tree.allowed(time.time())
    found = await slates(demo, histories=[[item.id for item in hidden[:9]]])
    assert found
    for slate in found:
        shown = tree.rows_of([entry.item_id for entry in slate.request.history])
        assert allowed[[*shown, *slate.rows.tolist()]].all()


def test_items_have_what_the_tests_need(demo_items: list[Item]):
    assert sum(len(item.description) > 60 for item in demo_items) > 100

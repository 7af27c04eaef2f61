"""What the second attempt to place a batch keeps of the first, and what it must not keep."""

from collections.abc import Sequence

import numpy as np
import pytest

from app.curate.writes.placement import Placement
from app.curate.writes.vector_cache import ItemVectorCache
from app.embedders import Embedder, embedder_for
from tests.app.conftest import built
from tree import inspect
from tree.edits import DropItem, PutItem
from tree.item import Item
from tree.node import Space, TreeSettings
from tree.snapshot import SemanticTree
from tree.vectors import Int8Matrix

SETTINGS = TreeSettings(leaf_capacity=8, fan_out=5)
WORDS = ("harbour", "violin", "desert", "orchard", "glacier", "kitchen", "railway", "garden")


class Counting:
    """See Embedder: another one, and how many texts it was given."""

    def __init__(self, embedder: Embedder) -> None:
        self._embedder = embedder
        self.texts = 0

    @property
    def space(self) -> Space:
        return self._embedder.space

    @property
    def population(self) -> int:
        return self._embedder.population

    def encode(self, texts: Sequence[str]) -> Int8Matrix:
        self.texts += len(texts)
        return self._embedder.encode(texts)


def thing(number: int, name: str = "i") -> Item:
    first, second = WORDS[number % 8], WORDS[number // 8 % 8]
    return Item(id=f"{name}{number}", title=f"A {first} and a {second}, number {number}")


def unplaced() -> Placement:
    return Placement(ItemVectorCache())


def leaves_of(edits: Sequence[object]) -> dict[str, int]:
    return {edit.id: edit.leaf for edit in edits if isinstance(edit, PutItem)}


@pytest.fixture
async def tree() -> SemanticTree:
    return await built([thing(number) for number in range(200)], SETTINGS)


@pytest.fixture
def embedder(tree: SemanticTree) -> Counting:
    return Counting(embedder_for(tree.space))


@pytest.fixture
def items() -> list[Item]:
    return [thing(number, "new ") for number in range(10)]


def lured(tree: SemanticTree, item: Item, embedder: Embedder, home: int) -> SemanticTree:
    """The tree after somebody has put likenesses of an item into another leaf than `home`."""
    vector = embedder.encode([item.text])[0].tobytes()
    other = next(node.id for node in tree.siblings(home) if node.is_leaf)
    gone = [DropItem(item_id) for item_id in tree.item_ids(other)]
    twins = [PutItem(f"twin {number}", other, vector) for number in range(5)]
    return tree.apply([*twins, *gone])


def test_a_lost_race_costs_no_embedding(tree, embedder, items):
    placement = unplaced()
    first = placement.plan(tree, embedder, items, [])
    assert embedder.texts == len(items)
    assert placement.plan(tree, embedder, items, []) == first
    changed = tree.apply([DropItem("i3")])
    after = changed.apply(placement.plan(changed, embedder, items, ["i4"]))
    assert embedder.texts == len(items)
    assert inspect.violations(after) == []
    expected = {f"i{number}" for number in range(200)} - {"i3", "i4"} | {i.id for i in items}
    assert set(after.item_ids()) == expected


def test_a_leaf_that_nobody_has_touched_stays_the_right_one(tree, embedder, items):
    placement, item = unplaced(), items[0]
    home = leaves_of(placement.plan(tree, embedder, [item], []))[item.id]
    changed = lured(tree, item, embedder, home)
    assert leaves_of(unplaced().plan(changed, embedder, [item], []))[item.id] != home
    assert leaves_of(placement.plan(changed, embedder, [item], []))[item.id] == home


def test_a_leaf_that_has_lost_an_item_is_looked_for_again(tree, embedder, items):
    placement, item = unplaced(), items[0]
    home = leaves_of(placement.plan(tree, embedder, [item], []))[item.id]
    changed = lured(tree, item, embedder, home)
    changed = changed.apply([DropItem(next(changed.item_ids(home)))])
    anew = leaves_of(unplaced().plan(changed, embedder, [item], []))[item.id]
    assert leaves_of(placement.plan(changed, embedder, [item], []))[item.id] == anew != home


def test_leaves_that_others_have_split_or_filled_are_found_again(tree, embedder, items):
    placement = unplaced()
    placement.plan(tree, embedder, items, [])
    rivals = [thing(number, "rival ") for number in range(64)]
    changed = tree.apply(unplaced().plan(tree, embedder, rivals, []))
    assert {leaf.id for leaf in changed.leaves()} != {leaf.id for leaf in tree.leaves()}
    after = changed.apply(placement.plan(changed, embedder, items, []))
    assert inspect.violations(after) == []
    assert len(after) == len(changed) + len(items)


async def test_a_tree_of_another_space_has_every_text_read_again(tree, embedder, items):
    placement = unplaced()
    placement.plan(tree, embedder, items, [])
    other = await built([thing(number) for number in range(50, 250)], SETTINGS)
    theirs = Counting(embedder_for(other.space))
    edits = placement.plan(other, theirs, items, [])  # type: ignore[arg-type]  # it encodes only
    assert theirs.texts == len(items)
    assert edits == unplaced().plan(other, embedder_for(other.space), items, [])


def test_vectors_of_several_writes_are_joined_where_they_are_of_one_space(embedder, items):
    rows = embedder.encode([item.text for item in items])
    parts = [ItemVectorCache() for _ in range(3)]
    parts[1].add(embedder.space.fingerprint, items[:4], rows[:4])
    parts[2].add("another", items[4:], np.zeros_like(rows[4:]))
    embedder.texts = 0
    read = ItemVectorCache.joined(parts).encode(embedder, items)
    assert np.array_equal(read, rows)
    assert embedder.texts == len(items) - 4
    assert ItemVectorCache.joined([]).encode(embedder, []).shape == (0, rows.shape[1])

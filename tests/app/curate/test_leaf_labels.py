"""Offline labels for leaves that commits have reshaped."""

import asyncio
from collections.abc import AsyncIterator, Sequence

import pytest

from app.curate.leaf_labels import LeafLabels
from tests.app.conftest import Shop, built
from tree.edits import DropItem, Relabel
from tree.errors import StoreUnavailable
from tree.item import Item
from tree.node import Node, TreeSettings
from tree.snapshot import SemanticTree

WORDS = ("harbour", "violin", "desert", "orchard", "glacier", "kitchen", "railway", "garden")
_WAIT_S = 30


class Heard:
    """What a LeafLabels has made: labels, with the version that they were made for."""

    def __init__(self) -> None:
        self.calls: list[tuple[SemanticTree, list[Relabel]]] = []

    def __call__(self, tree: SemanticTree, edits: Sequence[Relabel]) -> None:
        self.calls.append((tree, list(edits)))

    @property
    def labels(self) -> dict[int, str]:
        return {edit.node: edit.label for _, edits in self.calls for edit in edits}


@pytest.fixture
async def unnamed(shop: Shop) -> Shop:
    """A catalogue of some families, whose leaves are all called the same."""
    items = [
        Item(
            id=f"i{number}",
            title=f"A {WORDS[number % 8]} and a {WORDS[number // 8 % 8]}, number {number}",
            categories=(("Day", "Night")[number % 2],),
        )
        for number in range(400)
    ]
    tree = await built(items, TreeSettings(leaf_capacity=5, fan_out=6))
    await shop.store.stage(items)
    await shop.store.replace(tree, base=0)
    edits = [Relabel(leaf.id, "Unnamed", "") for leaf in tree.leaves()]
    await shop.store.commit(edits, base=(await shop.store.load()).version)
    return shop


@pytest.fixture
async def names(unnamed: Shop, heard: Heard) -> AsyncIterator[LeafLabels]:
    names = LeafLabels(unnamed.store, heard)
    yield names
    await names.aclose(_WAIT_S)


@pytest.fixture
def heard() -> Heard:
    return Heard()


def families(tree: SemanticTree) -> dict[int, list[Node]]:
    """The leaves by their parents."""
    found: dict[int, list[Node]] = {}
    for leaf in tree.leaves():
        assert leaf.parent is not None
        found.setdefault(leaf.parent, []).append(leaf)
    return found


async def test_leaves_of_a_family_are_named_together_and_told_apart(unnamed, names, heard):
    tree = await unnamed.store.load()
    first, second, *_ = families(tree).values()
    wanted = [leaf.id for leaf in (*first, second[0])]
    names.note(wanted)
    await names.aclose(_WAIT_S)
    assert len(heard.calls) == 2
    assert all(made_for is tree for made_for, _ in heard.calls)
    assert heard.labels.keys() == set(wanted)
    labels = [heard.labels[leaf.id] for leaf in first]
    assert len(set(labels)) == len(labels)
    assert "Unnamed" not in labels


async def test_nodes_that_are_gone_or_have_children_are_passed_over(unnamed, names, heard):
    tree = await unnamed.store.load()
    leaf = next(tree.leaves())
    names.note([4_711, leaf.parent, tree.root.id, leaf.id])
    await names.aclose(_WAIT_S)
    assert heard.labels.keys() == {leaf.id}


async def test_a_locked_leaf_keeps_its_name(unnamed, names, heard):
    tree = await unnamed.store.load()
    first, second, *_ = next(iter(families(tree).values()))
    await unnamed.store.commit(
        [Relabel(first.id, "Chosen by hand", "", locked=True)], base=tree.version
    )
    names.note([first.id, second.id])
    await names.aclose(_WAIT_S)
    assert heard.labels.keys() == {second.id}


async def test_a_family_whose_texts_are_not_all_there_waits_for_its_next_split(
    unnamed, names, heard
):
    tree = await unnamed.store.load()
    whole, broken, *_ = families(tree).values()
    lost = next(tree.item_ids(broken[-1].id))
    await unnamed.store._client.unlink(unnamed.store._keys.item(lost))
    names.note([broken[0].id, whole[0].id])
    await names.aclose(_WAIT_S)
    assert heard.labels.keys() == {whole[0].id}
    await unnamed.store.commit([DropItem(lost)], base=tree.version)
    names = LeafLabels(unnamed.store, heard)
    names.note([broken[0].id])
    await names.aclose(_WAIT_S)
    assert broken[0].id in heard.labels


async def test_a_store_that_is_gone_is_asked_less_and_less_and_holds_up_no_end(heard):
    class Gone:
        asked = 0

        async def load(self) -> SemanticTree:
            self.asked += 1
            raise StoreUnavailable("the catalogue was deleted")

    store = Gone()
    names = LeafLabels(store, heard)  # type: ignore[arg-type]  # nothing else is asked of it
    names.note(range(10_000))
    await asyncio.sleep(0.5)
    assert 1 <= store.asked <= 5
    async with asyncio.timeout(_WAIT_S):
        await names.aclose(0.1)
    asked = store.asked
    await asyncio.sleep(0.5)
    assert store.asked == asked


async def test_many_are_named_at_a_pace_and_all_of_them_at_the_end(unnamed, names, heard):
    leaves = [leaf.id for leaf in (await unnamed.store.load()).leaves()]
    assert len(leaves) > 64
    names.note(leaves)
    async with asyncio.timeout(_WAIT_S):
        while not heard.calls:
            await asyncio.sleep(0.001)
    assert len(heard.labels) < len(leaves)
    await names.aclose(_WAIT_S)
    assert heard.labels.keys() == set(leaves)

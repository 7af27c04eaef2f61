"""Labels that an administrator has locked, through rebuilds and back to older versions."""

from typing import Any

import pytest

from app.curate import RebuildParams
from app.curate.locked_labels import carried_locks
from tests.app.conftest import built
from tree import place
from tree.edits import Relabel
from tree.item import Item
from tree.node import ROOT, Node, TreeSettings
from tree.snapshot import SemanticTree

SMALL = TreeSettings(leaf_capacity=10, fan_out=4)


def thing(number: int, **more: Any) -> Item:
    colour, use = (
        ("red", "green", "blue")[number % 3],
        ("cups", "boats", "hats", "maps")[number % 4],
    )
    return Item(id=f"i{number}", title=f"Number {number}: {colour} {use}", **more)


def some_node(tree: SemanticTree, kind: str) -> Node:
    """One that stands for a category, or a leaf that stands for none."""
    keyed = kind == "category"
    return next(node for node in tree.leaves() if bool(node.key) is keyed)


def locked(tree: SemanticTree) -> list[Node]:
    return [node for node in tree.walk() if node.locked]


async def rebuilt(shop, **params: Any) -> dict:
    job = await shop.ended(await shop.curator.start_rebuild(RebuildParams(**params)))
    assert job.state == "succeeded", job.problem
    return job.result


both_kinds = pytest.mark.parametrize("kind", ["category", "cluster"])


@both_kinds
async def test_a_lock_follows_its_items_through_a_rebuild(demo, kind):
    await rebuilt(demo)
    before = await demo.store.load()
    node = some_node(before, kind)
    mine = set(before.item_ids(node.id))
    await demo.curator.rename(node.id, "Chosen by hand", True)
    await demo.curator.put([thing(number) for number in range(30)])
    tried = await rebuilt(demo, dry_run=True)
    result = await rebuilt(demo)
    assert tried["labels_lost"] == result["labels_lost"] == []
    tree = await demo.store.load()
    assert tree.space != before.space
    (kept,) = locked(tree)
    assert kept.label == "Chosen by hand"
    now = set(tree.item_ids(kept.id))
    assert len(now & mine) > len(now | mine) / 2


async def test_a_rebuild_names_the_locked_labels_that_it_has_no_node_for(shop):
    await shop.store.stage([thing(number) for number in range(200)])
    await rebuilt(shop)
    leaf = next((await shop.store.load()).leaves())
    await shop.curator.rename(leaf.id, "Chosen by hand", True)
    members = enumerate((await shop.store.load()).item_ids())
    scattered = [Item(id=one, title="Moved", categories=(f"C{at % 9}",)) for at, one in members]
    await shop.store.stage(scattered)
    assert (await rebuilt(shop))["labels_lost"] == ["Chosen by hand"]
    assert locked(await shop.store.load()) == []
    assert (await rebuilt(shop))["labels_lost"] == []


async def test_a_branch_that_is_grown_anew_keeps_its_locks(demo):
    tree = await demo.store.load()
    leaf = some_node(tree, "cluster")
    await demo.curator.rename(leaf.id, "Chosen by hand", True)
    root = tree.path(leaf.id)[0].id
    assert (await rebuilt(demo, mode="subtree", root=root))["labels_lost"] == []
    assert [node.label for node in locked(await demo.store.load())] == ["Chosen by hand"]


@both_kinds
async def test_an_older_version_comes_back_with_the_carried_locks_now(demo, kind):
    await rebuilt(demo)
    node = some_node(await demo.store.load(), kind)
    await demo.curator.rename(node.id, "Then", True)
    for _ in range(2):
        await rebuilt(demo)
    (now,) = locked(await demo.store.load())
    assert await demo.curator.rename(now.id, "Now", False)
    *_, older = await demo.store.versions()
    assert [node.label for node in locked(await demo.store.version(older.version))] == ["Then"]
    job = await demo.ended(await demo.curator.start_activation(older.version))
    assert (job.state, job.result["labels_lost"]) == ("succeeded", [])
    tree = await demo.store.load()
    assert locked(tree) == []
    labels = [node.label for node in tree.walk()]
    assert ("Then" in labels, labels.count("Now")) == (False, 1)


async def test_a_lock_that_the_tree_in_use_knows_nothing_of_stays():
    older = await built([thing(number) for number in range(200)], SMALL)
    leaf = next(older.leaves())
    older = older.at_version(1).apply([Relabel(leaf.id, "Chosen by hand", "", locked=True)])
    members = enumerate(older.item_ids())
    now = await built([thing(int(one[1:]), categories=(f"C{at % 9}",)) for at, one in members])
    assert carried_locks(now, older) == ([], [])
    assert carried_locks(older, now) == ([], ["Chosen by hand"])


async def test_of_the_nodes_that_a_split_has_left_the_likest_is_unlocked():
    items = [thing(number, categories=("Tools",)) for number in range(9)]
    others = [thing(number, categories=("Toys",)) for number in range(9, 90)]
    older = await built([*items, *others], SMALL)
    tools = next(node for node in older.leaves() if node.label == "Tools")
    lock = Relabel(tools.id, "Then", "", locked=True)
    older = older.at_version(1).apply([lock])
    vectors = older.rows.vectors[tools.rows]
    more = [thing(number, categories=("Tools",)) for number in range(100, 103)]
    split = older.at_version(1).apply(place.plan(older, more, vectors[:3]))
    halves = [node for node in split.leaves() if node.key == tools.key]
    assert len(halves) == 2
    most = max(halves, key=lambda node: len(set(split.item_ids(node.id)) & {i.id for i in items}))
    now = split.apply([Relabel(node.id, f"Half {node.id}", "") for node in halves])
    assert carried_locks(now, older) == ([Relabel(tools.id, f"Half {most.id}", "")], [])


async def test_the_root_stands_for_the_root():
    tree = await built([thing(number) for number in range(40)], SMALL)
    now = tree.at_version(1).apply([Relabel(ROOT, "Our shop", "", locked=True)])
    other = await built([thing(number, domain="d") for number in range(100, 140)], SMALL)
    assert carried_locks(now, other) == ([Relabel(ROOT, "Our shop", "", locked=True)], [])

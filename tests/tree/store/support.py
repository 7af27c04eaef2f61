"""Trees and edits for tests of the store."""

import asyncio
import time

import numpy as np

from tests.arrays import equal
from tree.edits import NodeSpec, PutItem
from tree.item import Item
from tree.node import ROOT, Space, TreeSettings
from tree.rows import Columns
from tree.snapshot import SemanticTree
from tree.vectors import DIMENSIONS

SPACE = Space("lexical", "fitted", bytes(range(256)) * 20)
SETTINGS = TreeSettings(leaf_capacity=50, fan_out=1_000)
PATIENCE_S = 20


def large(items: int = 5_000) -> SemanticTree:
    """A tree of several chunks: a root over leaves of 25 items."""
    leaves = range(1, items // 25 + 1)
    columns = Columns(
        [f"item {number}" for number in range(items)],
        np.random.default_rng(0).integers(-127, 128, (items, DIMENSIONS), dtype=np.int8),
        np.arange(items, dtype=np.float32),
        np.full(items, np.inf),
        np.zeros(items, np.bool_),
        [f"domain {number % 3}" for number in range(items)],
    )
    return SemanticTree.assemble(
        [
            NodeSpec(ROOT, "All", children=tuple(leaves)),
            *(NodeSpec(n, f"leaf {n}") for n in leaves),
        ],
        columns,
        [25] * len(leaves),
        version=0,
        settings=SETTINGS,
        space=SPACE,
        next_node=len(leaves) + 1,
    )


def put(item_id: str, leaf: int = ROOT) -> PutItem:
    record = Item(id=item_id, title="Title").record()
    return PutItem(item_id, leaf, bytes(DIMENSIONS), record=record)


def same(one: SemanticTree, other: SemanticTree) -> bool:
    """Whether two trees hold the same items in the same leaves with the same facts."""
    (specs, columns, sizes, centroids), theirs = one.parts(), other.parts()
    return (
        (one.version, one.space, one.settings, one.next_node, specs, sizes)
        == (other.version, other.space, other.settings, other.next_node, theirs[0], theirs[2])
        and (columns.ids, columns.domains) == (theirs[1].ids, theirs[1].domains)
        and np.array_equal(columns.vectors, theirs[1].vectors)
        and np.array_equal(columns.popularity, theirs[1].popularity)
        and np.array_equal(columns.expires_at, theirs[1].expires_at)
        and np.array_equal(columns.hidden, theirs[1].hidden)
        and equal(centroids, theirs[3])
    )


async def until(condition) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not await condition():
        assert time.monotonic() < deadline, "it never came true"
        await asyncio.sleep(0.002)

"""Small trees and events for the contracts of stores."""

from collections.abc import AsyncIterator, Callable
from itertools import count
from typing import TypeAlias

import numpy as np
from pydantic_core import to_json

from app.storage.feedback import Event, Feedback
from tree.edits import PutItem
from tree.item import Item
from tree.node import ROOT, Space, TreeSettings
from tree.snapshot import SemanticTree
from tree.store.protocol import TreeStore
from tree.terms import ROW_BYTES
from tree.vectors import DIMENSIONS

SPACE = Space("lexical", "print/of {it}", b"state" * 100)
SETTINGS = TreeSettings(leaf_capacity=4, fan_out=3, seed=7)
ODD_IDS = ["a/b/c", "{braces} } {", "ünïcode \U0001f600", "new\nline", "*?[a]\\", ":head", " {}x "]

numbers = count()

OpenStore: TypeAlias = Callable[[str], TreeStore]


def vector(seed: int, dimensions: int = DIMENSIONS) -> bytes:
    return np.random.default_rng(seed).integers(-127, 128, dimensions, dtype=np.int8).tobytes()


def terms(seed: int) -> bytes:
    return np.random.default_rng(seed).integers(0, 256, ROW_BYTES, dtype=np.uint8).tobytes()


def item(item_id: str, title: str = "Title") -> Item:
    return Item.stored(to_json({"id": item_id, "title": title, "categories": ["a", "b"]}))


def put(item_id: str, leaf: int = ROOT, seed: int = 0, dimensions: int = DIMENSIONS) -> PutItem:
    record = item(item_id, f"Title {seed}").record()
    return PutItem(
        item_id,
        leaf,
        vector(seed, dimensions),
        domain="news",
        popularity=seed,
        record=record,
        line=seed % 3,
        terms=terms(seed),
    )


async def gathered(batches: AsyncIterator[list[str]]) -> set[str]:
    return {item_id async for batch in batches for item_id in batch}


def content(tree: SemanticTree) -> dict[str, tuple[int, bytes, bytes, str, float, int]]:
    """Leaf, vector, terms, domain, popularity and kind of line of every item in the tree."""
    found = {}
    for leaf in tree.leaves():
        columns = tree.rows.columns(leaf.rows)
        for number, item_id in enumerate(columns.ids):
            assert item_id not in found, f"{item_id!r} stands in two leaves"
            assert tree.leaf_of(item_id) == leaf
            line = 0 if columns.lines is None else int(columns.lines[number])
            facts = columns.domains[number], float(columns.popularity[number]), line
            assert columns.terms is not None
            exact = columns.vectors[number].tobytes(), columns.terms[number].tobytes()
            found[item_id] = (leaf.id, *exact, *facts)
    assert len(tree) == len(found)
    return found


def shape(tree: SemanticTree) -> dict[int, tuple[str, tuple[int, ...]]]:
    return {node.id: (node.label, node.children) for node in tree.walk()}


def events(user: str, *items: str, start: int = 0) -> list[Event]:
    return [
        Event(f"event {next(numbers)}", user, item, start + at) for at, item in enumerate(items)
    ]


async def near(feedback: Feedback, item: str) -> dict[str, int]:
    return (await feedback.neighbours([item])).neighbours[0]


async def counts(feedback: Feedback) -> dict[str, float]:
    return {item: one.users async for page in feedback.counts() for item, one in page.items()}

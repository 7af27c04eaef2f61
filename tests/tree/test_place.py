"""Random histories of batches against a plain dict: the tree keeps every invariant and its past."""

from collections import deque
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tree.edits import Relabel
from tree.inspect import violations
from tree.item import Item
from tree.node import ROOT, Space, TreeSettings
from tree.place import plan, route
from tree.snapshot import SemanticTree
from tree.vectors import DIMENSIONS, Int8Matrix

SPACE = Space("lexical", "lexical-unfitted")

Content: TypeAlias = dict[str, bytes]  # vector by item id

# -- what items look like

CATEGORIES = {
    "none": lambda rng: (),
    "one": lambda rng: ("Games",),
    "few": lambda rng: (str(rng.choice(["News", "Sport", "Arts"])),),
    "case": lambda rng: (str(rng.choice(["news", "NEWS", "Ｎｅｗｓ", " news "])),),
    "two levels": lambda rng: tuple(f"{level}{rng.integers(3)}" for level in "ab"),
    "ragged": lambda rng: tuple("abcd"[: rng.integers(5)]),
    "deep": lambda rng: tuple(f"{level}-{rng.integers(2)}" for level in range(16)),
    "cycle": lambda rng: ("a", "b", "a", "b")[: rng.integers(1, 5)],
    "own": lambda rng: (f"only-{rng.integers(10**6)}",),
    "skewed": lambda rng: (f"c{int(rng.zipf(1.6)) % 40}",),
}

CENTRES = np.random.default_rng(5).integers(-100, 100, (6, DIMENSIONS))


def _clustered(rng: np.random.Generator) -> Int8Matrix:
    noise = rng.integers(-27, 28, DIMENSIONS)
    return (CENTRES[rng.integers(len(CENTRES))] + noise).astype(np.int8)


VECTORS = {
    "random": lambda rng: rng.integers(-127, 128, DIMENSIONS).astype(np.int8),
    "identical": lambda rng: np.full(DIMENSIONS, 3, np.int8),
    "zero": lambda rng: np.zeros(DIMENSIONS, np.int8),
    "clustered": _clustered,
    "some zero": lambda rng: _clustered(rng) * np.int8(rng.random() < 0.5),
    "few": lambda rng: CENTRES[rng.integers(2)].astype(np.int8),
}

DOMAINS = {
    "none": lambda rng: "",
    "one": lambda rng: "Shop",
    "mixed": lambda rng: str(rng.choice(["", "news", "films"])),
}


@dataclass(frozen=True)
class Catalogue:
    """Makes items of a kind."""

    settings: TreeSettings
    categories: str
    vectors: str
    domains: str

    def make(self, ids: list[str], rng: np.random.Generator) -> tuple[list[Item], Int8Matrix]:
        items = [
            Item(
                id=item_id,
                title=f"Title {item_id}",
                categories=CATEGORIES[self.categories](rng),
                domain=DOMAINS[self.domains](rng),
            )
            for item_id in ids
        ]
        vectors = [VECTORS[self.vectors](rng) for _ in ids]
        return items, np.stack(vectors) if vectors else np.zeros((0, DIMENSIONS), np.int8)


catalogues = st.builds(
    Catalogue,
    st.builds(TreeSettings, st.integers(4, 20), st.integers(3, 16), st.integers(0, 3)),
    st.sampled_from(sorted(CATEGORIES)),
    st.sampled_from(sorted(VECTORS)),
    st.sampled_from(sorted(DOMAINS)),
)


# -- what is done with them

MOVES = [
    "insert", "bulk", "near", "update", "move", "drop", "drop half", "drop leaf", "drop branch",
    "drop all", "drop absent", "churn", "renew",
]  # fmt: skip


@dataclass
class History:
    """A tree, the dict that it must equal, and versions of the past with what they held."""

    catalogue: Catalogue
    rng: np.random.Generator
    tree: SemanticTree
    model: Content
    made: int = 0

    def batch(self, move: str, size: int) -> tuple[list[Item], Int8Matrix, list[str]]:
        """Items to put, their vectors, ids to drop."""
        puts: list[str] = []
        drops: list[str] = []
        match move:
            case "insert" | "near":
                puts = self._fresh(size)
            case "bulk":
                puts = self._fresh(size * 8)
            case "update" | "move":
                puts = self._some(size)
            case "drop":
                drops = self._some(size)
            case "drop half":
                drops = self._some(len(self.model) // 2)
            case "drop leaf":
                drops = list(self.tree.item_ids(self._node(leaf=True)))
            case "drop branch":
                drops = list(self.tree.item_ids(self._node(leaf=False)))[size % 3 :]
            case "drop all":
                drops = list(self.model)
            case "drop absent":
                drops = [f"absent {number}" for number in range(size)]
            case "churn":
                drops = self._some(size)
                puts = [item for item in self._some(size) if item not in drops]
                puts += self._fresh(size)
            case "renew":
                puts = [item for item in map(_name, range(self.made)) if item not in self.model]
                puts = puts[:size]
        items, vectors = self.catalogue.make(puts, self.rng)
        if move in ("near", "move"):  # all on one spot: the leaf there must split again and again
            vectors = np.repeat(CENTRES[:1].astype(np.int8), len(items), axis=0)
        return items, vectors, drops

    def commit(self, move: str, size: int) -> None:
        items, vectors, drops = self.batch(move, size)
        self.tree = self.tree.apply(plan(self.tree, items, vectors, drops))
        for item_id in drops:
            self.model.pop(item_id, None)
        for item, vector in zip(items, vectors, strict=True):
            self.model[item.id] = vector.tobytes()

    def _fresh(self, size: int) -> list[str]:
        self.made += size
        return [_name(number) for number in range(self.made - size, self.made)]

    def _some(self, size: int) -> list[str]:
        ids = sorted(self.model)
        return [ids[at] for at in self.rng.permutation(len(ids))[:size]]

    def _node(self, *, leaf: bool) -> int:
        nodes = [node.id for node in self.tree.walk() if node.is_leaf == leaf]
        return int(self.rng.choice(nodes)) if nodes else ROOT


def _name(number: int) -> str:
    return f"item/{number} \U0001f600"


def content(tree: SemanticTree) -> Content:
    rows = {item_id: tree.row(item_id) for item_id in tree.item_ids()}
    return {item_id: tree.rows.vectors[row].tobytes() for item_id, row in rows.items()}


def paths(tree: SemanticTree) -> dict[str, tuple[str, ...]]:
    return {
        item_id: tuple(f"{step.id} {step.label}" for step in tree.path(leaf.id))
        for leaf in tree.leaves()
        for item_id in tree.item_ids(leaf.id)
    }


@given(
    catalogues,
    st.integers(0, 2**32),
    st.lists(st.tuples(st.sampled_from(MOVES), st.integers(1, 60)), min_size=1, max_size=8),
)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_every_batch_keeps_the_invariants_and_leaves_the_past_alone(catalogue, seed, moves):
    history = History(
        catalogue, np.random.default_rng(seed), SemanticTree.empty(SPACE, catalogue.settings), {}
    )
    past: deque[tuple[SemanticTree, Content, dict[str, tuple[str, ...]]]] = deque(maxlen=3)
    for move, size in moves:
        past.append((history.tree, dict(history.model), paths(history.tree)))
        history.commit(move, size)
        assert violations(history.tree) == []
        assert content(history.tree) == history.model
        assert history.tree.version == past[-1][0].version + 1
    for tree, model, were in past:
        assert content(tree) == model
        assert paths(tree) == were
        assert violations(tree) == []


@given(catalogues, st.integers(0, 2**32), st.sampled_from(MOVES), st.sampled_from(MOVES))
@settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_a_version_of_the_past_can_go_another_way(catalogue, seed, one, other):
    rng = np.random.default_rng(seed)
    start = History(catalogue, rng, SemanticTree.empty(SPACE, catalogue.settings), {})
    start.commit("bulk", 20)
    branches = [replace(start, model=dict(start.model)) for _ in (one, other)]
    for move in (one, other, "insert"):
        for history in branches:
            history.commit(move, 30)
    for history in branches:
        assert violations(history.tree) == []
        assert content(history.tree) == history.model
    assert content(start.tree) == start.model


@pytest.fixture
def grown() -> History:
    """Some hundred items of two levels of categories, which lie together in space too."""
    catalogue = Catalogue(TreeSettings(8, 4), "two levels", "clustered", "none")
    rng = np.random.default_rng(3)
    history = History(catalogue, rng, SemanticTree.empty(SPACE, catalogue.settings), {})
    items, vectors = _by_category([_name(number) for number in range(320)], rng)
    history.tree = history.tree.apply(plan(history.tree, items, vectors))
    history.model, history.made = content(history.tree), 320
    return history


def _by_category(ids: list[str], rng: np.random.Generator) -> tuple[list[Item], Int8Matrix]:
    homes = rng.integers(len(CENTRES), size=len(ids))
    paths = [(f"Wide {home % 2}", f"Narrow {home}") for home in homes]
    items = [
        Item(id=item_id, title="Title", categories=path)
        for item_id, path in zip(ids, paths, strict=True)
    ]
    noise = rng.integers(-27, 28, (len(ids), DIMENSIONS))
    return items, (CENTRES[homes] + noise).astype(np.int8)


def test_items_of_a_category_are_placed_in_it(grown):
    named = {node.key: node for node in grown.tree.walk() if node.key}
    assert {("", f"wide {n % 2}", f"narrow {n}") for n in range(6)} <= named.keys()
    for key, node in named.items():
        vector = grown.tree.centroids_of(node)[0]
        steps = grown.tree.path(*route(grown.tree, [(*key, "unheard of")], vector[None]))
        assert any(step.key == key for step in steps), f"{key} strayed"


def test_no_item_leaves_its_category_when_nodes_split(grown):
    ids = [f"late {number}" for number in range(300)]
    items, vectors = _by_category(ids, grown.rng)
    for start in range(0, len(ids), 30):
        batch = slice(start, start + 30)
        grown.tree = grown.tree.apply(plan(grown.tree, items[batch], vectors[batch]))
    assert violations(grown.tree) == []
    for item in items:
        keys = [step.key for step in grown.tree.path(grown.tree.leaf_of(item.id).id) if step.key]
        assert keys, f"{item.categories} has no category"
        assert all(item.key[: len(key)] == key for key in keys), f"{item.key} stands in {keys}"


def test_one_item_at_a_time_touches_few_nodes(grown):
    items, vectors = grown.catalogue.make([f"late {number}" for number in range(30)], grown.rng)
    shared = []
    for item, vector in zip(items, vectors, strict=True):
        before = {id(node) for node in grown.tree.walk()}
        grown.tree = grown.tree.apply(plan(grown.tree, [item], vector[None]))
        after = {id(node) for node in grown.tree.walk()}
        shared.append(len(before & after) / len(after))
        assert violations(grown.tree) == []
    assert np.median(shared) > 0.9


def test_the_same_batch_gives_the_same_edits(grown):
    items, vectors, drops = grown.batch("churn", 60)
    assert plan(grown.tree, items, vectors, drops) == plan(grown.tree, items, vectors, drops)


def test_nothing_to_do_is_no_edit(grown):
    assert plan(grown.tree) == []


def test_an_update_in_place_keeps_the_leaf(grown):
    item_id = next(grown.tree.item_ids())
    leaf = grown.tree.leaf_of(item_id)
    row = grown.tree.row(item_id)
    key = grown.tree.path(leaf.id)[-1].key
    item = Item(id=item_id, title="New title", categories=key[1:], popularity=7.0, hidden=True)
    tree = grown.tree.apply(plan(grown.tree, [item], grown.tree.rows.vectors[row][None]))
    assert violations(tree) == []
    assert tree.rows.popularity[tree.row(item_id)] == 7.0
    assert not tree.allowed(0.0)[tree.row(item_id)]
    assert grown.tree.allowed(0.0)[grown.tree.row(item_id)]


def test_a_label_that_was_chosen_outlives_every_split(grown):
    node = next(node for node in grown.tree.walk() if not node.is_leaf and node.id != ROOT)
    grown.tree = grown.tree.apply([Relabel(node.id, "Chosen", "by hand", locked=True)])
    for _ in range(3):
        grown.commit("insert", 4)
    kept = grown.tree.node(node.id)
    assert (kept.label, kept.signpost, kept.locked) == ("Chosen", "by hand", True)

"""Whole trees: the invariants, even leaves, the same bits, on made-up and on real catalogues."""

import gzip
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from app.embedders import LexicalEmbedder, fit_sample
from tree.build import common_names, grow, leaf_members, number_whole
from tree.clustering import balanced_parts, packed_parts
from tree.edits import NodeSpec
from tree.inspect import statistics, violations
from tree.item import Item
from tree.node import ROOT, TreeSettings
from tree.rows import Columns
from tree.snapshot import SemanticTree
from tree.vectors import DIMENSIONS, Int8Matrix

DATA = Path(__file__).parents[3] / "shared" / "data"
GINI = 0.30

Names = tuple[str, ...]


@dataclass(frozen=True)
class Made:
    tree: SemanticTree
    specs: list[NodeSpec]
    members: list[np.ndarray]


def built(
    paths: Sequence[Names], vectors: Int8Matrix, settings: TreeSettings | None = None
) -> Made:
    settings = settings or TreeSettings()
    ids = [f"item {number}" for number in range(len(paths))]
    keys = [Item(id="x", title="x", domain=d, categories=tuple(c)).key for d, *c in paths]
    top = grow(vectors, keys, settings, names=common_names(paths, keys))
    specs, next_node = number_whole(top)
    members = leaf_members(top)
    zeros = np.zeros(len(ids))
    columns = Columns(
        ids, vectors, zeros.astype(np.float32), zeros + np.inf, zeros > 0, [d for d, *_ in paths]
    )
    tree = SemanticTree.assemble(
        specs,
        columns.take(np.concatenate(members)),
        list(map(len, members)),
        version=1,
        settings=settings,
        space=LexicalEmbedder().space,
        next_node=next_node,
    )
    return Made(tree, specs, members)


def clustered(count: int, centres: int = 12, seed: int = 1) -> Int8Matrix:
    rng = np.random.default_rng(seed)
    middle = rng.integers(-90, 90, (centres, DIMENSIONS))
    noise = rng.integers(-37, 38, (count, DIMENSIONS))
    return (middle[np.arange(count) % centres] + noise).astype(np.int8)


def along(paths: Sequence[Names]) -> Int8Matrix:
    """Vectors in which the items of a path lie together."""
    order = {path: number for number, path in enumerate(dict.fromkeys(paths))}
    middle = np.random.default_rng(2).integers(-90, 90, (len(order), DIMENSIONS))
    noise = np.random.default_rng(3).integers(-37, 38, (len(paths), DIMENSIONS))
    return (middle[[order[path] for path in paths]] + noise).astype(np.int8)


SHAPES: dict[str, Callable[[], tuple[list[Names], Int8Matrix]]] = {
    "nothing": lambda: ([], clustered(0)),
    "one item": lambda: ([("", "a")], clustered(1)),
    "one leaf": lambda: ([("", "a")] * 20, clustered(20)),
    "one more than a leaf": lambda: ([("", "a")] * 21, clustered(21)),
    "no categories": lambda: ([("",)] * 1_500, clustered(1_500)),
    "all alike": lambda: ([("d", "a")] * 700, np.full((700, DIMENSIONS), 5, np.int8)),
    "nothing recognised": lambda: ([("d",)] * 700, np.zeros((700, DIMENSIONS), np.int8)),
    "every category of its own": lambda: _along([("", f"c{n}") for n in range(900)]),
    "200 categories": lambda: _along([("", f"c{n % 200}") for n in range(1_800)]),
    "one huge and many tiny": lambda: _along(
        [*[("", "huge")] * 1_000, *(("", f"tiny {n // 2}") for n in range(200))]
    ),
    "uneven": lambda: _along([("", f"c{n}") for n in range(40) for _ in range(1 + n * n // 12)]),
    "uneven levels": lambda: _along(
        [("d", *(f"l{level}-{n >> level & 1}" for level in range(n % 5))) for n in range(900)]
    ),
    "16 levels": lambda: _along(
        [("d", *(f"l{level}-{n >> level % 4 & 1}" for level in range(16))) for n in range(700)]
    ),
    "a name below itself": lambda: _along([("d", "a", "b", "a", f"b{n % 3}") for n in range(600)]),
    "mixed domains": lambda: _along([(d, "c") for d in ("", "films", "news") for _ in range(150)]),
    "categories at odds with the text": lambda: (
        [("", f"c{n % 7}") for n in range(1_200)],
        clustered(1_200, centres=30),
    ),
}


def _along(paths: list[Names]) -> tuple[list[Names], Int8Matrix]:
    return paths, along(paths)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(
    "settings", [TreeSettings(), TreeSettings(9, 4, seed=1)], ids=["wide", "narrow"]
)
def test_a_built_tree_keeps_every_invariant(shape, settings):
    paths, vectors = SHAPES[shape]()
    made = built(paths, vectors, settings)
    assert violations(made.tree) == []
    assert sorted(np.concatenate(made.members).tolist()) == list(range(len(paths)))
    assert statistics(made.tree).gini <= GINI
    assert statistics(made.tree).items == len(paths)


@pytest.mark.parametrize("shape", ["no categories", "uneven levels", "all alike", "mixed domains"])
def test_the_same_items_give_the_same_tree_bit_for_bit(shape):
    first, second = (built(*SHAPES[shape]()) for _ in range(2))
    assert first.specs == second.specs
    assert all(map(np.array_equal, first.members, second.members))


def test_another_seed_gives_another_tree():
    paths, vectors = SHAPES["no categories"]()
    first, second = (built(paths, vectors, TreeSettings(seed=seed)).members for seed in (0, 1))
    assert any(not np.array_equal(a, b) for a, b in zip(first, second, strict=False))


def test_categories_become_nodes_with_their_most_frequent_spelling():
    paths = [("Shop", name) for name in ("Jazz", "jazz", "JAZZ ", "Jazz")] * 30
    paths += [("Shop", "Rock")] * 120
    made = built(paths, along([(path[1].strip().lower(),) for path in paths]))
    labels = {node.key: node.label for node in made.tree.walk() if node.key}
    assert labels == {("shop", "jazz"): "Jazz", ("shop", "rock"): "Rock"}
    for node in made.tree.children(made.tree.root):
        names = {
            paths[int(item.split()[1])][1].strip().lower() for item in made.tree.item_ids(node.id)
        }
        assert names == {node.key[1]}


def test_the_same_name_in_two_places_is_two_nodes():
    paths = [("", wide, "Other") for wide in ("Books", "Films") for _ in range(60)]
    paths += [("", wide, "Crime") for wide in ("Books", "Films") for _ in range(60)]
    made = built(paths, along(paths))
    others = [node for node in made.tree.walk() if node.label == "Other"]
    assert [node.key for node in others] == [("", "books", "other"), ("", "films", "other")]
    for node in others:
        assert node.count == 60


def test_small_categories_share_a_leaf_and_its_name():
    paths = [("", f"Big {n % 2}") for n in range(100)]
    paths += [("", "Tiny"), ("", "Small"), ("", "Small")]
    made = built(paths, along(paths))
    shared = [node for node in made.tree.leaves() if "Small" in node.label]
    assert [(node.label, node.key, node.count) for node in shared] == [("Small, Tiny", (), 3)]


def test_progress_counts_every_item():
    told: list[int] = []
    paths, vectors = SHAPES["uneven"]()
    grow(vectors, paths, TreeSettings(), progress=told.append)
    assert sum(told) == len(paths)


@pytest.mark.parametrize("name", ["mind", "ml_latest_small"])
def test_real_catalogues(name):
    file = DATA / name / "items.jsonl.gz"
    if not file.exists():
        pytest.skip(f"needs the real catalogue {file}, which may not be shipped")
    with gzip.open(file, "rt") as lines:
        records = [
            {
                field: value
                for field, value in json.loads(line).items()
                if field in Item.model_fields
            }
            for line in lines
        ]
    items = [Item.model_validate_json(json.dumps(record)) for record in records]
    texts = [item.text for item in items]
    vectors = LexicalEmbedder.fit(fit_sample(texts)).encode(texts)
    made = built([(item.domain, *item.categories) for item in items], vectors)
    assert violations(made.tree) == []
    shape = statistics(made.tree)
    assert shape.items == len(items)
    assert shape.gini <= GINI
    assert shape.depth <= 4


@pytest.mark.parametrize("count", [2, 7, 301])
@pytest.mark.parametrize("parts", [1, 2, 5, 16])
@pytest.mark.parametrize("kind", ["clustered", "identical", "zero", "skewed"])
def test_balanced_parts_differ_by_one_at_most(count, parts, kind):
    vectors = {
        "clustered": clustered(count),
        "identical": np.full((count, DIMENSIONS), 7, np.int8),
        "zero": np.zeros((count, DIMENSIONS), np.int8),
        "skewed": np.repeat(clustered(2), [count - count // 20 - 1, count // 20 + 1], axis=0),
    }[kind]
    labels = balanced_parts(vectors, parts, seed=4)
    sizes = np.bincount(labels, minlength=min(parts, count))
    assert len(sizes) == min(parts, count)
    assert sizes.max() - sizes.min() <= 1
    assert np.array_equal(labels, balanced_parts(vectors, parts, seed=4))


def test_balanced_parts_follow_the_directions():
    vectors = clustered(600, centres=6)
    labels = balanced_parts(vectors, 6, seed=0)
    for centre in range(6):
        assert len(set(labels[centre::6].tolist())) == 1


def test_packed_parts_join_what_is_alike_without_crowding():
    centres = clustered(4, centres=4)
    vectors = np.repeat(centres, 5, axis=0)
    labels = packed_parts(vectors, np.full(20, 3), 4)
    assert labels.reshape(4, 5).tolist() == [[label] * 5 for label in labels[::5]]
    assert len(set(labels.tolist())) == 4
    lopsided = packed_parts(np.repeat(centres[:1], 12, axis=0), np.arange(1, 13), 3)
    loads = np.bincount(lopsided, weights=np.arange(1, 13))
    assert loads.max() <= 1.5 * loads.mean()


def test_nothing_is_a_root_without_items():
    tree = built([], clustered(0)).tree
    assert (tree.root.id, len(tree)) == (ROOT, 0)
    assert tree.root.is_leaf

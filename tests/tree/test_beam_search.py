"""The beam, with scorers of a few lines and an exact scan as the oracle."""

import numpy as np
import pytest

from tree.beam_search import Level, SimilarityScorer, beam, blend, cut, rows_below, search
from tree.edits import NodeSpec
from tree.inspect import violations
from tree.item import Item
from tree.node import ROOT, Node, Space, TreeSettings
from tree.place import plan
from tree.rows import Columns
from tree.scan import scan, scores_of
from tree.snapshot import SemanticTree
from tree.vectors import DIMENSIONS, FloatArray

SPACE = Space("lexical", "lexical-unfitted")


def columns(ids: list[str]) -> Columns:
    vectors = np.random.default_rng(0).integers(-127, 128, (len(ids), DIMENSIONS), np.int8)
    none = np.zeros(len(ids))
    return Columns(ids, vectors, none.astype(np.float32), none + np.inf, none > 0, [""] * len(ids))


@pytest.fixture
def lopsided() -> SemanticTree:
    """Leaves at depth 1, 2 and 3, one item each, named by label."""
    specs = [
        NodeSpec(ROOT, "root", children=(1, 2)),
        NodeSpec(1, "shallow"),
        NodeSpec(2, "inner", children=(3, 4)),
        NodeSpec(3, "middle"),
        NodeSpec(4, "lower", children=(5, 6)),
        NodeSpec(5, "left"),
        NodeSpec(6, "right"),
    ]
    return SemanticTree.assemble(
        specs, columns(["shallow", "middle", "left", "right"]), [1] * 4,
        version=1, settings=TreeSettings(), space=SPACE, next_node=7,
    )  # fmt: skip


@pytest.fixture(scope="module")
def large() -> SemanticTree:
    rng = np.random.default_rng(11)
    centres = rng.integers(-90, 90, (40, DIMENSIONS))
    vectors = centres[rng.integers(40, size=2_000)] + rng.integers(-37, 38, (2_000, DIMENSIONS))
    items = [Item(id=str(number), title="x") for number in range(2_000)]
    empty = SemanticTree.empty(SPACE, TreeSettings(10, 6))
    tree = empty.apply(plan(empty, items, vectors.astype(np.int8)))
    assert violations(tree) == []
    return tree


def by_label(**scores: float | tuple[float, ...]):
    async def score(level: Level) -> FloatArray:
        rows = [np.atleast_1d(scores.get(option.label, 0.0)) for option in level.options]
        return np.array(rows, np.float32)

    return score


async def labels(tree, score, leaves, breadth=1) -> list[str]:
    return [
        leaf.label for leaf in (await search(tree, score, leaves=leaves, breadth=breadth)).leaves
    ]


async def test_leaves_of_every_depth_compete(lopsided):
    score = by_label(shallow=0.5, inner=0.9, middle=0.3, lower=0.8, left=0.4, right=0.7)
    assert await labels(lopsided, score, 9) == ["right", "shallow", "left", "middle"]
    assert await labels(lopsided, score, 2) == ["right", "shallow"]
    assert await labels(lopsided, score, 1) == ["right"]


async def test_what_was_looked_at_is_told(lopsided):
    found = await search(lopsided, by_label(), leaves=9, breadth=1)
    assert (found.offered, found.levels) == (6, 3)


async def test_every_level_is_one_call_that_holds_the_whole_frontier(large):
    sizes = []

    async def score(level: Level) -> FloatArray:
        sizes.append((len(level.parents), len(level.options)))
        assert level.options == [c for p in level.parents for c in large.children(p)]
        return np.zeros((len(level.options), 1), np.float32)

    found = await search(large, score, leaves=3, breadth=5)
    assert len(sizes) == found.levels <= large.root.height
    assert sizes[0] == (1, len(large.root.children))
    assert all(parents <= 5 for parents, _ in sizes)
    assert found.offered == sum(options for _, options in sizes)


async def test_each_interest_keeps_a_place(lopsided):
    score = by_label(
        shallow=(0.9, 0.0), middle=(0.8, 0.0), left=(0.7, 0.0), right=(0.0, 0.1),
        inner=(0.5, 0.5), lower=(0.5, 0.5),
    )  # fmt: skip
    assert set(await labels(lopsided, score, 3)) == {"shallow", "middle", "left"}
    scores = np.array([[1 - n / 100, 0.0] for n in range(20)] + [[0.0, 0.3]], np.float32)
    kept = beam(scores, 8)
    assert kept == [0, 1, 2, 3, 4, 5, 6, 20], "a quarter of the beam goes to the interests in turn"


@pytest.mark.parametrize("options", [0, 1, 5, 40])
@pytest.mark.parametrize("interests", [1, 2, 5])
@pytest.mark.parametrize("width", [1, 4, 16])
def test_a_beam_keeps_the_best_and_never_one_twice(options, interests, width):
    scores = np.random.default_rng(options).random((options, interests), np.float32)
    kept = beam(scores, width)
    assert len(set(kept)) == len(kept) == min(width, options)
    best = scores.max(axis=1) if options else scores
    assert kept == sorted(kept, key=lambda at: -best[at])
    if options:
        assert kept[0] == best.argmax()


async def test_an_empty_tree_offers_nothing():
    found = await search(SemanticTree.empty(SPACE), by_label(), leaves=3, breadth=3)
    assert (found.leaves, found.offered, found.levels) == ([], 0, 0)
    assert len(rows_below(found.leaves)) == 0


async def test_a_tree_of_one_leaf_needs_no_score():
    empty = SemanticTree.empty(SPACE)
    one = np.ones((1, DIMENSIONS), np.int8)
    tree = empty.apply(plan(empty, [Item(id="x", title="x")], one))
    found = await search(tree, by_label(), leaves=3, breadth=3)
    assert (found.leaves, found.offered) == ([tree.root], 0)
    assert [tree.rows.id(row) for row in rows_below(found.leaves)] == ["x"]


async def test_a_wider_beam_finds_more_of_what_a_full_scan_finds(large):
    recalls = []
    for width in (1, 4, 16, 1_000):
        hits = []
        for row in range(0, 2_000, 67):
            query = large.rows.vectors[row : row + 1]
            scorer = SimilarityScorer(query, np.ones(1, np.float32), np.zeros(1, np.int64))
            exact = np.where(large.allowed(0.0), scan(large, [scorer])[0], -np.inf)
            best = set(np.argsort(-exact, kind="stable")[:20].tolist())
            found = await search(large, scorer, leaves=width, breadth=width)
            hits.append(len(best & set(rows_below(found.leaves).tolist())) / len(best))
        recalls.append(np.mean(hits))
    assert recalls == sorted(recalls)
    assert recalls[0] < recalls[2]
    assert recalls[3] == 1.0


async def test_the_leaf_of_an_item_comes_first_for_its_own_vector(large):
    for item_id in map(str, range(0, 2_000, 101)):
        leaf = large.leaf_of(item_id)
        own = large.centroids_of(leaf)[:1]
        scorer = SimilarityScorer(own, np.ones(1, np.float32), np.zeros(1, np.int64))
        found = await search(large, scorer, leaves=5, breadth=1_000)
        assert found.leaves[0].id == leaf.id


def test_scores_of_some_rows_are_those_of_all(large):
    directions = large.rows.vectors[[3, 77, 500]]
    weights = np.array([0.5, 0.3, 0.2], np.float32)
    scorer = SimilarityScorer(directions, weights, np.array([0, 0, 1]))
    everything = scan(large, [scorer])[0]
    some = np.array([9, 3, 1_500], np.int32)
    assert np.array_equal(scores_of(large, scorer, some), everything[some])
    assert everything.shape == (large.size,)
    assert everything.argmax() in (3, 77, 500)


async def test_the_embedded_scorer_has_a_column_for_all_and_one_per_interest(large):
    directions = large.rows.vectors[[3, 77]]
    scorer = SimilarityScorer(directions, np.array([0.5, 0.5], np.float32), np.array([0, 1]))
    level = Level(large, [large.root])
    scores = await scorer(level)
    assert scores.shape == (len(level.options), 3)
    assert np.isfinite(scores).all()


def test_blend_is_a_soft_maximum():
    similarity = np.array([[0.9, 0.0], [0.45, 0.45], [0.9, 0.9], [-1.0, -1.0]], np.float32)
    weights = np.array([0.5, 0.5], np.float32)
    one, both_halfway, both, neither = blend(similarity.copy(), weights, 8.0)
    assert both > one > both_halfway > neither
    assert both == pytest.approx(0.9, abs=1e-5)
    assert neither == pytest.approx(-1.0, abs=1e-5)
    expected = np.log(np.exp(8 * similarity.astype(np.float64)) @ weights) / 8
    assert blend(similarity.copy(), weights, 8.0) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("width", [1, 2, 7, 20, 64, 150, 10_000])
def test_a_cut_holds_every_item_once(large, width):
    nodes = cut(large, width)
    held = sorted(item for node in nodes for item in items_below(large, node))
    assert held == sorted(map(str, range(2_000)))
    fits = len(large.root.children) <= width
    assert len(nodes) <= width if fits else nodes == [large.root]
    assert len({node.id for node in nodes}) == len(nodes)


@pytest.mark.parametrize("width", [1, 64, 150])
def test_a_cut_is_the_same_for_every_reader(large, width):
    assert [node.id for node in cut(large, width)] == [node.id for node in cut(large, width)]


@pytest.mark.parametrize("width", [20, 64, 150])
def test_a_cut_has_no_room_left_for_its_largest_node(large, width):
    nodes = cut(large, width)
    largest = max((node for node in nodes if not node.is_leaf), key=lambda node: node.count)
    assert len(nodes) - 1 + len(largest.children) > width
    assert len(nodes) >= width - 10, "a node has at most ten children"


def test_a_cut_wide_enough_is_all_leaves(large, lopsided):
    assert all(node.is_leaf for node in cut(large, 10_000))
    assert sorted(node.label for node in cut(lopsided, 4)) == ["left", "middle", "right", "shallow"]


def test_a_cut_gives_way_to_children_from_the_top(lopsided):
    assert [node.label for node in cut(lopsided, 1)] == ["root"]
    assert [node.label for node in cut(lopsided, 2)] == ["shallow", "inner"]
    assert sorted(node.label for node in cut(lopsided, 3)) == ["lower", "middle", "shallow"]


@pytest.mark.parametrize("width", [1, 64])
def test_a_cut_of_one_leaf_is_that_leaf(width):
    empty = SemanticTree.empty(SPACE)
    one = empty.apply(plan(empty, [Item(id="x", title="x")], np.ones((1, DIMENSIONS), np.int8)))
    assert cut(empty, width) == [empty.root]
    assert cut(one, width) == [one.root]


def items_below(tree: SemanticTree, node: Node) -> list[str]:
    if node.is_leaf:
        return [tree.rows.id(row) for row in node.rows]
    return [item for child in tree.children(node) for item in items_below(tree, child)]

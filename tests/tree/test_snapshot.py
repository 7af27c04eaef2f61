"""What `apply` refuses, and that a refused batch changes nothing."""

import numpy as np
import pytest

from tree.edits import DropItem, Edit, NodeSpec, PutItem, Relabel, Reshape
from tree.errors import InvalidEdit, UnknownNode
from tree.inspect import violations
from tree.node import ROOT, Space, TreeSettings
from tree.rows import Columns
from tree.snapshot import SemanticTree
from tree.vectors import DIMENSIONS

SPACE = Space("lexical", "lexical-unfitted")
SETTINGS = TreeSettings(leaf_capacity=4, fan_out=4)


def put(item_id: str, leaf: int, value: int = 1) -> PutItem:
    return PutItem(item_id, leaf, np.full(DIMENSIONS, value, np.int8).tobytes(), popularity=value)


def columns(ids: list[str]) -> Columns:
    vectors = np.random.default_rng(0).integers(-127, 128, (len(ids), DIMENSIONS), np.int8)
    none = np.zeros(len(ids))
    return Columns(ids, vectors, none.astype(np.float32), none + np.inf, none > 0, [""] * len(ids))


@pytest.fixture
def tree() -> SemanticTree:
    """Two leaves under node 1 and one beside it: 0 → (1 → (3: a b, 4: c d), 2: e f)."""
    specs = [
        NodeSpec(ROOT, "All", children=(1, 2)),
        NodeSpec(1, "One", children=(3, 4)),
        NodeSpec(3, "Three"),
        NodeSpec(4, "Four"),
        NodeSpec(2, "Two"),
    ]
    return SemanticTree.assemble(
        specs, columns(list("abcdef")), [2, 2, 2],
        version=5, settings=SETTINGS, space=SPACE, next_node=5,
    )  # fmt: skip


def content(tree: SemanticTree) -> dict[str, tuple[int, float]]:
    leaves = {item: leaf.id for leaf in tree.leaves() for item in tree.item_ids(leaf.id)}
    return {
        item: (leaf, float(tree.rows.popularity[tree.row(item)])) for item, leaf in leaves.items()
    }


REFUSED: dict[str, list[Edit]] = {
    "an unknown leaf": [put("x", 99)],
    "a leaf beyond any number": [put("x", 2**40)],
    "an inner node as a leaf": [put("x", 1)],
    "a vector of another size": [PutItem("x", 3, b"short")],
    "an over-full leaf": [put(f"x{n}", 3) for n in range(4)],
    "an empty leaf": [DropItem("c"), DropItem("d")],
    "a label for nobody": [Relabel(99, "Ghost", "")],
    "items from nowhere": [Reshape((), (NodeSpec(3, "Three", items=("a", "b", "x")),))],
    "an item lost": [Reshape((), (NodeSpec(3, "Three", items=("a",)),))],
    "an item twice in one leaf": [Reshape((), (NodeSpec(3, "Three", items=("c", "c", "d")),))],
    "an item in two leaves": [
        Reshape((), (NodeSpec(3, "", items=("c",)), NodeSpec(4, "", items=("c", "d"))))
    ],
    "a dropped leaf with items": [Reshape((3,), (NodeSpec(1, "One", children=(4, 2)),))],
    "a dropped root": [Reshape((ROOT,), ())],
    "a drop of nobody": [Reshape((99,), ())],
    "one child": [Reshape((), (NodeSpec(1, "One", children=(3,)),))],
    "too many children": [
        Reshape((), tuple(NodeSpec(n, "", items=(i,)) for n, i in ((5, "b"), (6, "c"), (7, "d")))),
        Reshape((1, 3, 4), (NodeSpec(ROOT, "All", children=(2, 5, 6, 7, 8)),)),
    ],
    "a child that is not there": [Reshape((), (NodeSpec(1, "One", children=(3, 99)),))],
    "a child twice": [Reshape((), (NodeSpec(1, "One", children=(3, 3)),))],
    "a child of two parents": [Reshape((), (NodeSpec(ROOT, "All", children=(1, 2, 3)),))],
    "a child taken from another": [
        Reshape((), (NodeSpec(5, "Five", children=(3, 2)), NodeSpec(ROOT, "All", children=(1, 5))))
    ],
    "a branch cut off": [Reshape((), (NodeSpec(1, "One", items=("a", "b", "c", "d")),))],
    "a branch dropped with its leaves left": [
        Reshape((1,), (NodeSpec(ROOT, "All", children=(3, 2)),))
    ],
    "a root below the root": [Reshape((), (NodeSpec(1, "One", children=(ROOT, 3)),))],
    "a circle": [
        Reshape((), (NodeSpec(5, "", children=(6, 3)), NodeSpec(6, "", children=(5, 4))))
    ],
    "an inner node with items": [
        Reshape((), (NodeSpec(1, "One", children=(3, 4), items=("e",)),))
    ],
    "a node that hangs from nothing": [
        Reshape((), (NodeSpec(3, "", items=("a",)), NodeSpec(5, "", items=("b",))))
    ],
}  # fmt: skip


def test_what_arrives_is_counted_and_stays_counted_when_it_goes(tree):
    after = tree.apply([put("g", 2), put("a", 3), put("g", 2)]).apply([DropItem("g")])
    again = after.apply([put("g", 2), put("h", 2)])
    assert (tree.arrived, after.arrived, again.arrived) == (0, 1, 3)
    assert again.at_version(9).arrived == 3


@pytest.mark.parametrize("edits", REFUSED.values(), ids=REFUSED)
def test_a_refused_batch_changes_nothing(tree, edits):
    before, size = content(tree), tree.rows.size
    good = [put("g", 2), DropItem("a")]
    with pytest.raises(InvalidEdit):
        tree.apply([*good, *edits])
    assert content(tree) == before
    assert tree.rows.size == size
    assert violations(tree) == []
    after = tree.apply(good)
    assert violations(after) == []
    assert content(after).keys() == before.keys() - {"a"} | {"g"}
    assert content(tree) == before


def test_a_batch_may_pass_through_what_it_must_not_end_in(tree):
    edits = [
        *(put(f"x{n}", 2) for n in range(4)),
        DropItem("x0"),
        put("x1", 3, value=7),
        DropItem("x2"),
        DropItem("nobody"),
    ]
    after = tree.apply(edits)
    assert violations(after) == []
    assert content(after)["x1"] == (3, 7)
    assert set(after.item_ids(2)) == {"e", "f", "x3"}


def test_dropped_and_put_again_in_one_batch(tree):
    after = tree.apply([DropItem("a"), put("a", 4, value=9)])
    assert violations(after) == []
    assert content(after)["a"] == (4, 9)
    assert content(tree)["a"] == (3, 0)


def test_a_reshape_moves_what_the_same_batch_put(tree):
    split = Reshape(
        (3,),
        (
            NodeSpec(1, "One", children=(5, 6, 4)),
            NodeSpec(5, "Five", items=("a", "x", "y")),
            NodeSpec(6, "Six", items=("b", "z")),
        ),
    )
    after = tree.apply([put("x", 3), put("y", 3), put("z", 3), split])
    assert violations(after) == []
    assert {item: leaf for item, (leaf, _) in content(after).items() if leaf in (5, 6)} == {
        "a": 5, "x": 5, "y": 5, "b": 6, "z": 6,
    }  # fmt: skip
    assert after.next_node == 7
    with pytest.raises(UnknownNode):
        after.node(3)
    assert tree.node(3).count == 2


def test_an_abandoned_version_was_never_there(tree):
    before = content(tree)
    tree.prepare([put("x", 2), DropItem("a")]).abandon()
    assert content(tree) == before
    after = tree.apply([put("y", 2)])
    assert content(after).keys() == before.keys() | {"y"}
    assert after.version == tree.version + 1


def test_parts_make_the_same_tree(tree):
    tree = tree.apply([put("x", 2, value=3), DropItem("a")])
    specs, columns, sizes, centroids = tree.parts()
    copy = SemanticTree.assemble(
        specs, columns, sizes, version=tree.version, settings=SETTINGS, space=SPACE,
        next_node=tree.next_node, leaf_centroids=centroids,
    )  # fmt: skip
    assert violations(copy) == []
    assert content(copy) == content(tree)
    assert [copy.spec(node) for node in copy.walk()] == [tree.spec(node) for node in tree.walk()]


def test_rows_of_the_dead_are_left_behind(tree):
    """Ten thousand updates of six items do not hold ten thousand rows."""
    start = tree
    for value in range(100):
        tree = tree.apply([put("e", 2, value=value % 100 + n % 27) for n in range(100)])
    assert violations(tree) == []
    assert content(tree).keys() == content(start).keys()
    assert tree.rows.size < 6_000
    assert content(start)["e"] == (2, 0)


@pytest.mark.parametrize(
    ("specs", "sizes"),
    [
        ([NodeSpec(ROOT, "All")], [5]),
        ([NodeSpec(ROOT, "All", children=(1, 2)), NodeSpec(1, ""), NodeSpec(2, "")], [6]),
        ([NodeSpec(ROOT, "All", children=(1, 9)), NodeSpec(1, "")], [6]),
        ([NodeSpec(1, "No root")], [6]),
        ([NodeSpec(ROOT, "All", children=(1,)), NodeSpec(1, ""), NodeSpec(2, "")], [3, 3]),
    ],
    ids=["rows left over", "a size missing", "a child missing", "no root", "a leaf cut off"],
)
def test_assemble_refuses_what_is_not_one_tree(specs, sizes):
    with pytest.raises(InvalidEdit):
        SemanticTree.assemble(
            specs, columns(list("abcdef")), sizes,
            version=1, settings=SETTINGS, space=SPACE, next_node=9,
        )  # fmt: skip


def test_allowed_leaves_out_hidden_and_expired(tree):
    hidden = PutItem("x", 2, bytes(DIMENSIONS), hidden=True)
    brief = PutItem("y", 2, bytes(DIMENSIONS), expires_at=100.0)
    after = tree.apply([hidden, brief, DropItem("a")])
    ids = {after.rows.id(row) for row in np.flatnonzero(after.allowed(99.0))}
    assert ids == {"b", "c", "d", "e", "f", "y"}
    ids = {after.rows.id(row) for row in np.flatnonzero(after.allowed(100.0))}
    assert ids == {"b", "c", "d", "e", "f"}
    assert len(after) == 7

"""Checked, counted, drawn, exported; and that `violations` sees what is wrong."""

import json
from dataclasses import replace
from typing import Any
from xml.etree import ElementTree

import networkx as nx
import numpy as np
import pytest

from tree.edits import DropItem, NodeSpec, Relabel, Reshape
from tree.errors import UnknownNode
from tree.inspect import (
    Outline,
    as_graph,
    digest,
    graphml,
    node_link,
    outline,
    statistics,
    violations,
)
from tree.node import ROOT, Space, TreeSettings
from tree.rows import Columns
from tree.snapshot import SemanticTree
from tree.vectors import DIMENSIONS

SPACE = Space("lexical", "lexical-unfitted")


@pytest.fixture
def tree() -> SemanticTree:
    """0 → (1 "Games" → (3: a b c, 4: d), 2 "Odd": e f)."""
    specs = [
        NodeSpec(ROOT, "All items", children=(1, 2)),
        NodeSpec(1, "Games", "to play", ("", "games"), children=(3, 4)),
        NodeSpec(3, "Kart"),
        NodeSpec(4, "Chess"),
        NodeSpec(2, 'Odd \x01\ufffe <&"> \U0001f600'),
    ]
    vectors = np.random.default_rng(0).integers(-127, 128, (6, DIMENSIONS)).astype(np.int8)
    none = np.zeros(6)
    columns = Columns(
        list("abcdef"), vectors, none.astype(np.float32), none + np.inf, none > 0, [""] * 6
    )
    return SemanticTree.assemble(
        specs, columns, [3, 1, 2],
        version=4, settings=TreeSettings(5, 4), space=SPACE, next_node=5,
    )  # fmt: skip


def test_a_graph_of_the_nodes(tree):
    graph = as_graph(tree)
    assert nx.is_arborescence(graph)
    assert list(graph.edges) == [(0, 1), (0, 2), (1, 3), (1, 4)]
    assert graph.nodes[3] == {
        "label": "Kart", "signpost": "", "count": 3, "height": 0, "leaf": True,
        "path": "Games › Kart",
    }  # fmt: skip
    assert graph.nodes[1]["signpost"] == "to play"
    assert graph.graph["version"] == 4


@pytest.mark.parametrize(
    ("top", "depth", "nodes"),
    [(0, 0, {0}), (0, 1, {0, 1, 2}), (0, 9, {0, 1, 2, 3, 4}), (1, None, {1, 3, 4}), (2, None, {2})],
)
def test_a_graph_of_a_part(tree, top, depth, nodes):
    assert set(as_graph(tree, top, depth)) == nodes
    assert {node["id"] for node in node_link(tree, top, depth)["nodes"]} == nodes


def test_the_exports_read_back(tree):
    linked = json.loads(json.dumps(node_link(tree)))
    assert nx.utils.graphs_equal(nx.node_link_graph(linked, edges="edges"), as_graph(tree))
    document = graphml(tree)
    ElementTree.fromstring(document)
    back = nx.parse_graphml(document, node_type=int)
    assert set(back.edges) == set(as_graph(tree).edges)
    assert back.nodes[3] == as_graph(tree).nodes[3]
    assert back.nodes[2]["label"] == 'Odd  <&"> \U0001f600'


def test_an_outline_of_the_top(tree):
    odd = 'Odd \x01\ufffe <&"> \U0001f600'
    assert outline(tree, depth=1) == Outline(
        0, "All items", "", 6, 2,
        (Outline(1, "Games", "to play", 4, 1), Outline(2, odd, "", 2, 0)),
    )  # fmt: skip
    assert outline(tree, 1) == Outline(
        1, "Games", "to play", 4, 1, (Outline(3, "Kart", "", 3, 0), Outline(4, "Chess", "", 1, 0))
    )


@pytest.mark.parametrize("view", [as_graph, node_link, graphml, outline])
def test_a_node_that_is_not_there(tree, view):
    with pytest.raises(UnknownNode):
        view(tree, 99)


def test_statistics(tree):
    found = statistics(tree)
    assert (found.items, found.leaves, found.inner_nodes) == (6, 3, 2)
    assert (found.depth, found.depth_limit, found.widest) == (2, 3, 2)
    assert (found.largest_leaf, found.smallest_leaf, found.mean_leaf) == (3, 1, 2.0)
    assert found.gini == pytest.approx(2 / 9)
    empty = statistics(SemanticTree.empty(SPACE))
    assert (empty.items, empty.leaves, empty.mean_leaf, empty.gini) == (0, 1, 0.0, 0.0)


def test_a_digest_is_of_the_content_alone(tree):
    same = digest(tree)
    assert digest(tree.at_version(7)) == same
    assert digest(tree.apply([Relabel(3, "Kart", "")])) == same


@pytest.mark.parametrize(
    "edit",
    [
        DropItem("a"),
        Relabel(3, "Karts", ""),
        Relabel(3, "Kart", "", locked=True),
        Reshape((), (NodeSpec(3, "Kart", items=("b", "a", "c")),)),
    ],
)
def test_a_digest_tells_trees_apart(tree, edit):
    assert digest(tree.apply([edit])) != digest(tree)


def test_a_digest_covers_the_vectors(tree):
    before = digest(tree)
    tree.rows.vectors[0, 0] += 1
    assert digest(tree) != before


def test_a_good_tree_has_no_violations(tree):
    assert violations(tree) == []
    assert violations(SemanticTree.empty(SPACE)) == []


def damaged(tree: SemanticTree, node_id: int, **fields: Any) -> SemanticTree:
    nodes = tree._nodes.insert(node_id, replace(tree.node(node_id), **fields))
    return SemanticTree(
        version=tree.version, settings=tree.settings, space=tree.space, nodes=nodes,
        rows=tree.rows, next_node=tree.next_node,
    )  # fmt: skip


FLAWS: dict[str, tuple[int, dict[str, object], str]] = {
    "a wrong count": (1, {"count": 5}, "counts 5 items of 4"),
    "a wrong height": (1, {"height": 2}, "says height 2"),
    "another parent": (3, {"parent": 2}, "hangs from 1 but names 2"),
    "a parent of the root": (0, {"parent": 1}, "the root has a parent"),
    "one child": (1, {"children": (3,), "count": 3}, "has 1 children"),
    "a child twice": (0, {"children": (1, 2, 2)}, "is reached twice"),
    "a child that is not there": (0, {"children": (1, 99)}, "a child is not there"),
    "a node out of reach": (0, {"children": (2, 3)}, "cannot be reached"),
    "an empty leaf": (4, {"rows": np.zeros(0, np.int32), "count": 0}, "is empty"),
    "rows of another": (4, {"rows": np.array([4], np.int32)}, "rows of another leaf"),
    "a row in two leaves": (4, {"rows": np.array([2], np.int32)}, "stand in two leaves"),
    "a row in no leaf": (3, {"rows": np.array([0, 1], np.int32), "count": 2}, "in no leaf"),
    "an over-full leaf": (4, {"rows": np.array([3] * 6), "count": 6}, "holds 6 items"),
    "another child_centroids": (
        1,
        {"child_centroids": np.ones((2, 2, DIMENSIONS), np.int8)},
        "not its children's",
    ),
    "another scale": (1, {"child_scale": np.ones((2, 2), np.float32)}, "not scaled"),
    "an id of the future": (0, {}, "the next one would be"),
    "a label only": (1, {"label": "Other"}, ""),
}


@pytest.mark.parametrize(("node_id", "fields", "complaint"), FLAWS.values(), ids=FLAWS)
def test_every_flaw_is_seen(tree, node_id, fields, complaint):
    broken = damaged(tree, node_id, **fields)
    if complaint.startswith("the next one"):
        broken.next_node = 3
    found = violations(broken)
    assert bool(found) == bool(complaint)
    assert any(complaint in line for line in found) or not complaint


def test_a_tree_too_deep_is_seen(tree):
    chain = [NodeSpec(n, "", children=(n + 1, n + 10)) for n in range(5)]
    specs = [*chain, NodeSpec(5, ""), *(NodeSpec(n, "") for n in range(10, 15))]
    columns = tree.rows.columns(np.arange(6, dtype=np.int32))
    deep = SemanticTree.assemble(
        specs, columns, [1] * 6, version=1, settings=TreeSettings(), space=SPACE, next_node=15
    )
    assert violations(deep) == ["5 levels, 2 are allowed"]

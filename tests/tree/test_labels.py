"""Names that tell siblings apart, and never change what an administrator chose."""

from datetime import UTC, datetime
from typing import Any

import numpy as np
import pytest

from tree.edits import NodeSpec, Relabel
from tree.inspect import violations
from tree.item import Item, normalise
from tree.labels import Labeller, TermRows, label_text, relabel
from tree.node import ROOT, Space, TreeSettings
from tree.place import plan
from tree.rows import Columns
from tree.snapshot import SemanticTree
from tree.vectors import DIMENSIONS

SPACE = Space("lexical", "lexical-unfitted")
ZELDA = [f"The Legend of Zelda: {name} - Nintendo DS" for name in ("Spirit", "Ocean", "Wind")]
KART = [f"Mario Kart {name} - Nintendo Wii" for name in ("Gold", "Silver", "Bronze")]
CHESS = [f"Chess Lessons for {name}" for name in ("Beginners", "Children", "Masters")]
TITLES = [*ZELDA, *KART, *CHESS]

SPECS = [
    NodeSpec(ROOT, "", children=(1, 2)),
    NodeSpec(1, "Consoles", key=("", "consoles"), children=(3, 4)),
    NodeSpec(3, ""),
    NodeSpec(4, ""),
    NodeSpec(2, ""),
]
MEMBERS = [np.arange(0, 3), np.arange(3, 6), np.arange(6, 9)]


def named(
    titles: list[str], specs: list[NodeSpec], members: list[np.ndarray]
) -> dict[int, NodeSpec]:
    labeller = Labeller(titles)
    found = labeller.label(specs, members, labeller.count(titles), titles.__getitem__)
    assert [spec.id for spec in found] == [spec.id for spec in specs]
    return {spec.id: spec for spec in found}


def test_a_cluster_is_named_by_what_its_siblings_have_not():
    nodes = named(TITLES, SPECS, MEMBERS)
    assert nodes[ROOT].label == "All items"
    assert "Legend of Zelda" in nodes[3].label
    assert "Mario Kart" in nodes[4].label
    assert "Chess Lessons" in nodes[2].label
    assert "Nintendo" not in nodes[3].label.replace("Nintendo DS", "")


def test_a_category_keeps_its_name_and_gets_a_signpost():
    node = named(TITLES, SPECS, MEMBERS)[1]
    assert (node.label, node.key) == ("Consoles", ("", "consoles"))
    terms, _, examples = node.signpost.partition(" — e.g. ")
    assert "Nintendo" in terms
    assert set(examples.split("; ")) <= {*ZELDA, *KART}


def test_the_order_of_the_leaves_is_that_of_the_members():
    shuffled = [*CHESS, *ZELDA, *KART]
    members = [np.arange(3, 6), np.arange(6, 9), np.arange(0, 3)]
    assert named(shuffled, SPECS, members) == named(TITLES, SPECS, MEMBERS)


@pytest.mark.parametrize(
    "titles",
    [
        ["same"] * 9,
        ["1", "2", "3"] * 3,
        ["!!!"] * 9,
        ["\U0001f600"] * 9,
        ["日本語のゲーム", "中国菜", "한국어"] * 3,
        ["שלום עולם", "مرحبا بالعالم", "hello"] * 3,
        ["<span id='x"] * 9,
        ["of the and"] * 9,
        ["x" * 1_000] * 9,
    ],
    ids=["same", "numbers", "signs", "emoji", "cjk", "rtl", "markup", "particles", "long"],
)
def test_siblings_never_share_a_name_and_none_is_empty(titles):
    specs = [NodeSpec(ROOT, "", children=tuple(range(1, 10)))]
    specs += [NodeSpec(node, "") for node in range(1, 10)]
    nodes = named(titles, specs, [np.array([row]) for row in range(9)])
    labels = [nodes[node].label for node in range(1, 10)]
    assert all(label.strip() for label in labels)
    assert len({normalise(label) for label in labels}) == 9


def test_a_build_leaves_a_chosen_name_and_its_line_alone():
    specs = [*SPECS[:4], NodeSpec(2, "Chosen", "by hand", locked=True)]
    assert named(TITLES, specs, MEMBERS)[2] == specs[4]


def test_nothing_is_still_the_root():
    nodes = named([], [NodeSpec(ROOT, "")], [np.zeros(0, np.int64)])
    assert nodes[ROOT].label == "All items"


def test_a_cluster_gives_way_to_a_category_of_the_same_name():
    specs = [NodeSpec(ROOT, "", children=(1, 2)), NodeSpec(1, ""), NodeSpec(2, "chess")]
    nodes = named(["Chess"] * 2 + ["Go"] * 2, specs, [np.arange(2), np.arange(2, 4)])
    assert nodes[2].label == "chess"
    assert normalise(nodes[1].label) != "chess"


def test_a_long_title_keeps_both_ends():
    start, end = "A long series of books that go on and on and on for ever", "volume seven"
    specs = [NodeSpec(ROOT, "", children=(1, 2)), NodeSpec(1, ""), NodeSpec(2, "")]
    nodes = named([f"{start} {end}", "Other"], specs, [np.array([0]), np.array([1])])
    example = nodes[1].signpost.split("e.g. ")[-1]
    assert example.startswith("A long series")
    assert example.endswith("volume seven")
    assert len(example) <= 63


def test_markup_in_titles_is_no_name():
    item = Item(id="x", title='Blue <span class="a-size">Train</span> <i', keywords=("jazz",))
    assert label_text(item) == "Blue Train | jazz"


def test_words_of_two_fields_are_no_pair():
    items = [Item(id="x", title="Deep Blue", categories=("Sea Shanties",))] * 4
    labeller = Labeller([label_text(item) for item in items])
    assert len(labeller.count(["Blue Sea"]).terms) == 2
    assert len(labeller.count(["Deep Blue"]).terms) == 3


def test_rows_in_batches_are_rows_at_once():
    labeller = Labeller(TITLES)
    whole = labeller.count(TITLES)
    parts = TermRows.joined([labeller.count(TITLES[at : at + 2]) for at in range(0, 9, 2)])
    assert np.array_equal(parts.terms, whole.terms)
    assert np.array_equal(parts.ends, whole.ends)
    order = np.array([8, 0, 0, 5])
    taken = whole.take(order)
    for at, row in enumerate(order):
        one, other = taken.span(at, at + 1), whole.span(int(row), int(row) + 1)
        assert np.array_equal(one.terms, other.terms)
    assert len(TermRows.joined([]).ends) == 0
    assert len(whole.take(np.zeros(0, np.int64)).terms) == 0


# -- a few nodes of a tree that changed


def assembled(
    specs: list[NodeSpec], titles: list[list[str]]
) -> tuple[SemanticTree, dict[str, Item]]:
    flat = [title for group in titles for title in group]
    items = [Item(id=f"item {number}", title=title) for number, title in enumerate(flat)]
    vectors = np.random.default_rng(0).integers(-127, 128, (len(flat), DIMENSIONS), np.int8)
    none = np.zeros(len(flat))
    columns = Columns(
        [item.id for item in items], vectors, none.astype(np.float32), none + np.inf, none > 0,
        [""] * len(flat),
    )  # fmt: skip
    tree = SemanticTree.assemble(
        specs, columns, list(map(len, titles)),
        version=1, settings=TreeSettings(4, 4), space=SPACE, next_node=20,
    )  # fmt: skip
    return tree, {item.id: item for item in items}


def halves(**fields: Any) -> list[NodeSpec]:
    """Two halves of a split leaf, with one name still, beside a third leaf."""
    return [
        NodeSpec(ROOT, "All items", children=(1, 2, 3)),
        NodeSpec(1, "Games", **fields),
        NodeSpec(2, "Games", **fields),
        NodeSpec(3, "Chess"),
    ]


def test_the_halves_of_a_leaf_get_names_of_their_own():
    tree, items = assembled(halves(), [ZELDA, KART, CHESS])
    after = tree.apply(relabel(tree, [1, 2], items))
    assert "Legend of Zelda" in after.node(1).label
    assert "Mario Kart" in after.node(2).label
    assert after.node(3).label == "Chess"
    assert after.node(1).signpost
    assert relabel(after, [1, 2], items) == []
    assert violations(after) == []


def test_the_halves_of_a_category_are_told_apart_too():
    tree, items = assembled(halves(key=("", "games")), [ZELDA, KART, CHESS])
    after = tree.apply(relabel(tree, [1, 2], items))
    assert len({normalise(node.label) for node in after.children(after.root)}) == 3


def test_a_category_of_its_own_keeps_its_name():
    specs = halves()
    specs[2] = NodeSpec(2, "Karts", key=("", "karts"))
    tree, items = assembled(specs, [ZELDA, KART, CHESS])
    edits = {edit.node: edit for edit in relabel(tree, [1, 2], items)}
    assert edits[2].label == "Karts"
    assert edits[2].signpost


def test_a_chosen_label_stays():
    tree, items = assembled(halves(locked=True), [ZELDA, KART, CHESS])
    assert relabel(tree, [1, 2, ROOT], items) == []


def test_items_that_are_gone_meanwhile_do_no_harm():
    tree, items = assembled(halves(), [ZELDA, KART, CHESS])
    kept = {item_id: item for item_id, item in items.items() if item.title in ZELDA}
    assert len(relabel(tree, [1, 2], kept)) == 2
    assert len({edit.label for edit in relabel(tree, [1, 2], {})}) == 2


def test_titles_that_may_not_be_shown_are_no_examples():
    tree, items = assembled(halves(), [ZELDA, KART, CHESS])
    secret = {item.id for item in items.values() if item.title == ZELDA[0]}
    for gone in ({"hidden": True}, {"expires_at": datetime(2020, 1, 1, tzinfo=UTC)}):
        known = {name: one.model_copy(update=gone if name in secret else {})
                 for name, one in items.items()}  # fmt: skip
        signposts = {edit.node: edit.signpost for edit in relabel(tree, [1, 2], known)}
        examples = signposts[1].rpartition(" — e.g. ")[2].split("; ")
        assert set(examples) == {*ZELDA[1:]}


def test_an_inner_node_is_named_by_its_children():
    specs = [
        NodeSpec(ROOT, "All items", children=(1, 2)),
        NodeSpec(1, "All items", children=(3, 4)),
        NodeSpec(3, "Zelda, DS"),
        NodeSpec(4, "Kart"),
        NodeSpec(2, "All items", children=(5, 6)),
        NodeSpec(5, "Chess"),
        NodeSpec(6, "Go"),
    ]
    tree, items = assembled(specs, [ZELDA, KART, CHESS, ["Go"]])
    edits = relabel(tree, [1, 2], items)
    assert [(edit.node, edit.label) for edit in edits] == [(1, "Zelda, Kart"), (2, "Chess, Go")]


def test_names_after_real_splits():
    empty = SemanticTree.empty(SPACE, TreeSettings(4, 4))
    rng = np.random.default_rng(0)
    titles = [f"{title} {n}" for n in range(8) for title in TITLES]
    items = [Item(id=str(n), title=title) for n, title in enumerate(titles)]
    vectors = rng.integers(-127, 128, (len(items), DIMENSIONS)).astype(np.int8)
    tree, known = empty, {item.id: item for item in items}
    for start in range(0, len(items), 6):
        batch = slice(start, start + 6)
        edits = plan(tree, items[batch], vectors[batch])
        changed = {spec.id for edit in edits for spec in getattr(edit, "put", ())}
        tree = tree.apply(edits)
        tree = tree.apply(relabel(tree, sorted(changed), known))
    assert violations(tree) == []
    for node in tree.walk():
        labels = [normalise(child.label) for child in tree.children(node)]
        assert all(labels)
        assert len(set(labels)) == len(labels)


def test_the_edits_are_relabels_of_the_nodes_asked_for():
    tree, items = assembled(halves(), [ZELDA, KART, CHESS])
    edits = relabel(tree, [2, 2], items)
    assert [type(edit) for edit in edits] == [Relabel]
    assert edits[0].node == 2

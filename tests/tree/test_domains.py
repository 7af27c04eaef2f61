"""How many domains a tree may have."""

import pytest
from msgspec.structs import replace

from tree.domains import Domains
from tree.edits import DropItem, NodeSpec, PutItem, Reshape
from tree.errors import TooManyDomains
from tree.node import ROOT, Space, TreeSettings
from tree.snapshot import MOST_DOMAINS, SemanticTree
from tree.vectors import DIMENSIONS

VECTOR = bytes([1]) * DIMENSIONS
LEAVES = 20


def puts(start: int, stop: int) -> list[PutItem]:
    """Spread over the leaves: the centroids of a single one would take seconds."""
    return [
        PutItem(f"i{n}", 1 + n % LEAVES, VECTOR, domain=f"domain {n}") for n in range(start, stop)
    ]


def drops(start: int, stop: int) -> list[DropItem]:
    return [DropItem(f"i{n}") for n in range(start, stop)]


def tree_of(items: int) -> SemanticTree:
    leaves = range(1, 1 + LEAVES)
    specs = [
        NodeSpec(ROOT, "All", children=tuple(leaves)),
        *(NodeSpec(n, f"Leaf {n}", items=(f"i{n - 1}",)) for n in leaves),
    ]
    first = [replace(put, leaf=ROOT) for put in puts(0, LEAVES)]
    settings = TreeSettings(leaf_capacity=1_000, fan_out=LEAVES)
    tree = SemanticTree.empty(Space("none", "none"), settings)
    return tree.apply([*first, Reshape((), tuple(specs)), *puts(LEAVES, items)])


def test_a_tree_gets_no_more_domains_than_it_may_have():
    domains = Domains(tree_of(MOST_DOMAINS - 2))
    for name in ("new", "newer", "new", "domain 7"):
        domains.check(name)
    with pytest.raises(TooManyDomains, match="10,000 domains"):
        domains.check("newest")
    domains.check("newer")
    domains.check("domain 8")


def test_what_a_tree_has_beyond_the_bound_stays():
    domains = Domains(tree_of(MOST_DOMAINS + 5))
    domains.check(f"domain {MOST_DOMAINS + 4}")
    with pytest.raises(TooManyDomains):
        domains.check("new")


def test_a_domain_without_items_makes_room():
    tree = tree_of(MOST_DOMAINS).apply(drops(0, 1))
    Domains(tree).check("new")
    full = tree.apply([PutItem("other", 1, VECTOR, domain="new")])
    with pytest.raises(TooManyDomains):
        Domains(full).check("domain 0")


def test_names_without_items_do_not_pile_up():
    tree = tree_of(20)
    for start in range(0, 3 * MOST_DOMAINS, 500):
        fresh = puts(start, start + 500)
        items = [replace(edit, id=f"i{n % 20}") for n, edit in enumerate(fresh)]
        tree = tree.apply(items)
        assert len(tree.rows.domains) <= 2 * MOST_DOMAINS + 500
    assert len(tree.domains()) == 20

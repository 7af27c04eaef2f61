"""Catalogues of several shapes to build, and whether two trees are the same."""

from collections.abc import Callable

import numpy as np

from tests.arrays import equal
from tree.item import Item
from tree.snapshot import SemanticTree


def things(count: int, categories: Callable[[int], tuple[str, ...]]) -> list[Item]:
    rng = np.random.default_rng(5)
    words = [f"{a}{b}" for a in ("bor", "cal", "dim", "fen", "gul") for b in ("ta", "mo", "ri")]
    return [
        Item(
            id=f"i{n}",
            title=" ".join(words[w] for w in rng.integers(0, len(words), 4)),
            categories=categories(n),
            domain="shop",
            popularity=n % 9,
            hidden=n % 50 == 0,
        )
        for n in range(count)
    ]


CATALOGUES = {
    "no categories": things(900, lambda n: ()),
    "two levels": things(1_200, lambda n: (f"Field {n % 3}", f"theme {n % 40}")),
    "uneven": things(1_000, lambda n: (f"c{int(n**0.5)}",)),
    "one leaf": things(7, lambda n: ("c",)),
    "one item": things(1, lambda n: ()),
}


def same(one: SemanticTree, other: SemanticTree) -> bool:
    mine, theirs = one.parts(), other.parts()
    return (
        mine.specs == theirs.specs
        and mine.columns.ids == theirs.columns.ids
        and mine.columns.domains == theirs.columns.domains
        and np.array_equal(mine.columns.vectors, theirs.columns.vectors)
        and np.array_equal(mine.columns.popularity, theirs.columns.popularity)
        and np.array_equal(mine.columns.hidden, theirs.columns.hidden)
        and np.array_equal(mine.leaf_sizes, theirs.leaf_sizes)
        and equal(mine.leaf_centroids, theirs.leaf_centroids)
        and one.space == other.space
        and all(
            np.array_equal(a.child_centroids, b.child_centroids)
            for a, b in zip(one.walk(), other.walk(), strict=True)
        )
    )

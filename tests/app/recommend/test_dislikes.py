"""What is not wanted is left out, whatever the names of categories are made of."""

import random
import string
import time
from collections.abc import Sequence

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from app.embedders import LexicalEmbedder
from app.rank_weights import RankWeights
from app.recommend.dislikes import Dislikes
from app.recommend.request import RecommendRequest
from app.recommend.resolve import RequestVectors, resolve_request
from tree.edits import NodeSpec
from tree.node import ROOT, TreeSettings
from tree.rows import Columns
from tree.snapshot import SemanticTree
from tree.vectors import DIMENSIONS

_words = st.lists(st.sampled_from(["a", "b", "sci", "fi", "horror", "é"]), min_size=1, max_size=5)
_names = _words.map(" ".join)


def _tree(names: Sequence[tuple[str, Sequence[str]]]) -> SemanticTree:
    """Categories with some below them, of one item each, in that order. Names are normalised."""
    first, tops, below = 1 + len(names), list[int](), list[NodeSpec]()
    for at, (top, lower) in enumerate(names, 1):
        tops.append(at)
        ids = range(first, first + len(lower))
        below.append(NodeSpec(at, top, key=("", top), children=tuple(ids)))
        below += [
            NodeSpec(one, name, key=("", top, name)) for one, name in zip(ids, lower, strict=True)
        ]
        first = ids.stop
    count = sum(len(lower) for _, lower in names)
    none = np.zeros(count)
    return SemanticTree.assemble(
        [NodeSpec(ROOT, "", children=tuple(tops)), *below],
        Columns(
            [f"i{at}" for at in range(count)],
            np.ones((count, DIMENSIONS), np.int8),
            none.astype(np.float32),
            none + np.inf,
            none > 0,
            [""] * count,
        ),
        [1] * count,
        version=1,
        settings=TreeSettings(),
        space=LexicalEmbedder().space,
        next_node=first,
    )


def _runs(text: str) -> set[str]:
    words = text.split(" ")
    return {
        " ".join(words[start:stop])
        for start in range(len(words))
        for stop in range(start + 1, len(words) + 1)
    }


_lower = st.lists(_names, min_size=2, max_size=3)


@given(names=st.lists(st.tuples(_names, _lower), min_size=2, max_size=4), said=st.lists(_names))
@settings(deadline=None, max_examples=50)
async def test_categories_are_left_out_by_their_words(names, said):
    def unwanted(name: str) -> bool:
        return any(name in _runs(one) or one in _runs(name) for one in said)

    allowed = await Dislikes().allowed(_tree(names), said)
    wanted = [not unwanted(top) and not unwanted(one) for top, lower in names for one in lower]
    assert allowed.tolist() == wanted


async def test_the_names_of_another_version_are_others():
    dislikes = Dislikes()
    before, after = (_tree([("a", ["b", last]), ("c", ["d", "e"])]) for last in ("f", "b"))
    assert (await dislikes.allowed(before, ["b"])).tolist() == [False, True, True, True]
    assert (await dislikes.allowed(after, ["b"])).tolist() == [False, False, True, True]
    assert (await dislikes.allowed(before, ["b"])).tolist() == [False, True, True, True]


async def test_long_names_and_many_dislikes_take_no_time():
    rng, letters = random.Random(0), string.ascii_lowercase.replace("y", "")  # "y" is an "and"

    def name() -> str:
        return " ".join(rng.choices(letters, k=100))

    wish = ", ".join(f"no {' '.join(rng.sample(letters, 3))}" for _ in range(330))
    asked = RecommendRequest(instruction=wish, profile=wish)
    tree = _tree([(name(), [name() for _ in range(45)]) for _ in range(45)])
    began = time.process_time()
    need = resolve_request(tree, asked, RequestVectors(), RankWeights(), 10).need
    allowed = await Dislikes().allowed(tree, need.dislikes)
    assert time.process_time() - began < 0.5
    assert len(need.dislikes) == 50
    assert 1_000 < np.count_nonzero(allowed) < tree.size

"""A tilt changes the scores of the rows it is about, whichever way they are asked for."""

import numpy as np

from app.ranking import Tilt
from tree.rows import IntArray
from tree.snapshot import SemanticTree


def tilted(tilt: Tilt, tree: SemanticTree, rows: IntArray | slice) -> list[float]:
    count = tree.size if isinstance(rows, slice) else len(rows)
    scores = np.ones(count, np.float32)
    tilt.apply(tree, scores, rows)
    return scores.tolist()


def test_no_tilt_changes_nothing(demo_tree):
    assert set(tilted(Tilt(), demo_tree, slice(None))) == {1.0}
    assert set(tilted(Tilt(beside=0.5), demo_tree, slice(None))) == {1.0}


def test_what_stands_beside_a_chosen_item_loses(demo_tree):
    leaf = demo_tree.rows.leaf[7]
    tilt = Tilt(beside=0.25, leaves=np.array([leaf, leaf], np.int32))
    scores = tilted(tilt, demo_tree, slice(None))
    beside = demo_tree.rows.leaf[: demo_tree.size] == leaf
    assert 1 < beside.sum() < demo_tree.size
    assert scores == np.where(beside, 0.75, 1.0).tolist()
    rows = np.array([9, 7, 300], np.int32)
    assert tilted(tilt, demo_tree, rows) == [scores[row] for row in rows]

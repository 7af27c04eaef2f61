"""What the items that a user knows change in the scores of others, and in their own.

The rule for dislikes was chosen in December 2026 on one half of the users of films (a rating of at
most 2 is a dislike), without events: the share of disliked items among the first 20 fell from .0039
to .0028, and recall rose from .024 to .029. A penalty by the similarity to dislikes alone left
recall as it was: users like and dislike films of the same kind. `make bench ARGS=event_types` shows
the other half.
"""

import numpy as np

from app.ranking.need import Need
from tree.rows import IntArray
from tree.snapshot import SemanticTree
from tree.vectors import FloatArray, cosines

_MARGIN = 0.2  # of similarity: how much nearer to what is liked an item must be
_LOSS = 0.5  # of what is lacking


def lower(
    tree: SemanticTree,
    need: Need,
    inverse_temperature: float,
    scores: FloatArray,
    rows: IntArray,
) -> None:
    """Lower the scores of some rows, in place.

    An item loses score where it is not clearly more similar to the need than to a disliked item. An
    item of the history is ranked by the rest of it: it is most similar to itself.
    """
    if len(need.disliked) and len(rows):
        vectors, scale = tree.rows.vectors[rows], tree.rows.scale[rows]
        lacking = cosines(vectors, scale, need.disliked).max(axis=1) + np.float32(_MARGIN)
        if not need.is_empty:
            lacking -= cosines(vectors, scale, need.vectors).max(axis=1)
        scores -= np.float32(_LOSS) * np.maximum(lacking, 0)
    _without_themselves(tree, need, inverse_temperature, scores, rows)


def _without_themselves(
    tree: SemanticTree,
    need: Need,
    inverse_temperature: float,
    scores: FloatArray,
    rows: IntArray,
) -> None:
    own = np.array([-1 if one.row is None else one.row for one in need.directions], np.int64)
    places = np.flatnonzero(np.isin(rows, own[own >= 0]))
    if not len(places):
        return
    known = rows[places]
    shares = np.exp(
        np.float32(inverse_temperature)
        * cosines(tree.rows.vectors[known], tree.rows.scale[known], need.vectors)
    )
    shares *= need.weights
    is_own = known[:, None] == own
    others = np.where(is_own, np.float32(0), shares).sum(axis=1)
    weight = np.where(is_own, np.float32(0), need.weights).sum(axis=1)
    with_itself = np.log(shares.sum(axis=1)) / np.float32(inverse_temperature)
    alone = weight <= 0
    others[alone] = weight[alone] = 1  # nothing else speaks for it: a similarity of 0
    scores[places] -= with_itself - np.log(others / weight) / np.float32(inverse_temperature)

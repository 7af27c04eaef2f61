"""The fourth stage: every interest has its place, and diversity."""

import numpy as np
import numpy.typing as npt

from app.ranking import diversified
from app.ranking.fusion import FloatArray
from app.recommend.candidates import SPARE, Candidates, filled_up
from app.recommend.context import ModelContext, RequestContext
from app.recommend.recall import Recalled

_FOLDED = 4  # one item of so many repeats another one; measured on video games


def rerank(context: ModelContext, recalled: Recalled, best: Candidates) -> Candidates:
    """The best candidates, as many as wanted; missing ones come from `best`."""
    if not len(recalled.rows):
        return best
    order = np.argsort(-recalled.fused, kind="stable")
    order = every_interest(order, recalled.by_model, context.request.limit)
    ordered = [
        twin
        for row in recalled.rows[order].tolist()
        for twin in (row, *recalled.twins.get(row, ()))
    ]
    return filled_up(np.array(ordered, np.int32), best, context.wanted)


def every_interest(
    order: npt.NDArray[np.int64], judged: FloatArray, limit: int
) -> npt.NDArray[np.int64]:
    """The order with the best candidate of every interest among the first `limit`.

    Those that are not there by themselves come last among them, in place of the weakest.
    `judged` is float32[candidates, interests].
    """
    if judged.shape[1] > limit:
        return order
    wanted = list(dict.fromkeys(judged.argmax(axis=0).tolist()))
    first = order[:limit].tolist()
    for candidate in wanted:
        if candidate not in first and len(first) == limit:
            first.remove(next(at for at in reversed(first) if at not in wanted))
            first.append(candidate)
    rest = [at for at in order.tolist() if at not in set(first)]
    return np.array([*first, *rest], np.int64)


def spread(context: RequestContext, found: Candidates) -> list[int]:
    """Positions of all candidates in the order of the answer, with diversity at its top."""
    first = diversified(
        context.tree,
        found.rows,
        found.scores,
        context.weights.diversity,
        context.request.limit,
        spare=SPARE + context.request.limit // _FOLDED,
    )
    return list(dict.fromkeys([*first, *range(len(found.rows))]))

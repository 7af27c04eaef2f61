"""The fourth stage: a last slate of the best candidates, and diversity."""

import numpy as np
import numpy.typing as npt

from app.ranking import Question, diversified, reciprocal_rank
from app.ranking.fusion import FloatArray
from app.recommend.candidates import SPARE, Candidates, filled_up
from app.recommend.config import SlateConfig
from app.recommend.context import ModelContext, RequestContext
from app.recommend.profile import Profile
from app.recommend.prompt_lines import LINE_CHARS
from app.recommend.recall import WANTED_ITEMS, Recalled
from tree.beam_search import beam

_FOLDED = 4  # one item of so many repeats another one; measured on video games


async def rerank(
    context: ModelContext,
    config: SlateConfig,
    profile: Profile,
    recalled: Recalled,
    best: Candidates,
) -> Candidates:
    """The best candidates, as many as wanted: by the last slate, then by their scores before.

    Missing ones come from `best`, the embedded ranker's answer. If the model fails, the scores
    before decide. Raises ModelRejected.
    """
    if not len(recalled.rows):
        return best
    effort, fused = context.effort, recalled.fused
    if effort.final and len(recalled.rows) > effort.final:
        fused = await _with_last_slate(context, config, profile, recalled)
    order = np.argsort(-fused, kind="stable")
    order = every_interest(order, recalled.by_model, context.request.limit)
    ordered = [
        twin
        for row in recalled.rows[order].tolist()
        for twin in (row, *recalled.twins.get(row, ()))
    ]
    return filled_up(np.array(ordered, np.int32), best, context.wanted)


async def _with_last_slate(
    context: ModelContext, config: SlateConfig, profile: Profile, recalled: Recalled
) -> FloatArray:
    """float32[rows]: the scores after the last slate; its candidates come before the others."""
    effort, fused = context.effort, recalled.fused.copy()
    picked = _finalists(recalled, effort.final)
    question = Question(
        context.prompt("rerank"),
        [recalled.lines[row] for row in recalled.rows[picked].tolist()],
        fused[picked][:, None],
        profile.text(context.history),
        (),
        WANTED_ITEMS,
        context.seed,
        LINE_CHARS,
        config.anchors,
    )
    last = await context.model_ranker.score("rerank", question, effort.rerank_passes)
    passes = effort.rerank_passes + effort.recall_passes
    earlier = recalled.by_model.max(axis=1)[picked]
    mean = (last[:, 0] * effort.rerank_passes + earlier * effort.recall_passes) / passes
    shares = [context.model_weight, 1 - context.model_weight]
    fused[picked] = 1 + reciprocal_rank([mean, recalled.by_vectors[picked]], shares)
    return fused


def _finalists(recalled: Recalled, wanted: int) -> npt.NDArray[np.int64]:
    """Mostly the best; a quarter of the places are for the best of each interest."""
    judged, fused = recalled.by_model, recalled.fused
    scores = np.column_stack([fused, judged * (fused.max() / max(float(judged.max()), 1e-6))])
    return np.array(beam(scores, wanted), np.int64)


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
        context.diversity,
        context.request.limit,
        spare=SPARE + context.request.limit // _FOLDED,
    )
    return list(dict.fromkeys([*first, *range(len(found.rows))]))

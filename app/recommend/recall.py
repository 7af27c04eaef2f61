"""The third stage: candidates from all sources, fused by rank and scored by a model."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from app.ranking import Question, fused_by_rank, reciprocal_rank
from app.ranking.fusion import FloatArray
from app.recommend.candidates import CandidatePool
from app.recommend.config import SlateConfig
from app.recommend.context import ModelContext
from app.recommend.profile import Profile
from app.recommend.retrievers import Retriever
from prompts import LINE_CHARS
from tree.rows import IntArray
from tree.worker import together

_SPARE = 2  # times as many rows as a slate holds: some have the same line


@dataclass(frozen=True, slots=True)
class Recalled:
    """Candidates and their scores: by the model float32[rows, interests], else float32[rows].

    `twins` are the other candidates with the same line in prompts.
    """

    rows: IntArray
    twins: Mapping[int, Sequence[int]]
    by_model: FloatArray
    fused: FloatArray


async def recall(
    context: ModelContext,
    pool: CandidatePool,
    config: SlateConfig,
    profile: Profile,
    retrievers: Sequence[Retriever],
) -> Recalled:
    """The candidates of the retrievers, scored by the model in modest slates.

    If the model fails, their own ranks are the scores of the slate, and the ledger notes it. Raises
    ModelRejected, StoreUnavailable.
    """
    effort = context.effort
    wanted = _SPARE * effort.candidates
    found = await together(one.retrieve(context, wanted) for one in retrievers)
    rows = fused_by_rank(found, [one.weight for one in retrievers])
    lines = await pool.lines(context.tree, rows[:wanted].tolist())
    rows, twins = _with_distinct_lines(rows[:wanted], lines)
    rows = rows[: effort.candidates]
    by_rank = np.linspace(1, 0, len(rows), endpoint=False, dtype=np.float32)
    context.notify_candidates(len(rows))
    names = profile.interest_names()
    question = Question(
        context.prompt("recall"),
        [lines[row] for row in rows.tolist()],
        np.repeat(by_rank[:, None], max(1, len(names)), axis=1),
        profile.text(context.history),
        names,
        effort.wanted,
        context.seed,
        LINE_CHARS,
        config.anchors,
    )
    by_model = await context.model_ranker.score("recall", question)
    weight = context.model_weight
    fused = reciprocal_rank([by_model.max(axis=1), by_rank], [weight, 1 - weight])
    return Recalled(rows, twins, by_model, fused)


def _with_distinct_lines(
    rows: IntArray, lines: Mapping[int, str]
) -> tuple[IntArray, dict[int, list[int]]]:
    """The first row of each line, and the later ones by the first: they would waste the slates."""
    first: dict[str, int] = {}
    twins: dict[int, list[int]] = {}
    for row in rows.tolist():
        if row in lines:
            known = first.setdefault(lines[row], row)
            if known != row:
                twins.setdefault(known, []).append(row)
    return np.array(list(first.values()), np.int32), twins

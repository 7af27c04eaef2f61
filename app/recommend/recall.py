"""The third stage: candidates from all sources, scored by a model."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from app.ranking import Question, reciprocal_rank
from app.ranking.fusion import FloatArray
from app.recommend.candidates import CandidatePool
from app.recommend.config import SlateConfig
from app.recommend.context import ModelContext
from app.recommend.profile import Profile
from app.recommend.prompt_lines import LINE_CHARS
from app.recommend.retrievers import Retriever
from tree.rows import IntArray

WANTED_ITEMS = 32  # items worth a score


@dataclass(frozen=True, slots=True)
class Recalled:
    """Candidates and their scores: by the model float32[rows, interests], else float32[rows].

    `lines` is how a prompt shows each row, `twins` the other candidates with the same line.
    """

    rows: IntArray
    lines: Mapping[int, str]
    twins: Mapping[int, Sequence[int]]
    by_model: FloatArray
    by_vectors: FloatArray
    fused: FloatArray


async def recall(
    context: ModelContext,
    pool: CandidatePool,
    config: SlateConfig,
    profile: Profile,
    retrievers: Sequence[Retriever],
) -> Recalled:
    """The candidates of the retrievers, in their order, scored in modest slates.

    If the model fails, the embedded ranker scores the slate, and the ledger notes it. Raises
    ModelRejected, StoreUnavailable.
    """
    tree, effort = context.tree, context.effort
    rows = np.zeros(0, np.int32)
    for retriever in retrievers:
        rows = np.concatenate([rows, await retriever.retrieve(context, profile, rows)])
    lines = await pool.lines(tree, rows.tolist())
    rows, twins = _with_distinct_lines(rows, lines)
    context.notify_candidates(len(rows))
    by_vectors = pool.ranker.scores(tree, profile.need, rows)
    names = profile.interest_names()
    question = Question(
        context.prompt("recall"),
        [lines[row] for row in rows.tolist()],
        np.repeat(by_vectors[:, None], max(1, len(names)), axis=1),
        profile.text(context.history),
        names,
        WANTED_ITEMS,
        context.seed,
        LINE_CHARS,
        config.anchors,
    )
    by_model = await context.model_ranker.score("recall", question, effort.recall_passes)
    shares = [context.model_weight, 1 - context.model_weight]
    fused = reciprocal_rank([by_model.max(axis=1), by_vectors], shares)
    return Recalled(rows, lines, twins, by_model, by_vectors, fused)


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

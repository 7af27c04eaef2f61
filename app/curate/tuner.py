"""`Tuner`: learns from histories how the vectors of a catalogue should change, as a job."""

import msgspec
import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from app.curate.rebuilder import Losses, Rebuilder
from app.curate.threads import JOBS
from app.embedders import EmbedderCache, base_of, is_tuned, name_refused, tuned
from app.jobs import JobFailed, JobReport
from app.settings import Settings
from app.storage.feedback import Feedback
from app.tuning import (
    AdapterLearner,
    Confirmed,
    ItemRanks,
    RankOptions,
    TooFewHistories,
    TrainingEvents,
    Tuning,
    cases_to_rank,
    chosen,
    positions,
    split,
)
from tree.rows import IntArray
from tree.snapshot import SemanticTree
from tree.store.protocol import WritableStore
from tree.vectors import Int8Matrix, unit_rows

_READ = 1_000
_MOST_USERS = 50_000


class TuningParams(BaseModel):
    """The parameters of a tuning."""

    model_config = ConfigDict(frozen=True)

    dry_run: bool = False
    users: int = Field(default=_MOST_USERS, ge=1)


class Tuner:
    """Tunes the space that a catalogue had before any tuning.

    A job that ends early changes nothing, and starts again from the beginning: reading and learning
    take some minutes.
    """

    def __init__(
        self,
        store: WritableStore,
        embedders: EmbedderCache,
        feedback: Feedback,
        rebuilder: Rebuilder,
        settings: Settings,
    ) -> None:
        self._store = store
        self._embedders = embedders
        self._feedback = feedback
        self._rebuilder = rebuilder
        self._options = RankOptions.of(settings)

    async def run(self, params: TuningParams, report: JobReport) -> dict[str, object]:
        """The result of the job. Raises JobFailed, EmbedderUnavailable."""
        report.phase("reading histories", unit="users")
        tree = await self._store.load()
        # In an order of their own: who is held out must not depend on that of the store's keys.
        histories = sorted(await self._feedback.histories(params.users))
        report.advance(len(histories))
        rows, known = await JOBS.run(positions, tree, histories)
        try:
            examples = await JOBS.run(split, known, len(rows))
        except TooFewHistories as error:
            raise JobFailed("too_few_histories", str(error)) from error
        vectors = await self._vectors(tree, rows, report)
        learner = await JOBS.run(
            AdapterLearner, unit_rows(vectors.astype(np.float32)), examples.training
        )
        report.phase("learning", learner.steps, "steps")
        steps = learner.learn()
        while taken := await JOBS.run(next, steps, 0):
            report.advance(taken)
        report.phase("examining", cases_to_rank(examples), "cases")
        events = await JOBS.run(
            TrainingEvents, examples.training, len(rows), self._options.shrinkage
        )
        ranks = ItemRanks(tree, rows, self._options, events)
        tuning = await JOBS.run(chosen, learner.matrix, vectors, examples, ranks, report.advance)
        result: dict[str, object] = {
            "users": len(histories),
            "training_users": len(examples.training),
            "held_out_users": examples.users,
            "pairs": learner.pairs,
            "mix": tuning.mix,
            "applied": tuning.adapter is not None and not params.dry_run,
            "refused": tuning.refusal,
            "factors": dict(tuning.factors),
            **_figures(tuning),
            "dry_run": params.dry_run,
            "tree_version": tree.version,
        }
        if tuning.adapter is None or params.dry_run:
            return result
        losses = Losses()
        space = tuned(base_of(tree.space), tuning.adapter, len(tree), tuning.factors)
        tree = await self._rebuilder.full(report, space=space, losses=losses)
        return {**result, "tree_version": tree.version, "labels_lost": losses.labels}

    async def _vectors(self, tree: SemanticTree, rows: IntArray, report: JobReport) -> Int8Matrix:
        """The vectors of some rows in the space before any tuning."""
        if not is_tuned(tree.space):
            return tree.rows.vectors[rows]
        report.phase("encoding", len(rows))
        found = np.zeros((len(rows), tree.space.dimensions), np.int8)
        for start in range(0, len(rows), _READ):
            ids = [tree.rows.id(row) for row in rows[start : start + _READ].tolist()]
            items = await self._store.items(ids)
            passages = [items[one].passage for one in ids if one in items]
            at = [start + at for at, one in enumerate(ids) if one in items]
            base = base_of(tree.space)
            found[at] = await self._embedders.encode_batch(base, passages, building=True)
            name_refused([one for one in ids if one in items], passages)
            report.advance(len(ids))
        return found


def _figures(tuning: Tuning) -> dict[str, object]:
    return {
        name: None if found is None else _builtins(found)
        for name, found in (("vectors", tuning.vectors), ("weights", tuning.weights))
    }


def _builtins(found: Confirmed) -> dict[str, object]:
    figures = {"known": found.known, "new": found.new, "served": found.served}
    return {**msgspec.to_builtins(figures), "refused": found.refusal}

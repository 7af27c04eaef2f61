"""A tree whose vectors have learned from the training users of an evaluation."""

import asyncio
import logging
from collections.abc import Callable, Sequence

import numpy as np

from app.curate.building import ListSource, build
from app.embedders import EmbedderCache, tuned
from app.jobs import JobReport
from app.settings import Settings
from app.tuning import (
    AdapterLearner,
    ItemRanks,
    RankOptions,
    TooFewHistories,
    TrainingEvents,
    chosen,
    positions,
    split,
)
from tree.item import Item
from tree.snapshot import SemanticTree
from tree.vectors import unit_rows

logger = logging.getLogger(__name__)


async def tuned_tree(
    tree: SemanticTree,
    items: Sequence[Item],
    histories: Sequence[Sequence[str]],
    embedders: EmbedderCache,
    settings: Settings,
    progress: Callable[[float], None],
) -> SemanticTree:
    """The tree as `unillmrec tune` would publish it; the same one where the tuning is refused."""
    rows, known = positions(tree, histories)
    try:
        examples = split(known, len(rows))
    except TooFewHistories as error:
        logger.warning("the vectors stay as they are: %s", error)
        return tree
    vectors = tree.rows.vectors[rows]
    learner = AdapterLearner(unit_rows(vectors.astype(np.float32)), examples.training)
    steps, done = learner.learn(), 0
    while taken := await asyncio.to_thread(next, steps, 0):
        done += taken
        progress(done / learner.steps)
    options = RankOptions.of(settings)
    events = TrainingEvents(examples.training, len(rows), options.shrinkage)
    ranks = ItemRanks(tree, rows, options, events)
    tuning = await asyncio.to_thread(chosen, learner.matrix, vectors, examples, ranks)
    if tuning.adapter is None:
        logger.warning("the vectors stay as they are: %s", tuning.refusal)
        return tree
    return await build(
        ListSource(items),
        tree.settings,
        JobReport.unwatched(),
        embedders=embedders,
        space=tuned(tree.space, tuning.adapter, len(tree), tuning.factors),
    )

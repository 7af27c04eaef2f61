"""A tree from a whole catalogue: fit, encode, cluster, label; in the workers of an engine.

Records are read in batches, a few at a time; some 400 B are kept of an item: see `ItemColumns`.
The same items, settings and seed give the same tree, bit for bit, with any number of workers.
"""

import asyncio
from collections import deque
from dataclasses import replace

import numpy as np

from app.curate.building import tasks
from app.curate.building.columns import ColumnBuilder, ItemColumns
from app.curate.building.engine import Engine, OpenEngine, Shared, local
from app.curate.building.labelling import labelled
from app.curate.building.sources import ItemSource
from app.curate.threads import JOBS
from app.embedders import EmbedderCache, first_space, name_refused, sample_stride
from app.jobs import JobReport
from tree.build import Branch, Members, Partition, leaf_members, number_whole
from tree.edits import NodeSpec
from tree.labels import Labeller
from tree.node import Space, TreeSettings
from tree.rows import Rows
from tree.snapshot import SemanticTree
from tree.terms import WordShares
from tree.vectors import Int8Matrix
from tree.worker import Background, together

_BATCH = 4_000
_TASK_ITEMS = 16_384  # items of a subtree that one task shapes, or labels
_ROWS_PER_STEP = 8_192
_BATCHES_PER_WORKER = 2  # one that it works on, and the next one


async def build(
    source: ItemSource,
    settings: TreeSettings,
    report: JobReport,
    *,
    engine: OpenEngine = local(),  # noqa: B008 - opened below
    embedders: EmbedderCache | None = None,
    space: Space | None = None,
    task_items: int = _TASK_ITEMS,
) -> SemanticTree:
    """The tree of a catalogue, as version 1. A task shapes or labels at most `task_items` items.

    With a `space`, vectors are of that one, and none is fitted.

    Workers encode the texts; `embedders` of this process does where the embedder is remote. Reports
    the phases fitting, embedding, clustering and labelling. Raises JobFailed when the engine is not
    available, EmbedderUnavailable, CorruptSnapshot for a damaged record.
    """
    embedders = embedders or EmbedderCache()
    own = None if embedders.is_local(settings.embedder) else embedders
    async with engine(source.size) as workers:
        sample = await workers.share(await _sample(source, report))
        fitted, labeller, shares = await asyncio.gather(
            _fitted(sample, source.size, settings, workers, own, space),
            workers.run(tasks.fit_labeller, sample),
            workers.run(tasks.count_words, sample),
        )
        terms = await workers.share(labeller)
        report.phase("embedding", source.size)
        columns = await _read(source, workers, fitted, terms, report, shares, own)
        if columns is None:
            return SemanticTree.empty(first_space(settings.embedder), settings)
        shared = await workers.share(columns)
        del columns
        report.phase("clustering", shared.value.size)
        top, leaf_centroids = await _clustered(shared, settings, workers, report, task_items)
        specs, next_node = await JOBS.run(number_whole, top)
        members = await JOBS.run(leaf_members, top)
        del top
        report.phase("labelling", shared.value.size)
        specs = await labelled(specs, members, shared, terms, workers, report, task_items)
        rows = await _filled(shared.value, specs, members, shares.common())
    return await JOBS.run(
        SemanticTree.assemble,
        specs,
        rows,
        list(map(len, members)),
        version=1,
        settings=settings,
        space=fitted,
        next_node=next_node,
        leaf_centroids=leaf_centroids,
    )


async def labels_of(
    tree: SemanticTree,
    source: ItemSource,
    report: JobReport,
    *,
    engine: OpenEngine = local(),  # noqa: B008
) -> list[NodeSpec]:
    """The nodes of `tree` with labels made anew; `source` is in the order of its leaves."""
    specs = await JOBS.run(_unlabelled, tree)
    async with engine(source.size) as workers:
        sample = await workers.share(await _sample(source, report))
        terms = await workers.share(await workers.run(tasks.fit_labeller, sample))
        report.phase("reading", source.size)
        columns = await _read(source, workers, None, terms, report)
        if columns is None:
            return specs
        shared = await workers.share(columns)
        report.phase("labelling", shared.value.size)
        members = await JOBS.run(_members_of_leaves, tree, shared.value)
        return await labelled(specs, members, shared, terms, workers, report, _TASK_ITEMS)


def _unlabelled(tree: SemanticTree) -> list[NodeSpec]:
    return [
        tree.spec(node if node.key or node.locked else replace(node, label=""), with_items=False)
        for node in tree.walk()
    ]


def _members_of_leaves(tree: SemanticTree, columns: ItemColumns) -> list[Members]:
    """The positions in `columns` of every leaf's items, without those that have no record."""
    position = {columns.ids[at]: at for at in range(columns.size)}
    return [
        np.array([position[i] for i in tree.item_ids(leaf.id) if i in position], np.int64)
        for leaf in tree.leaves()
    ]


async def _sample(source: ItemSource, report: JobReport) -> dict[str, bytes]:
    stride = sample_stride(source.size)
    report.phase("fitting", -(-source.size // stride), "texts")
    sample: dict[str, bytes] = {}
    async for records in source.read(stride):
        sample |= records
        report.advance(len(records))
    return sample


async def _fitted(
    sample: Shared[tasks.StoredRecords],
    population: int,
    settings: TreeSettings,
    workers: Engine,
    own: EmbedderCache | None,
    given: Space | None,
) -> Space:
    if given is not None:
        return given
    if own is None:
        return await workers.run(tasks.fit_space, sample, population, settings)
    passages = await JOBS.run(tasks.passages_of, sample.value)
    return (
        await own.fit_in_thread(settings.embedder, passages, population, seed=settings.seed)
    ).space


async def _read(
    source: ItemSource,
    workers: Engine,
    space: Space | None,
    labeller: Shared[Labeller],
    report: JobReport,
    shares: WordShares | None = None,
    own: EmbedderCache | None = None,
) -> ItemColumns | None:
    """The columns of all items; without `shares` no words. No batch is read while every worker
    is busy, nor while `own` embedders encode the batches before.
    """
    builder = ColumnBuilder(source.size, dimensions=space.dimensions if space else 0)
    shared = await workers.share(space if own is None else None)
    words = await workers.share(shares)
    reads = Background("reading for a build", quiet=Exception)  # raised by `take`
    pending: deque[asyncio.Task[ItemColumns]] = deque()

    async def take(most: int) -> None:
        while len(pending) > most:
            batch = await pending[0]
            pending.popleft()
            builder.add(batch)
            report.advance(len(batch.ids))

    async def read(records: tasks.StoredRecords) -> ItemColumns:
        if own is None or space is None:
            return await workers.run(tasks.read, shared, labeller, words, records)
        passages = await JOBS.run(tasks.passages_of, records)
        batch, vectors = await asyncio.gather(
            workers.run(tasks.read, shared, labeller, words, records),
            own.encode_batch(space, passages, building=True),
        )
        name_refused(records, passages)
        return replace(batch, vectors=vectors)

    try:
        batch: dict[str, bytes] = {}
        async for records in source.read():
            batch |= records
            if len(batch) >= _BATCH:
                pending.append(reads.start(read(batch)))
                batch = {}
                await take(_BATCHES_PER_WORKER * workers.width)
        if batch:
            pending.append(reads.start(read(batch)))
        await take(0)
    finally:
        await reads.aclose()
    return await JOBS.run(builder.columns)


async def _clustered(
    columns: Shared[ItemColumns],
    settings: TreeSettings,
    workers: Engine,
    report: JobReport,
    task_items: int,
) -> tuple[Branch, Int8Matrix]:
    """The shape of the tree, and the centroids of its leaves; subtrees are shaped side by side."""
    context = await workers.share(await JOBS.run(tasks.BuildContext.of, columns.value, settings))

    async def grown(partition: Partition) -> tuple[Branch, Int8Matrix]:
        size = len(partition.members)
        parts = (
            await workers.run(tasks.split, columns, context, partition) if size > task_items else []
        )
        if not parts:
            result = await workers.run(tasks.grow, columns, context, partition)
            report.advance(size)
            return result
        below = await together([grown(part) for part in parts])
        branch = Branch(
            partition.members[:0], partition.names, partition.key, [child for child, _ in below]
        )
        return branch, np.concatenate([centroids for _, centroids in below])

    size = columns.value.size
    return await grown(Partition(np.arange(size), 0, settings.depth_limit(size)))


async def _filled(
    columns: ItemColumns, specs: list[NodeSpec], members: list[Members], common: WordShares
) -> Rows:
    """The rows of the leaves, one after the other, in steps that let requests through."""
    leaves = np.array([spec.id for spec in specs if not spec.children])
    order = np.concatenate(members)
    owner = np.repeat(leaves, list(map(len, members)))
    rows = Rows(columns.vectors.shape[1], len(order), common)
    for start in range(0, len(order), _ROWS_PER_STEP):
        some = slice(start, start + _ROWS_PER_STEP)
        ordered = await JOBS.run(columns.ordered, order[some])
        await JOBS.run(rows.append, ordered, owner[some])
    return rows

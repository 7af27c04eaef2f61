"""A tree from a whole catalogue: fit, embed, cluster, label; over the workers of an engine.

Records pass through in batches, of which only some are under way at a time; what stays of an
item takes some 400 B: see `Crop`. The same items, settings and seed give the same tree, bit for
bit, however many workers an engine has.
"""

import asyncio
from collections import deque
from dataclasses import replace

import numpy as np

from app.curate.building import work
from app.curate.building.crop import Crop, Harvest, Listed, Reading, Source
from app.curate.building.engine import Engine, OpenEngine, Shared, engine_for, local, together
from app.curate.building.labelling import labelled
from app.jobs import Report
from tree.build import Branch, Members, Plot, leaf_members, number_whole
from tree.edits import NodeSpec
from tree.embedders import EmbedderCache, LexicalEmbedder, sample_stride
from tree.labels import Labeller
from tree.node import Space, TreeSettings
from tree.rows import Rows
from tree.snapshot import SemanticTree
from tree.vectors import Int8Matrix

__all__ = ["Listed", "OpenEngine", "Source", "build", "engine_for", "labels_of", "local"]

_BATCH = 4_000
_AT_ONCE = 16_384  # items of a subtree that one task shapes, or names
_ROWS_AT_ONCE = 8_192
_BATCHES_PER_WORKER = 2  # under way: one at work, one on its way


async def build(
    source: Source,
    settings: TreeSettings,
    report: Report,
    *,
    engine: OpenEngine = local(),  # noqa: B008 - opened below
    embedders: EmbedderCache | None = None,
    at_once: int = _AT_ONCE,
) -> SemanticTree:
    """The tree of a catalogue, as version 1. A task shapes or names `at_once` items at most.

    Texts are embedded by the workers or, where only this process has access to the embedder, by
    `embedders`. Reports the phases fitting, embedding, clustering and labelling. Raises JobFailed
    where the engine cannot be had, EmbedderUnavailable, CorruptSnapshot for a record that is none.
    """
    embedders = embedders or EmbedderCache()
    own = None if embedders.anywhere(settings.embedder) else embedders
    async with engine(source.size) as workers:
        sample = await workers.share(await _sample(source, report))
        space, labeller = await asyncio.gather(
            _fitted(sample, source.size, settings, workers, own),
            workers.run(work.fit_labeller, sample),
        )
        terms = await workers.share(labeller)
        report.phase("embedding", source.size)
        harvested = await _harvested(source, workers, space, terms, report, own)
        if harvested is None:
            return SemanticTree.empty(LexicalEmbedder().space, settings)
        crop = await workers.share(harvested)
        del harvested
        report.phase("clustering", crop.value.size)
        top, leaf_facets = await _clustered(crop, settings, workers, report, at_once)
        specs, next_node = await asyncio.to_thread(number_whole, top)
        members = await asyncio.to_thread(leaf_members, top)
        del top
        report.phase("labelling", crop.value.size)
        specs = await labelled(specs, members, crop, terms, workers, report, at_once)
        rows = await _filled(crop.value, specs, members)
    return await asyncio.to_thread(
        SemanticTree.assemble,
        specs,
        rows,
        list(map(len, members)),
        version=1,
        settings=settings,
        space=space,
        next_node=next_node,
        leaf_facets=leaf_facets,
    )


async def labels_of(
    tree: SemanticTree,
    source: Source,
    report: Report,
    *,
    engine: OpenEngine = local(),  # noqa: B008
) -> list[NodeSpec]:
    """The nodes of `tree` with labels made anew; `source` is in the order of its leaves."""
    specs = await asyncio.to_thread(_to_be_named, tree)
    async with engine(source.size) as workers:
        sample = await workers.share(await _sample(source, report))
        terms = await workers.share(await workers.run(work.fit_labeller, sample))
        report.phase("reading", source.size)
        harvested = await _harvested(source, workers, None, terms, report)
        if harvested is None:
            return specs
        crop = await workers.share(harvested)
        report.phase("labelling", crop.value.size)
        members = await asyncio.to_thread(_standing, tree, crop.value)
        return await labelled(specs, members, crop, terms, workers, report, _AT_ONCE)


def _to_be_named(tree: SemanticTree) -> list[NodeSpec]:
    return [
        tree.spec(node if node.key or node.locked else replace(node, label=""), with_items=False)
        for node in tree.walk()
    ]


def _standing(tree: SemanticTree, crop: Crop) -> list[Members]:
    """The places in the crop of the items of every leaf, some of which have no record."""
    position = {crop.ids[at]: at for at in range(crop.size)}
    return [
        np.array([position[i] for i in tree.item_ids(leaf.id) if i in position], np.int64)
        for leaf in tree.leaves()
    ]


async def _sample(source: Source, report: Report) -> dict[str, bytes]:
    stride = sample_stride(source.size)
    report.phase("fitting", -(-source.size // stride), "texts")
    sample: dict[str, bytes] = {}
    async for records in source.read(stride):
        sample |= records
        report.advance(len(records))
    return sample


async def _fitted(
    sample: Shared[work.Records],
    population: int,
    settings: TreeSettings,
    workers: Engine,
    own: EmbedderCache | None,
) -> Space:
    if own is None:
        return await workers.run(work.fit_space, sample, population, settings)
    texts = await asyncio.to_thread(work.texts_of, sample.value)
    return (await own.fitted(settings.embedder, texts, population, seed=settings.seed)).space


async def _harvested(
    source: Source,
    workers: Engine,
    space: Space | None,
    labeller: Shared[Labeller],
    report: Report,
    own: EmbedderCache | None = None,
) -> Crop | None:
    """All items, read batch by batch over the workers; the store waits while they are busy.

    And while vectors are awaited that `own` embedders make.
    """
    harvest = Harvest(source.size, vectors=space is not None)
    shared = await workers.share(space if own is None else None)
    under_way: deque[asyncio.Task[Reading]] = deque()

    async def take(most: int) -> None:
        while len(under_way) > most:
            reading = await under_way[0]
            under_way.popleft()
            harvest.add(reading)
            report.advance(len(reading.ids))

    async def read(batch: work.Records) -> Reading:
        if own is None or space is None:
            return await workers.run(work.read, shared, labeller, batch)
        texts = await asyncio.to_thread(work.texts_of, batch)
        reading, vectors = await asyncio.gather(
            workers.run(work.read, shared, labeller, batch),
            own.patiently(space, texts, building=True),
        )
        return replace(reading, vectors=vectors)

    def send(batch: work.Records) -> None:
        under_way.append(asyncio.create_task(read(batch)))

    try:
        batch: dict[str, bytes] = {}
        async for records in source.read():
            batch |= records
            if len(batch) >= _BATCH:
                send(batch)
                batch = {}
                await take(_BATCHES_PER_WORKER * workers.width)
        if batch:
            send(batch)
        await take(0)
    finally:
        for task in under_way:
            task.cancel()
        await asyncio.gather(*under_way, return_exceptions=True)
    return await asyncio.to_thread(harvest.crop)


async def _clustered(
    crop: Shared[Crop], settings: TreeSettings, workers: Engine, report: Report, at_once: int
) -> tuple[Branch, Int8Matrix]:
    """The shape of the tree, and the facets of its leaves; subtrees are shaped side by side."""
    ground = await workers.share(await asyncio.to_thread(work.Ground.of, crop.value, settings))

    async def grown(plot: Plot) -> tuple[Branch, Int8Matrix]:
        size = len(plot.members)
        if size <= at_once or not (parts := await workers.run(work.split, crop, ground, plot)):
            result = await workers.run(work.grow, crop, ground, plot)
            report.advance(size)
            return result
        below = await together([grown(part) for part in parts])
        branch = Branch(plot.members[:0], plot.names, plot.key, [child for child, _ in below])
        return branch, np.concatenate([facets for _, facets in below])

    size = crop.value.size
    return await grown(Plot(np.arange(size), 0, settings.depth_limit(size)))


async def _filled(crop: Crop, specs: list[NodeSpec], members: list[Members]) -> Rows:
    """The rows of the leaves, one after the other, in steps that let requests through."""
    leaves = np.array([spec.id for spec in specs if not spec.children])
    order = np.concatenate(members)
    owner = np.repeat(leaves, list(map(len, members)))
    rows = Rows(len(order))
    for start in range(0, len(order), _ROWS_AT_ONCE):
        some = slice(start, start + _ROWS_AT_ONCE)
        columns = await asyncio.to_thread(crop.columns, order[some])
        await asyncio.to_thread(rows.append, columns, owner[some])
    return rows

"""A tree from a whole catalogue: fit, embed, cluster, label; on several cores when it pays."""

import asyncio
import math
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from multiprocessing import get_context, parent_process
from multiprocessing.connection import wait
from threading import Thread

import numpy as np

from app.jobs import JobFailed, Report
from tree.build import Branch, Key, Members, common_names, grow, leaf_members, number_whole
from tree.edits import NodeSpec
from tree.embedders import EmbedderCache, LexicalEmbedder, fit_sample
from tree.item import Item
from tree.labels import Labeller, TermRows, label_text
from tree.node import Space, TreeSettings
from tree.rows import Columns
from tree.snapshot import SemanticTree
from tree.vectors import Int8Matrix

_BATCH = 4_000
_IN_PROCESS_BELOW = 5_000  # items; starting workers takes longer than the work


@dataclass(slots=True)
class Catalogue:
    """All items of a catalogue as a build needs them: columns, not objects."""

    ids: list[str] = field(default_factory=list)
    titles: list[str] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    label_texts: list[str] = field(default_factory=list)
    keys: list[Key] = field(default_factory=list)
    paths: list[tuple[str, ...]] = field(default_factory=list)
    popularity: list[float] = field(default_factory=list)
    expires_at: list[float] = field(default_factory=list)
    hidden: list[bool] = field(default_factory=list)
    _known_keys: dict[tuple[str, ...], Key] = field(default_factory=dict)

    def add(self, item: Item) -> None:
        """One more item; of equal ids only the first may be given."""
        path = (item.domain, *item.categories)
        self.ids.append(item.id)
        self.titles.append(item.title)
        self.texts.append(item.text)
        self.label_texts.append(label_text(item))
        self.paths.append(path)
        self.keys.append(self._known_keys.setdefault(path, item.key))
        self.popularity.append(item.popularity or 0.0)
        self.expires_at.append(item.expires_at.timestamp() if item.expires_at else math.inf)
        self.hidden.append(item.hidden)

    def columns(self, vectors: Int8Matrix) -> Columns:
        return Columns(
            self.ids,
            vectors,
            np.array(self.popularity, np.float32),
            np.array(self.expires_at, np.float64),
            np.array(self.hidden, np.bool_),
            [path[0] for path in self.paths],
        )


async def build(
    catalogue: Catalogue, settings: TreeSettings, report: Report, *, processes: int = 0
) -> SemanticTree:
    """The tree of a catalogue, as version 1. The same catalogue and settings give the same tree.

    Reports the phases fitting, embedding, clustering and labelling.
    """
    size = len(catalogue.ids)
    if not size:
        return SemanticTree.empty(LexicalEmbedder().space, settings)
    with _workers(size, processes) as pool:
        run = asyncio.get_running_loop().run_in_executor
        sample = fit_sample(catalogue.texts)
        report.phase("fitting", len(sample), "texts")
        space, labeller = await asyncio.gather(
            run(pool, _fit, sample, size, settings.seed),
            run(pool, Labeller, fit_sample(catalogue.label_texts)),
        )
        report.phase("embedding", size)
        vectors, terms = await _read(catalogue, pool, space, labeller, report)
        report.phase("clustering", size)
        top = await run(pool, _cluster, vectors, catalogue.keys, catalogue.paths, settings)
        report.phase("labelling", size)
        specs, next_node = number_whole(top)
        members = leaf_members(top)
        specs = await run(pool, _label, labeller, specs, members, terms, catalogue.titles)
    return await asyncio.to_thread(
        SemanticTree.assemble,
        specs,
        catalogue.columns(vectors).take(np.concatenate(members)),
        [len(leaf) for leaf in members],
        version=1,
        settings=settings,
        space=space,
        next_node=next_node,
    )


async def labels_of(
    tree: SemanticTree, catalogue: Catalogue, report: Report, *, processes: int = 0
) -> list[NodeSpec]:
    """The nodes of `tree` with labels made anew; `catalogue` is in the order of its leaves."""
    report.phase("labelling", len(catalogue.ids))
    position = {item_id: at for at, item_id in enumerate(catalogue.ids)}
    specs = [
        tree.spec(node if node.key or node.locked else replace(node, label=""), with_items=False)
        for node in tree.walk()
    ]
    members = [
        np.array([position[i] for i in tree.item_ids(leaf.id) if i in position], np.int64)
        for leaf in tree.leaves()
    ]
    with _workers(len(catalogue.ids), processes) as pool:
        run = asyncio.get_running_loop().run_in_executor
        labeller = await run(pool, Labeller, fit_sample(catalogue.label_texts))
        terms = await run(pool, labeller.count, catalogue.label_texts)
        return await run(pool, _label, labeller, specs, members, terms, catalogue.titles)


async def _read(
    catalogue: Catalogue, pool: Executor, space: Space, labeller: Labeller, report: Report
) -> tuple[Int8Matrix, TermRows]:
    """Vectors and terms of all items, batch by batch over the workers."""
    loop = asyncio.get_running_loop()

    async def one(start: int) -> tuple[Int8Matrix, TermRows]:
        some = slice(start, start + _BATCH)
        result = await loop.run_in_executor(
            pool, _read_batch, space, labeller, catalogue.texts[some], catalogue.label_texts[some]
        )
        report.advance(len(result[0]))
        return result

    parts = await asyncio.gather(*(one(start) for start in range(0, len(catalogue.ids), _BATCH)))
    return np.concatenate([vectors for vectors, _ in parts]), TermRows.joined(
        [terms for _, terms in parts]
    )


@contextmanager
def _workers(size: int, processes: int) -> Iterator[Executor]:
    """Where the work is done: processes for a large catalogue, a thread for a small one."""
    if size < _IN_PROCESS_BELOW:
        with ThreadPoolExecutor(1, thread_name_prefix="build") as threads:
            yield threads
        return
    context = get_context("forkserver")
    context.set_forkserver_preload(["app.curate.building", "sklearn.feature_extraction.text"])
    with ProcessPoolExecutor(
        processes or os.cpu_count(), mp_context=context, initializer=_end_with_parent
    ) as workers:
        try:
            yield workers
        except BrokenProcessPool as error:
            raise JobFailed(
                "worker_killed",
                "a process of this build was killed, perhaps for want of memory: "
                "lower UNILLMREC_BUILD_PROCESSES, or start it again",
            ) from error
        except BaseException:
            workers.shutdown(wait=False, cancel_futures=True)
            raise


# -- what a worker does; module-level, so that it can be sent to one

_embedders = EmbedderCache(size=1)


def _end_with_parent() -> None:
    """A worker whose process is killed would wait for work for ever, and keep its memory."""
    parent = parent_process()
    assert parent is not None

    def watch() -> None:
        wait([parent.sentinel])
        os._exit(1)

    Thread(target=watch, daemon=True, name="watch").start()


def _fit(sample: list[str], population: int, seed: int) -> Space:
    return LexicalEmbedder.fit(sample, population=population, seed=seed).space


def _read_batch(
    space: Space, labeller: Labeller, texts: Sequence[str], label_texts: Sequence[str]
) -> tuple[Int8Matrix, TermRows]:
    return _embedders.of(space).encode(texts), labeller.count(label_texts)


def _cluster(
    vectors: Int8Matrix,
    keys: Sequence[Key],
    paths: Sequence[tuple[str, ...]],
    settings: TreeSettings,
) -> Branch:
    return grow(vectors, keys, settings, names=common_names(paths, keys))


def _label(
    labeller: Labeller,
    specs: list[NodeSpec],
    members: list[Members],
    terms: TermRows,
    titles: Sequence[str],
) -> list[NodeSpec]:
    return labeller.label(specs, members, terms, titles.__getitem__)

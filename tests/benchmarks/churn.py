"""Figures of a tree that changes for good, and of one that grows; without HTTP, in this process."""

import asyncio
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from app.curate.building import ListSource, build
from app.embedders import EmbedderCache, LexicalEmbedder
from app.jobs import JobReport
from app.settings import Settings
from tests.benchmarks import data
from tests.benchmarks.figures import Figure
from tests.benchmarks.living import tell
from tests.benchmarks.quality import Oracle
from tests.benchmarks.size import ranked
from tree import inspect, place
from tree.edits import DropItem, PutItem, Reshape
from tree.item import Item
from tree.node import TreeSettings
from tree.redis.connection import connect
from tree.redis.embedded_server import EmbeddedServer
from tree.snapshot import SemanticTree
from tree.store.redis_store import RedisTreeStore

_READERS = 2_000
_ENOUGH_HITS = 100  # for a ratio of 3 % to mean anything; fewer are only shown
_HISTORIES = 100_000  # of which few have three items in one half of the catalogue
_SIZES = (10_000, 30_000, 100_000, 300_000, 1_000_000)
_REPEATS = 60


def real() -> Iterator[Figure]:
    """The large catalogue, whose few readers tell little; and the one with many readers."""
    for name in ("amazon_cds", "amazon_games"):
        yield from _replaced(name)


def _replaced(name: str) -> Iterator[Figure]:
    """Half of a catalogue is replaced by the other half, a hundredth at a time."""
    items = data.real_items(name)
    rng = np.random.default_rng(11)
    order = rng.permutation(len(items))
    half = len(items) // 2
    old, new = [items[i] for i in order[:half]], [items[i] for i in order[half : 2 * half]]
    tell(f"{name}: building a tree of {half:,} items")
    tree = asyncio.run(_built(old))
    embedder = LexicalEmbedder(tree.space)
    step = half // 100
    reshaped, refilled, spent = [], [], []
    for start in range(0, half, step):
        if start % (20 * step) == 0:
            tell(f"{100 * start // half} % of the items replaced")
        come, go = new[start : start + step], old[start : start + step]
        vectors = embedder.encode([item.text for item in come])
        begin = time.perf_counter()
        edits = place.plan(tree, come, vectors, [item.id for item in go])
        after = tree.apply(edits)
        spent.append((time.perf_counter() - begin) * 1000)
        shape = [edit for edit in edits if isinstance(edit, Reshape)]
        nodes = {node for e in shape for node in (*e.drop, *(spec.id for spec in e.put))}
        leaves = {e.leaf for e in edits if isinstance(e, PutItem)}
        gone = [tree.leaf_of(e.id) for e in edits if isinstance(e, DropItem)]
        leaves |= {leaf.id for leaf in gone if leaf}
        reshaped.append(100 * len(nodes) / tree.node_count)
        refilled.append(100 * len(nodes | leaves) / tree.node_count)
        tree = after
    yield Figure(
        f"{name}: nodes reshaped per 1 % churn, mean", float(np.mean(reshaped)), "%", "≤", 10
    )
    yield Figure(f"{name}: nodes that gain or lose an item, mean", float(np.mean(refilled)), "%")
    yield Figure(f"{name}: placing and applying {step} items and {step} deletes, p50",
                 float(np.percentile(spent, 50)), "ms")  # fmt: skip
    figures = inspect.statistics(tree)
    yield Figure(f"{name}: items after 100 % churn", len(tree), "", "=", half)
    yield Figure(f"{name}: violations after it", len(inspect.violations(tree)), "", "=", 0)
    largest = max(leaf.count for leaf in tree.leaves())
    yield Figure(f"{name}: largest leaf after it", largest, "items", "≤",
                 tree.settings.leaf_capacity)  # fmt: skip
    yield Figure(f"{name}: leaf Gini after it", figures.gini, "", "≤", 0.40)
    tell("building the same items afresh")
    fresh = asyncio.run(_built(new))
    for which, each in (("the churned tree", tree), ("a fresh one", fresh)):
        tell(f"{name}: asking {which}")
        hits, share, readers = asyncio.run(
            _quality(name, each.at_version(each.version))
        )  # without dead rows
        yield Figure(f"{name}: share of a full scan's top 20, {which}", share)
        yield Figure(f"{name}: R@20 on held-out histories, {which}", hits)
        yield Figure(f"{name}: hits that this is made of", round(hits * readers), f"of {readers}")
        if each is tree:
            churned = hits, share
    yield Figure(f"{name}: R@20, churned to fresh", churned[0] / hits, "", "≥",
                 0.97 if hits * readers >= _ENOUGH_HITS else None)  # fmt: skip
    yield Figure(
        f"{name}: share of a full scan, churned to fresh", churned[1] / share, "", "≥", 0.97
    )


async def _built(items: Sequence[Item]) -> SemanticTree:
    return await build(ListSource(items), TreeSettings(), JobReport.unwatched())


async def _quality(name: str, tree: SemanticTree) -> tuple[float, float, int]:
    """R@20 of items left out of histories, by the beam; its share of a full scan; how many."""
    settings = Settings(exact_scan_items=0)
    oracle = Oracle(tree, settings)
    hits, shares = [], []
    for history in data.histories(name, _HISTORIES):
        known = [item for item in history if item in tree]
        if len(known) < 3:
            continue
        for target in dict.fromkeys(known):  # readers may be few: each of their items is held out
            past = [item for item in known if item != target]
            best = oracle.top(past)
            found = await ranked(tree, oracle, settings, past, 20)
            hits.append(tree.row(target) in found.tolist())
            shares.append(len(set(best.tolist()) & set(found.tolist())) / len(best))
        if len(hits) >= _READERS:
            break
    return float(np.mean(hits)), float(np.mean(shares)), len(hits)


def growth(sizes: tuple[int, ...] = _SIZES) -> Iterator[Figure]:
    """What one insert, one commit of 100 and one ranking cost, from 10k to 1M items."""
    first: dict[str, float] = {}
    for size in sizes:
        tell(f"{size:,} items")
        for what, ms in asyncio.run(_costs(size)).items():
            times = ms / first.setdefault(what, ms)
            yield Figure(f"{what} at {size:,}, p50", ms, "ms")
            if size == sizes[-1]:
                yield Figure(f"{what} at {size:,} to {sizes[0]:,}", times, "×", "≤", 2)


async def _costs(size: int) -> dict[str, float]:
    fresh = [
        item.model_copy(update={"id": f"new/{item.id}"})
        for item in data.synthetic_items(_REPEATS * 101, seed=7)
    ]
    tree = await _built(list(data.synthetic_items(size)))
    settings = Settings()
    with tempfile.TemporaryDirectory(prefix="unillmrec-bench-") as folder:
        server = await EmbeddedServer.start(Path(folder))
        client = connect(server.connect_url, timeout_s=60)
        store = RedisTreeStore(client, "growth", space=LexicalEmbedder().space)
        tree = await store.replace(tree, base=0)
        embedder = EmbedderCache().of(tree.space)
        oracle = Oracle(tree, settings)
        rng = np.random.default_rng(3)
        spent: dict[str, list[float]] = {"insert": [], "commit of 100": [], "recommend": []}
        for turn in range(_REPEATS):
            for what, some in (
                ("insert", fresh[turn : turn + 1]),
                ("commit of 100", fresh[_REPEATS + 100 * turn : _REPEATS + 100 * (turn + 1)]),
            ):
                start = time.perf_counter()
                vectors = embedder.encode([item.text for item in some])
                edits = place.plan(tree, some, vectors)
                tree = await store.commit(edits, base=tree.version)
                spent[what].append((time.perf_counter() - start) * 1000)
            rows = rng.integers(0, size, 10).tolist()
            history = [tree.rows.id(row) for row in rows]
            start = time.perf_counter()
            await ranked(tree, oracle, settings, history, 20)
            spent["recommend"].append((time.perf_counter() - start) * 1000)
        await client.aclose()
        await server.stop()
    return {what: float(np.percentile(each, 50)) for what, each in spent.items()}

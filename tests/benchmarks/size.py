"""Figures of large catalogues: time and memory of a build, of a replica, and its answers."""

import asyncio
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from app.curate.building import ListSource, build
from app.embedders import LexicalEmbedder
from app.jobs import JobReport
from app.main import settle_memory
from app.ranking import EmbeddedRanker
from app.settings import Settings
from tests.benchmarks import data
from tests.benchmarks.figures import Figure
from tests.benchmarks.quality import Oracle
from tree import inspect
from tree.node import TreeSettings
from tree.redis.connection import connect
from tree.redis.embedded_server import EmbeddedServer
from tree.rows import IntArray
from tree.snapshot import SemanticTree
from tree.store.redis_store import RedisTreeStore

_LIMITS = {100_000: (30.0, 1.5), 1_000_000: (360.0, 6.0)}
_READERS = 100


def builds(sizes: tuple[int, ...] = (100_000, 1_000_000)) -> Iterator[Figure]:
    """Each size in a process of its own, whose memory (and its children's) is watched."""
    for size in sizes:
        result = _printed("build", size)
        seconds, memory = _LIMITS.get(size, (None, None))
        yield Figure(f"build of {size:,} items, {os.cpu_count()} cores", result["build_s"], "s",
                     "≤", seconds)  # fmt: skip
        yield Figure(
            f"peak memory of that build ({size:,})", result["peak_gib"], "GiB", "≤", memory
        )
        yield Figure(f"depth at {size:,}", result["depth"], "levels", "≤", result["depth_limit"])
        yield Figure(f"leaf Gini at {size:,}", result["gini"], "", "≤", 0.30)
        yield Figure(f"violations at {size:,}", result["violations"], "", "=", 0)
        large = size >= 1_000_000
        yield Figure(f"replica memory per item at {size:,}", result["replica_bytes"], "B", "≤",
                     550 if large else None)  # fmt: skip
        yield Figure(f"load of a replica at {size:,}", result["load_s"], "s", "≤",
                     20 if large else None)  # fmt: skip
        yield Figure(f"share of the oracle's top 20 at {size:,}", result["share"], "", "≥",
                     0.90 if large else 0.98)  # fmt: skip
        yield Figure(f"ranking at {size:,}, p50", result["rank_ms"], "ms")


def _printed(task: str, size: int, *extra: str) -> dict[str, float]:
    """What a task of this module, run in a process of its own, printed as its last line."""
    command = [sys.executable, "-m", "tests.benchmarks.size", task, str(size), *extra]
    output = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
    result: dict[str, float] = json.loads(output.splitlines()[-1])
    return result


class _Peak:
    """The most memory that this process and all below it held while the block ran, in bytes."""

    def __enter__(self) -> "_Peak":
        self.bytes = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._stop.wait(0.2):
            self.bytes = max(self.bytes, _memory_below(os.getpid()))


def _memory_below(pid: int) -> int:
    """Bytes that a process and all below it hold, shared pages counted once."""
    total = 0
    try:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                total = int(line.split()[1]) * 1024
        threads = list(Path(f"/proc/{pid}/task").iterdir())  # each has the processes it started
        children = [child for at in threads for child in (at / "children").read_text().split()]
    except OSError:
        return 0
    return total + sum(_memory_below(int(child)) for child in children)


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


async def _build(size: int) -> None:
    source = ListSource(
        data.synthetic_items(size)
    )  # some 300 B an item, which the store holds else
    before = _memory_below(os.getpid())
    with _Peak() as peak:
        start = time.perf_counter()
        tree = await build(source, TreeSettings(), JobReport.unwatched())
        seconds = time.perf_counter() - start
    del source
    figures = inspect.statistics(tree)
    faults = len(inspect.violations(tree))
    with tempfile.TemporaryDirectory(prefix="unillmrec-bench-") as folder:
        server = await EmbeddedServer.start(Path(folder))
        client = connect(server.connect_url, timeout_s=60)
        store = RedisTreeStore(client, "size", space=LexicalEmbedder().space)
        await store.replace(tree, base=0)
        replica = await asyncio.to_thread(_printed, "replica", size, server.connect_url)
        await client.aclose()
        await server.stop()
    print(
        json.dumps(
            {
                "build_s": seconds,
                "peak_gib": (peak.bytes - before) / 2**30,
                "depth": figures.depth,
                "depth_limit": figures.depth_limit,
                "gini": figures.gini,
                "violations": faults,
                **replica,
            }
        )
    )


async def _replica(size: int, url: str) -> None:
    """Load the tree as a replica would, and answer readers from it."""
    before = _resident()
    client = connect(url, timeout_s=60)
    store = RedisTreeStore(client, "size", space=LexicalEmbedder().space)
    start = time.perf_counter()
    tree = await store.load()
    seconds = time.perf_counter() - start
    settle_memory()
    held = _resident() - before
    share, spent = await _shares(tree)
    await client.aclose()
    print(
        json.dumps(
            {
                "replica_bytes": held / size,
                "load_s": seconds,
                "share": share,
                "rank_ms": spent,
            }
        )
    )


async def _shares(tree: SemanticTree) -> tuple[float, float]:
    settings = Settings()
    oracle = Oracle(tree, settings)
    rng = np.random.default_rng(3)
    leaves = list(tree.leaves())
    shares, spent = [], []
    for _ in range(_READERS):
        homes = [leaves[i] for i in rng.choice(len(leaves), 3)]
        rows = [int(rng.choice(homes[i % 3].rows)) for i in range(10)]
        history = [tree.rows.id(row) for row in dict.fromkeys(rows)]
        best = oracle.top(history)
        start = time.perf_counter()
        found = await ranked(tree, oracle, settings, history, 20)
        spent.append((time.perf_counter() - start) * 1000)
        shares.append(len(set(best.tolist()) & set(found.tolist())) / len(best))
    return float(np.mean(shares)), float(np.percentile(spent, 50))


async def ranked(
    tree: SemanticTree, oracle: Oracle, settings: Settings, history: Sequence[str], wanted: int
) -> IntArray:
    """Rows that the embedded ranker gives a reader, best first."""
    ranker = EmbeddedRanker(
        settings.sharpness, settings.exact_scan_items, settings.beam_leaves,
        settings.beam_breadth,
    )  # fmt: skip
    newest, weights = oracle.need(history)
    allowed = tree.allowed(0.0)
    allowed[[row for row in map(tree.row, history) if row is not None]] = False
    need = _need(tree, newest, weights)
    return (await ranker.rank(tree, need, allowed, wanted)).rows[:wanted]


def _need(tree: SemanticTree, rows: np.ndarray, weights: np.ndarray):
    from app.ranking import Direction, Interest, Need

    directions = tuple(
        Direction(tree.rows.vectors[row], float(weight), 0, str(row))
        for row, weight in zip(rows.tolist(), weights, strict=True)
    )
    return Need((Interest("made up", 1.0),), directions)


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["build", size]:
            asyncio.run(_build(int(size)))
        case ["replica", size, url]:
            asyncio.run(_replica(int(size), url))

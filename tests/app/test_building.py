"""Builds: the same tree however the work is split, in bounded memory, over what may be killed."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from itertools import islice
from pathlib import Path

import numpy as np
import pytest

from app.curate.building import Listed, build, engine_for, labels_of, local
from app.jobs import JobFailed, Report
from app.settings import Settings
from tree import inspect
from tree.errors import CorruptSnapshot
from tree.item import Item
from tree.node import TreeSettings
from tree.snapshot import SemanticTree
from tree.store.wire import pack_item

PROCESSES = local(2, alone_below=0)


def things(count: int, categories: Callable[[int], tuple[str, ...]]) -> list[Item]:
    rng = np.random.default_rng(5)
    words = [f"{a}{b}" for a in ("bor", "cal", "dim", "fen", "gul") for b in ("ta", "mo", "ri")]
    return [
        Item(
            id=f"i{n}",
            title=" ".join(words[w] for w in rng.integers(0, len(words), 4)),
            categories=categories(n),
            domain="shop",
            popularity=n % 9,
            hidden=n % 50 == 0,
        )
        for n in range(count)
    ]


CATALOGUES = {
    "no categories": things(900, lambda n: ()),
    "two levels": things(1_200, lambda n: (f"Field {n % 3}", f"theme {n % 40}")),
    "uneven": things(1_000, lambda n: (f"c{int(n**0.5)}",)),
    "one leaf": things(7, lambda n: ("c",)),
    "one item": things(1, lambda n: ()),
}


def same(one: SemanticTree, other: SemanticTree) -> bool:
    mine, theirs = one.parts(), other.parts()
    return (
        mine.specs == theirs.specs
        and mine.columns.ids == theirs.columns.ids
        and mine.columns.domains == theirs.columns.domains
        and np.array_equal(mine.columns.vectors, theirs.columns.vectors)
        and np.array_equal(mine.columns.popularity, theirs.columns.popularity)
        and np.array_equal(mine.columns.hidden, theirs.columns.hidden)
        and np.array_equal(mine.leaf_sizes, theirs.leaf_sizes)
        and np.array_equal(mine.leaf_facets, theirs.leaf_facets)
        and one.space == other.space
        and all(
            np.array_equal(a.slate, b.slate) for a, b in zip(one.walk(), other.walk(), strict=True)
        )
    )


@pytest.mark.parametrize("name", CATALOGUES)
async def test_the_tree_is_the_same_however_the_work_is_split(name):
    source = Listed(CATALOGUES[name])
    settings = TreeSettings(leaf_capacity=9, fan_out=5)
    whole = await build(source, settings, Report.unwatched(), at_once=source.size)
    report = Report.unwatched()
    split = await build(source, settings, report, engine=PROCESSES, at_once=50)
    assert same(whole, split)
    assert inspect.violations(split) == []
    assert report.job.progress.done == report.job.progress.total == source.size
    plain = SemanticTree.assemble(
        *split.parts()[:3], version=1, settings=settings, space=split.space,
        next_node=split.next_node,
    )  # fmt: skip
    assert same(plain, split)  # the facets that workers found are those that a tree finds itself


async def test_labels_are_made_anew_by_any_engine():
    source = Listed(CATALOGUES["two levels"])
    tree = await build(source, TreeSettings(), Report.unwatched())
    records = {item.id: item for item in CATALOGUES["two levels"]}
    by_leaf = Listed([records[item_id] for item_id in tree.item_ids() if item_id != "i3"])
    made = [
        await labels_of(tree, by_leaf, Report.unwatched(), engine=engine)
        for engine in (local(), PROCESSES)
    ]
    assert made[0] == made[1]
    assert [spec.id for spec in made[0]] == [node.id for node in tree.walk()]
    assert {s.key: s.label for s in made[0] if s.key} == {
        node.key: node.label for node in tree.walk() if node.key
    }
    assert all(spec.label for spec in made[0])


class Watched:
    """A source of many batches, and how many of them were read before the first came back."""

    def __init__(self, items: list[Item], report: Report) -> None:
        self.size = len(items)
        self._items = items
        self._report = report
        self.ahead = 0

    async def read(self, step: int = 1) -> AsyncIterator[dict[str, bytes]]:
        items, read = iter(self._items[::step]), 0
        while batch := list(islice(items, 1_000)):
            yield {item.id: pack_item(item) for item in batch}
            read += len(batch)
            if self._report.job.progress.phase == "embedding":
                self.ahead = max(self.ahead, read - self._report.job.progress.done)


async def test_the_store_is_read_no_faster_than_the_workers_work():
    report = Report.unwatched()
    source = Watched(things(20_000, lambda n: (f"c{n % 7}",)), report)
    tree = await build(source, TreeSettings(), report, engine=local(1))
    assert len(tree) == source.size
    assert source.ahead <= 3 * 4_000 + 1_000


async def test_killed_workers_are_replaced():
    source = Listed(CATALOGUES["no categories"])
    expected = await build(source, TreeSettings(), Report.unwatched())
    async with local(2, alone_below=0)(source.size) as engine:
        victim = await engine.run(os.getpid)
        assert victim != os.getpid()
        os.kill(victim, signal.SIGKILL)
        assert await engine.run(os.getpid) != victim
        assert await engine.run(os.nice, 0) >= 10
    assert same(expected, await build(source, TreeSettings(), Report.unwatched(), engine=PROCESSES))


async def test_workers_that_cannot_live_fail_the_job():
    async with PROCESSES(1) as engine:
        with pytest.raises(JobFailed, match="were killed 3 times"):
            await engine.run(os._exit, 1)


@pytest.mark.parametrize("engine", [local(), PROCESSES])
async def test_an_unreadable_record_is_told(engine):
    class Broken(Listed):
        async def read(self, step: int = 1) -> AsyncIterator[dict[str, bytes]]:
            async for records in super().read(step):
                yield records if step > 1 else {**records, "i5": b"{"}

    with pytest.raises(CorruptSnapshot, match="i5"):
        await build(Broken(things(30, lambda n: ())), TreeSettings(), Report.unwatched(),
                    engine=engine)  # fmt: skip


async def test_a_cancelled_build_stops():
    report = Report.unwatched()
    source = Watched(things(12_000, lambda n: ()), report)
    work = asyncio.create_task(build(source, TreeSettings(), report, engine=local(1)))
    deadline = asyncio.get_running_loop().time() + 60
    while report.job.progress.phase != "embedding":
        assert asyncio.get_running_loop().time() < deadline
        await asyncio.sleep(0.02)
    work.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(work, 20)


async def test_nothing_is_an_empty_tree():
    assert len(await build(Listed([]), TreeSettings(), Report.unwatched())) == 0


async def test_ray_is_asked_for_where_it_is_missing():
    try:
        import ray  # noqa: F401
    except ImportError:
        with pytest.raises(JobFailed, match=r"pip install 'unillmrec\[ray\]'"):
            async with engine_for(Settings(build_engine="ray"))(10):
                raise AssertionError("there is no engine") from None


ORPHANS = """
import asyncio, os, signal
from pathlib import Path
from app.curate.building import local

async def story():
    async with local(2, alone_below=0)(9) as engine:
        shared = await engine.share(["kept in a file"])
        print(await engine.run(os.getpid), Path(shared.ticket.path).parent, flush=True)
        os.kill(os.getpid(), signal.SIGKILL)

if __name__ == "__main__":
    asyncio.run(story())
"""


async def test_a_killed_process_leaves_no_workers_and_no_files(tmp_path):
    script = tmp_path / "story.py"
    script.write_text(ORPHANS, encoding="utf-8")
    done = await asyncio.create_subprocess_exec(
        sys.executable, str(script), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    )  # fmt: skip
    assert done.stdout is not None
    worker, folder = (await done.stdout.readline()).split()
    assert await done.wait() == -signal.SIGKILL
    deadline = asyncio.get_running_loop().time() + 20
    while Path(f"/proc/{int(worker)}").exists() or Path(folder.decode()).exists():
        assert asyncio.get_running_loop().time() < deadline
        await asyncio.sleep(0.05)

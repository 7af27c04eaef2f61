"""Builds: the same tree however the work is split, in bounded memory, over what may be killed."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from itertools import islice
from pathlib import Path

import pytest

from app.curate.building import ListSource, build, engine_for, labels_of, local
from app.curate.building.engine import OpenEngine, Processes
from app.jobs import JobFailed, JobReport
from app.settings import Settings
from tests.app.curate.building.catalogues import CATALOGUES, same, things
from tree import inspect
from tree.errors import CorruptSnapshot
from tree.item import Item
from tree.node import TreeSettings
from tree.snapshot import SemanticTree
from tree.store.encoding import pack_item

PROCESSES = local(2, in_process_below=0)


@pytest.fixture(scope="module")
def processes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OpenEngine]:
    """An engine of processes for one build after the other: to start them takes longer."""
    engine = Processes(2, tmp_path_factory.mktemp("build"))

    @asynccontextmanager
    async def opened(_items: int) -> AsyncIterator[Processes]:
        yield engine

    yield opened
    engine.stop()


async def test_titles_that_are_hidden_are_no_examples():
    items = [
        Item(id=f"i{n}", title=f"Secret {n}" if n % 3 else f"Known {n}", hidden=n % 3 > 0)
        for n in range(90)
    ]
    settings = TreeSettings(leaf_capacity=9, fan_out=5)
    tree = await build(ListSource(items), settings, JobReport.unwatched(), task_items=90)
    told = "\n".join(f"{node.label} {node.signpost}" for node in tree.walk())
    assert "Known 3" in told
    assert not any(item.title in told for item in items if item.hidden)


@pytest.mark.parametrize("name", CATALOGUES)
async def test_the_tree_is_the_same_however_the_work_is_split(name, processes):
    source = ListSource(CATALOGUES[name])
    settings = TreeSettings(leaf_capacity=9, fan_out=5)
    whole = await build(source, settings, JobReport.unwatched(), task_items=source.size)
    report = JobReport.unwatched()
    split = await build(source, settings, report, engine=processes, task_items=50)
    assert same(whole, split)
    assert inspect.violations(split) == []
    assert report.job.progress.done == report.job.progress.total == source.size
    plain = SemanticTree.assemble(
        *split.parts()[:3], version=1, settings=settings, space=split.space,
        next_node=split.next_node,
    )  # fmt: skip
    assert same(plain, split)  # the centroids that workers found are those that a tree finds itself


async def test_labels_are_made_anew_by_any_engine(processes):
    source = ListSource(CATALOGUES["two levels"])
    tree = await build(source, TreeSettings(), JobReport.unwatched())
    records = {item.id: item for item in CATALOGUES["two levels"]}
    by_leaf = ListSource([records[item_id] for item_id in tree.item_ids() if item_id != "i3"])
    made = [
        await labels_of(tree, by_leaf, JobReport.unwatched(), engine=engine)
        for engine in (local(), processes)
    ]
    assert made[0] == made[1]
    assert [spec.id for spec in made[0]] == [node.id for node in tree.walk()]
    assert {s.key: s.label for s in made[0] if s.key} == {
        node.key: node.label for node in tree.walk() if node.key
    }
    assert all(spec.label for spec in made[0])


class Watched:
    """A source of many batches, and how many of them were read before the first came back."""

    def __init__(self, items: list[Item], report: JobReport) -> None:
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
    report = JobReport.unwatched()
    source = Watched(things(15_000, lambda n: (f"c{n % 7}",)), report)
    tree = await build(source, TreeSettings(), report, engine=local(1))
    assert len(tree) == source.size
    assert source.ahead <= 3 * 4_000 + 1_000


async def test_killed_workers_are_replaced():
    source = ListSource(CATALOGUES["no categories"])
    expected = await build(source, TreeSettings(), JobReport.unwatched())
    async with local(2, in_process_below=0)(source.size) as engine:
        victim = await engine.run(os.getpid)
        assert victim != os.getpid()
        os.kill(victim, signal.SIGKILL)
        assert await engine.run(os.getpid) != victim
        assert await engine.run(os.nice, 0) >= 10
    assert same(
        expected, await build(source, TreeSettings(), JobReport.unwatched(), engine=PROCESSES)
    )


async def test_workers_that_cannot_live_fail_the_job():
    async with PROCESSES(1) as engine:
        with pytest.raises(JobFailed, match="were killed 3 times"):
            await engine.run(os._exit, 1)


@pytest.mark.parametrize("parted", [False, True])
async def test_an_unreadable_record_is_told(parted, processes):
    class Broken(ListSource):
        async def read(self, step: int = 1) -> AsyncIterator[dict[str, bytes]]:
            async for records in super().read(step):
                yield records if step > 1 else {**records, "i5": b"{"}

    with pytest.raises(CorruptSnapshot, match="i5"):
        await build(Broken(things(30, lambda n: ())), TreeSettings(), JobReport.unwatched(),
                    engine=processes if parted else local())  # fmt: skip


async def test_a_cancelled_build_stops():
    report = JobReport.unwatched()
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
    assert len(await build(ListSource([]), TreeSettings(), JobReport.unwatched())) == 0


async def test_ray_is_asked_for_where_it_is_missing():
    try:
        import ray  # noqa: F401
    except ImportError:
        with pytest.raises(JobFailed, match=r"pip install '\.\[ray\]'"):
            async with engine_for(Settings(build_engine="ray"))(10):
                raise AssertionError("there is no engine") from None


ORPHANS = """
import asyncio, os, signal
from pathlib import Path
from app.curate.building import local

async def story():
    async with local(2, in_process_below=0)(9) as engine:
        shared = await engine.share(["kept in a file"])
        print(await engine.run(os.getpid), Path(shared.reference.path).parent, flush=True)
        os.kill(os.getpid(), signal.SIGKILL)

if __name__ == "__main__":
    asyncio.run(story())
"""


async def test_a_killed_process_leaves_no_workers_and_no_files(tmp_path):
    script = tmp_path / "story.py"
    script.write_text(ORPHANS, encoding="utf-8")
    done = await asyncio.create_subprocess_exec(
        sys.executable, str(script), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[4])},
    )  # fmt: skip
    assert done.stdout is not None
    worker, folder = (await done.stdout.readline()).split()
    assert await done.wait() == -signal.SIGKILL
    deadline = asyncio.get_running_loop().time() + 20
    while Path(f"/proc/{int(worker)}").exists() or Path(folder.decode()).exists():
        assert asyncio.get_running_loop().time() < deadline
        await asyncio.sleep(0.05)

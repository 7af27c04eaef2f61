"""A build on a real Ray cluster of two nodes, on this machine; `make test-ray` runs it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.ray

ROOT = Path(__file__).parents[4]

# In a process of its own: Ray warns, keeps threads, and does not belong into the others' imports.
STORY = """
import asyncio, json, sys
from ray.cluster_utils import Cluster
from app.curate.building import ListSource, build, local
from app.curate.building.ray_engine import ray_engine
from app.jobs import JobFailed, JobReport
from tests.app.curate.building.catalogues import CATALOGUES, same
from tree.errors import CorruptSnapshot
from tree.node import TreeSettings


async def story(address):
    told, nodes = {}, set()

    def engine(items):
        opened = ray_engine(address)

        class Noting:
            async def __aenter__(self):
                self.engine = await opened.__aenter__()
                return self.engine

            async def __aexit__(self, *error):
                nodes.update(self.engine.nodes)
                return await opened.__aexit__(*error)

        return Noting()

    settings = TreeSettings(leaf_capacity=9, fan_out=5)
    for name in ("no categories", "two levels", "uneven"):
        source = ListSource(CATALOGUES[name])
        processes = local(2, in_process_below=0)
        ours = await build(source, settings, JobReport.unwatched(), engine=processes)
        theirs = await build(source, settings, JobReport.unwatched(), engine=engine, task_items=50)
        told[name] = same(ours, theirs)

    class Broken(ListSource):
        async def read(self, step=1):
            async for records in super().read(step):
                yield {**records, "i5": b"{"}

    try:
        await build(Broken(CATALOGUES["one leaf"]), settings, JobReport.unwatched(), engine=engine)
    except CorruptSnapshot as error:
        told["unreadable"] = "i5" in str(error)
    told["nodes"] = len(nodes)
    return told


async def unreachable():
    try:
        async with ray_engine("127.0.0.1:1"):
            return "reached"
    except JobFailed as error:
        return error.code


if __name__ == "__main__":
    refused = asyncio.run(unreachable())
    head = {"num_cpus": 1, "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    try:
        cluster.add_node(num_cpus=1)
        cluster.wait_for_nodes()
        told = asyncio.run(story(cluster.address))
    finally:
        cluster.shutdown()
    print(json.dumps({**told, "unreachable": refused}))
"""


def test_two_nodes_build_the_tree_that_one_machine_builds(tmp_path):
    pytest.importorskip("ray")
    script = tmp_path / "story.py"
    script.write_text(STORY, encoding="utf-8")
    paths = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))
    done = subprocess.run(
        [sys.executable, str(script)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": paths},
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4_000:]
    assert json.loads(done.stdout.splitlines()[-1]) == {
        "no categories": True,
        "two levels": True,
        "uneven": True,
        "unreadable": True,
        "nodes": 2,
        "unreachable": "engine_unavailable",
    }

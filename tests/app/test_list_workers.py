"""Lists that other processes make are those of one process, also on a Ray cluster."""

import asyncio
import json
import subprocess
import sys
from pathlib import Path
from secrets import token_hex

import pytest
from pydantic import JsonValue

from app.curate.building.engine import local
from app.jobs import JobReport
from app.list_workers import WorkerAnswers, WorkerOrder, close_workers, opened_answers
from app.lists import ListRun, RunFiles
from app.settings import Settings
from tests.commands import DEMO, command, environment, told

FIELDS: dict[str, JsonValue] = {"strategy": "embedded", "limit": 3}
LINES = 250

# In a process of its own: see test_ray_engine.
STORY = """
import asyncio, json, os, signal, subprocess, sys, time
from pathlib import Path
import ray
from ray.cluster_utils import Cluster
from app.curate.building.ray_engine import ray_engine
from app.jobs import JobReport
from app.list_workers import WorkerOrder, WorkerAnswers, answer_lines
from app.lists import ListRun, RunFiles
from app.settings import Settings

folder = Path(sys.argv[1])
requests = folder / "requests.jsonl"
fields = json.loads(sys.argv[2])


def killed_once(order, lines):
    (folder / f"node {ray.get_runtime_context().get_node_id()}").touch()
    deadline = time.monotonic() + 60
    while len(list(folder.glob("node *"))) < 2 and time.monotonic() < deadline:
        time.sleep(0.05)
    try:
        os.close(os.open(folder / "killed", os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return answer_lines(order, lines)
    os.kill(os.getpid(), signal.SIGKILL)


async def make_lists(address):
    async with ray_engine(address) as engine:

        class Mortal:
            width = engine.width

            async def run(self, task, *args):
                return await engine.run(killed_once, *args)

        answers = WorkerAnswers(Mortal(), WorkerOrder(Settings(), "default", fields))
        await ListRun(answers, RunFiles.beside(folder / "ray", requests)).run(JobReport.unwatched())


if __name__ == "__main__":
    head = {"num_cpus": 1, "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    try:
        cluster.add_node(num_cpus=1)
        cluster.wait_for_nodes()
        asyncio.run(make_lists(cluster.address))
        done = subprocess.run(
            [sys.executable, "-m", "app", "recommend-all", "--requests", requests, "--limit", "3",
             "--strategy", "embedded", "-o", folder / "command", "--engine", "ray",
             "--ray-address", cluster.address],
            capture_output=True, text=True, timeout=120,
        )
    finally:
        cluster.shutdown()
    print(json.dumps(done.stdout + done.stderr))
"""


@pytest.fixture
def order(embedded_url, tmp_path, monkeypatch) -> WorkerOrder:
    """The bundled catalogue in a store that other processes reach, and a file of requests."""
    store = {"UNILLMREC_REDIS_URL": embedded_url, "UNILLMREC_KEY_PREFIX": f"test-{token_hex(6)}"}
    told(command(tmp_path / "data", "import", str(DEMO), "--json", **store))
    lines: list[dict] = [{"user_id": f"u{number}"} for number in range(LINES)]
    lines[3] = {"history": [{"item_id": "book-dune"}]}
    lines[7] = {"limit": 0}
    (tmp_path / "requests.jsonl").write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    with monkeypatch.context() as patch:
        for name, value in environment(tmp_path / "data", **store).items():
            patch.setenv(name, value)
        return WorkerOrder(Settings(), "default", FIELDS)


def expected(order: WorkerOrder, folder: Path) -> list[dict]:
    """The lists that one process makes."""
    files = RunFiles.beside(folder / "own", folder / "requests.jsonl")

    async def run() -> None:
        async with opened_answers(order) as answers:
            await ListRun(answers, files).run(JobReport.unwatched())

    asyncio.run(run())
    return rows_of(files.lists)


def rows_of(lists: Path) -> list[dict]:
    """The lists, without the names and times of answers."""
    rows = [json.loads(line) for line in lists.read_bytes().splitlines()]
    return [{**row, "answer": row["answer"]["items"]} if "answer" in row else row for row in rows]


def test_a_worker_makes_the_lists_that_the_command_makes(order, tmp_path):
    files = RunFiles.beside(tmp_path / "theirs", tmp_path / "requests.jsonl")

    async def made() -> None:
        async with local()(0) as engine:  # a task is a thread
            lists = ListRun(WorkerAnswers(engine, order), files)
            progress = await lists.run(JobReport.unwatched())
        assert (progress.lists, progress.problems) == (LINES - 1, 1)

    try:
        asyncio.run(made())
    finally:
        close_workers()
    found = rows_of(files.lists)
    assert [row["line"] for row in found] == list(range(1, LINES + 1))
    assert found == expected(order, tmp_path)


@pytest.mark.ray
def test_a_cluster_makes_the_lists_that_one_process_makes(order, tmp_path):
    pytest.importorskip("ray")
    script = tmp_path / "story.py"
    script.write_text(STORY, encoding="utf-8")
    settings = order.settings
    assert settings.redis_url
    store = {
        "UNILLMREC_REDIS_URL": settings.redis_url.get_secret_value(),
        "UNILLMREC_KEY_PREFIX": settings.key_prefix,
    }
    own = environment(tmp_path / "data", **store)
    own["PYTHONPATH"] = ":".join(path for path in sys.path if path)
    done = subprocess.run(
        [sys.executable, str(script), str(tmp_path), json.dumps(FIELDS)],
        env=own,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4_000:]
    said = json.loads(done.stdout.splitlines()[-1])
    assert len(list(tmp_path.glob("node *"))) == 2
    assert (tmp_path / "killed").exists()
    assert f"{LINES - 1} lists written" in said
    ours = expected(order, tmp_path)
    assert rows_of(tmp_path / "ray.part") == ours
    assert rows_of(tmp_path / "command") == ours

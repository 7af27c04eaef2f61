"""Several processes behind one port, on one embedded store: kills, and the end of them all."""

import os
import signal
import sys

import httpx2
import pytest

from tests.app.cli.processes import PATIENCE_S, alive, answers, family, until, workers
from tests.commands import apart, command, serving, told
from tree.redis.data_folder import running_url

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")

WORKERS = 2
ITEM = "/v1/catalogs/default/items/a"


def test_what_one_worker_wrote_all_serve_and_a_killed_one_is_replaced(tmp_path):
    folder = tmp_path / "data"
    with serving(folder, "--workers", str(WORKERS)) as (url, process):
        until(lambda: answers(url), "no worker serves")
        with httpx2.Client(base_url=url, timeout=PATIENCE_S) as writer:
            for number in range(5):
                title = f"Title {number}"
                assert writer.put(ITEM, json={"title": title}).status_code in (200, 201)
                for _ in range(4 * WORKERS):  # each on a connection of its own
                    assert httpx2.get(url + ITEM).json()["title"] == title

        before = workers(process)
        assert len(before) == WORKERS
        os.kill(min(before), signal.SIGKILL)
        until(
            lambda: len(workers(process) - before) == 1 and len(workers(process)) == WORKERS,
            "the killed worker is not replaced",
        )
        for _ in range(4 * WORKERS):
            assert httpx2.get(url + ITEM, timeout=PATIENCE_S).json()["title"] == "Title 4"
            answer = httpx2.post(f"{url}/v1/catalogs/default/recommend", json={}).json()
            assert [item["item_id"] for item in answer["items"]] == ["a"]

        everybody = family(process)
        process.send_signal(signal.SIGINT)
        assert process.wait(PATIENCE_S) == 0
    until(lambda: not any(map(alive, everybody)), "something outlives the service")
    assert running_url(folder) is None


def test_workers_end_with_a_parent_that_was_killed(tmp_path):
    folder = tmp_path / "data"
    with serving(folder, "--workers", "2") as (url, process):
        until(lambda: answers(url), "no worker serves")
        assert httpx2.put(url + ITEM, json={"title": "A"}).status_code == 201
        everybody = family(process)
        assert len(workers(process)) == 2
        process.kill()
        process.wait()
        until(lambda: not any(map(alive, everybody)), "orphans keep the port")
    with serving(folder) as (url, process):
        assert httpx2.get(url + ITEM).json()["title"] == "A"


def test_a_data_folder_is_served_once(tmp_path):
    folder = tmp_path / "data"
    with serving(folder, "--workers", "2") as (url, process):
        until(lambda: answers(url), "the first does not serve")
        for second in ((), ("--workers", "2")):
            refused = apart(folder, "serve", "--port", "0", *second)
            assert refused.returncode == 1
            assert refused.stderr == (
                f"unillmrec: the data folder {folder} belongs to a running service "
                f"(process {process.pid}): stop it, or choose another folder\n"
            )
        one = tmp_path / "one.jsonl"
        one.write_text('{"id": "a", "title": "Beside"}\n')
        told(command(folder, "import", str(one), "--json"))  # works on the store that runs
        assert httpx2.get(url + ITEM).json()["title"] == "Beside"

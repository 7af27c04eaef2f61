"""The embedded store below a real service: killed, spoilt, copied, and not there at all."""

import os
import shutil
import signal
import sys
from threading import Event, Thread
from typing import Any

import httpx2
import pytest
from typer.testing import CliRunner, Result

from app.cli import commands
from tests.app.cli.processes import PATIENCE_S, alive, answers, family, until
from tests.commands import DEMO, apart, serving
from tree.redis.data_folder import running_url

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")

ITEMS = "/v1/catalogs/default/items"
STORE_KILLS = 2


def store_of(process) -> int | None:
    """The process id of the embedded store, while there is one."""
    return next((pid for pid, line in family(process).items() if "valkey-server" in line), None)


class Writer(Thread):
    """Puts one item after another until it is told to stop, and notes which were acknowledged."""

    def __init__(self, url: str) -> None:
        super().__init__(daemon=True)
        self._url = url
        self.enough = Event()
        self.acknowledged: list[str] = []

    def run(self) -> None:
        number = 0
        with httpx2.Client(base_url=self._url, timeout=PATIENCE_S) as client:
            while not self.enough.is_set():
                number += 1
                try:
                    reply = client.put(f"{ITEMS}/i{number}", json={"title": f"Title {number}"})
                except httpx2.TransportError:
                    continue
                if reply.status_code in (200, 201):
                    self.acknowledged.append(f"i{number}")
                else:
                    assert reply.status_code == 503, reply.text


@pytest.mark.parametrize("more", [(), ("--workers", "2")])
def test_a_killed_store_comes_back_with_every_acknowledged_write(tmp_path, more):
    with serving(tmp_path / "data", *more) as (url, process):
        until(lambda: answers(url), "it never serves")
        writer = Writer(url)
        writer.start()
        for _ in range(STORE_KILLS):
            seen = len(writer.acknowledged)
            until(lambda seen=seen: len(writer.acknowledged) > seen + 5, "no write gets through")
            killed = store_of(process)
            assert killed is not None
            os.kill(killed, signal.SIGKILL)
            until(lambda killed=killed: store_of(process) not in (None, killed), "no new store")
        seen = len(writer.acknowledged)
        until(lambda: len(writer.acknowledged) > seen + 5, "no write gets through at the end")
        writer.enough.set()
        writer.join(PATIENCE_S)
        assert answers(url)
        found = httpx2.get(f"{url}/v1/catalogs/default/exports/items", timeout=PATIENCE_S).text
        lost = {one for one in writer.acknowledged if f'"{one}"' not in found}
        assert lost == set()


@pytest.mark.parametrize("more", [(), ("--workers", "2")])
def test_a_store_that_cannot_come_back_ends_the_service_with_a_reason(tmp_path, more):
    folder = tmp_path / "data"
    with serving(folder, *more) as (url, process):
        until(lambda: answers(url), "it never serves")
        assert httpx2.put(f"{url}{ITEMS}/a", json={"title": "A"}).status_code == 201
        everybody = family(process)
        (log,) = (folder / "appendonlydir").glob("*.incr.aof")
        log.write_bytes(log.read_bytes().replace(b"*3", b"#3"))
        store = store_of(process)
        assert store is not None
        os.kill(store, signal.SIGKILL)
        _, said = process.communicate(timeout=PATIENCE_S)
        assert process.returncode == 1
        assert "unillmrec: the embedded store does not start: move " in said
        until(lambda: not any(map(alive, everybody)), "something outlives the service")


def asked(monkeypatch: pytest.MonkeyPatch, call: str, **environment: Any) -> Result:
    """A command in this process."""
    for name, value in environment.items():
        monkeypatch.setenv(f"UNILLMREC_{name}", str(value))
    return CliRunner().invoke(commands, call)


def test_a_copy_of_a_running_folder_reaches_nothing_of_the_original(tmp_path, monkeypatch):
    folder, copy = tmp_path / "data", tmp_path / "copy"
    with serving(folder) as (url, process):
        assert httpx2.put(f"{url}{ITEMS}/a", json={"title": "Original"}).status_code == 201
        store = store_of(process)
        shutil.copytree(folder, copy, ignore=shutil.ignore_patterns("*.sock"))
        assert running_url(copy) is None
        one = tmp_path / "one.jsonl"
        one.write_text('{"id": "b", "title": "Of the copy"}\n')
        assert asked(monkeypatch, f"import {one}", DATA_DIR=copy).exit_code == 0
        with serving(copy) as (other, _):
            assert httpx2.get(f"{other}{ITEMS}/a").json()["title"] == "Original"
            assert httpx2.get(f"{other}{ITEMS}/b").json()["title"] == "Of the copy"
            assert httpx2.put(f"{other}{ITEMS}/a", json={"title": "Copy"}).status_code == 200
            # On the store that serves the copy.
            assert asked(monkeypatch, f"import {one}", DATA_DIR=copy).exit_code == 0
        assert store_of(process) == store
        assert httpx2.get(f"{url}{ITEMS}/a").json()["title"] == "Original"
        assert httpx2.get(f"{url}{ITEMS}/b").status_code == 404
        assert asked(monkeypatch, "versions", DATA_DIR=folder).exit_code == 0


def test_a_command_in_a_folder_without_a_store_says_so_and_makes_none(tmp_path, monkeypatch):
    (tmp_path / "empty").mkdir()
    reading = ["tree", "versions", "export", "doctor --json", "recommend", "rebuild", "activate 1"]
    keys = ["keys list", "keys revoke ulr_id", "keys create name -s events -c shop"]
    for folder in (tmp_path / "empty", tmp_path / "missing"):
        for call in (*reading, f"events {DEMO}", f"backup {tmp_path}/b.zip", "compact", *keys):
            done = asked(monkeypatch, call, DATA_DIR=folder)
            assert done.exit_code == 1, call
            assert f"there is no store in the folder {folder}: set UNILLMREC_DATA" in done.output
            assert list(tmp_path.rglob("*")) == [tmp_path / "empty"]


def test_a_store_url_that_leads_to_another_server_is_one_line(tmp_path, monkeypatch):
    with serving(tmp_path / "data") as (url, _):
        wrong = url.replace("http://", "redis://:secret@")
        served = apart(tmp_path / "other", "serve", "--port", "0", UNILLMREC_REDIS_URL=wrong)
        assert served.returncode == 1
        said = [served.stdout + served.stderr]
        for call in ("tree", "doctor --json"):
            done = asked(monkeypatch, call, REDIS_URL=wrong, DATA_DIR=tmp_path / "other")
            assert done.exit_code == 1
            said.append(done.output)
        for words in said:
            assert "no Redis or Valkey server" in words
            assert "secret" not in words
            assert "Traceback" not in words

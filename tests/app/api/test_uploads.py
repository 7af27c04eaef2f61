"""Uploads whose import never came about are removed, and no others."""

import asyncio
import os
import queue
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx2

from app.catalog_jobs import CatalogJobs
from app.composition import services
from app.curate.imports.uploads import new_upload
from app.settings import Settings
from tests.app.api.support import served
from tests.commands import serving

WAIT_S = 30
LINE = b'{"id": "a", "title": "A"}\n'


def aged(path: Path, age_s: float) -> None:
    os.utime(path, (time.time() - age_s,) * 2)


def test_a_start_removes_uploads_that_no_job_can_name_any_more(tmp_path):
    settings = Settings(data_dir=tmp_path)
    settings.uploads.mkdir()
    old, young = settings.uploads / "old", settings.uploads / "young"
    for path, age_s in ((old, settings.job_ttl_s + 60), (young, settings.job_ttl_s - 600)):
        path.write_bytes(b"{}")
        aged(path, age_s)
    with served(settings):
        assert [path.name for path in settings.uploads.iterdir()] == ["young"]


async def test_the_upload_of_a_process_that_was_killed_is_removed_by_another(tmp_path):
    settings = Settings(data_dir=tmp_path / "data")
    going_on = threading.Event()

    def body() -> Iterator[bytes]:
        yield LINE * 20_000
        going_on.wait(WAIT_S)

    told: queue.Queue[Exception] = queue.Queue()

    def upload(url: str) -> None:
        headers = {"Content-Type": "application/x-ndjson"}
        try:
            httpx2.post(f"{url}/v1/catalogs/default/imports", content=body(), headers=headers)
        except httpx2.TransportError as error:
            told.put(error)

    with serving(settings.data_dir) as (url, process):
        sender = threading.Thread(target=upload, args=(url,))
        sender.start()
        deadline = time.monotonic() + WAIT_S
        while not list(settings.uploads.glob("*")):
            assert time.monotonic() < deadline
            await asyncio.sleep(0.01)
        process.kill()
        process.wait()
        going_on.set()
        sender.join()
    assert isinstance(told.get_nowait(), Exception)
    (lost,) = settings.uploads.iterdir()
    async with services(settings) as parts:
        with new_upload(settings.uploads) as slow:
            slow.file.write(LINE)
            slow.file.flush()
            for part in settings.uploads.iterdir():
                aged(part, 120)
            await CatalogJobs(parts.catalogs, settings).housekeep()
            assert list(settings.uploads.iterdir()) == [slow.path] != [lost]
            whole = slow.finish()
        assert whole.read_bytes() == LINE
        assert list(settings.uploads.iterdir()) == [whole]

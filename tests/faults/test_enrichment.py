"""Processes are killed in the middle of an enrichment: every line is paid for once, and right."""

import asyncio
import json
import time
from collections import Counter

import httpx2

from tests.app.curate.enrichment.support import items_of, line_of, lines_json
from tests.commands import DEMO
from tests.faults.fleet import Fleet, running
from tests.servers.hostile import MODEL, one_pick
from tree.item import Item

_KILLS = 5
_CALLS = 2  # of a process at once
_LINES = 30  # of a call
_CALL_S = 0.4
_DEADLINE_S = 120
_ITEMS = "\n\nItems:\n"
_CATALOG = "/v1/catalogs/default"


async def test_a_job_that_is_killed_five_times_pays_for_each_line_once(
    store, tmp_path, open_room, hostile_server, capsys
):
    demo_items = [Item.model_validate_json(row) for row in DEMO.read_text("utf-8").splitlines()]

    def slow(prompt: str) -> str:
        if _ITEMS not in prompt:  # a process that starts asks whether the model answers
            return one_pick(prompt)
        time.sleep(_CALL_S)  # of the server's thread: calls are answered one after the other
        return lines_json(prompt)

    def asked() -> list[str]:
        prompts = [body["messages"][-1]["content"] for body in hostile_server.requests]
        return [prompt for prompt in prompts if _ITEMS in prompt]

    hostile_server.content = slow
    settings = {
        "LLM_BASE_URL": hostile_server.base_url,
        "LLM_API_KEY": "key",
        "LLM_MODEL": MODEL,
        "LLM_LABELS": "false",
        "LLM_REPLY_MODE": "json_schema",
        "LLM_ENRICH_CONCURRENCY": str(_CALLS),
    }
    async with (
        open_room(store.url) as room,
        running(tmp_path, prefix=room.prefix, apis=1, store=store, settings=settings) as fleet,
    ):
        await _stock(fleet, demo_items)
        async with httpx2.AsyncClient(base_url=fleet.urls[0], timeout=30) as client:
            job = (await client.post(f"{_CATALOG}/enrichments")).json()
        for _ in range(_KILLS):
            before = len(asked())
            await _until(lambda: len(asked()) >= before + 2 * _CALLS)  # noqa: B023
            fleet.apis[0].kill()
            await fleet.revive()
        await fleet.ready()
        async with httpx2.AsyncClient(base_url=fleet.urls[0], timeout=30) as client:
            ended = await _ended(client, job["id"])
            rows = (await client.get(f"{_CATALOG}/exports/items")).text.splitlines()
    counts = Counter(text for one in asked() for _, text in items_of(one).values())
    again = sum(count - 1 for count in counts.values())
    with capsys.disabled():
        print(f"\n{len(counts)} lines, of which {again} were asked for again, {ended['attempt']=}")
    assert ended["state"] == "succeeded", ended
    assert ended["attempt"] == _KILLS + 1
    assert len(counts) == len(demo_items)
    assert again <= _KILLS * _CALLS * _LINES  # those of calls that a kill has cut off
    lines = {row["title"]: row["enrichment"]["text"] for row in map(json.loads, rows)}
    assert lines == {item.title: line_of(item.title) for item in demo_items}


async def _stock(fleet: Fleet, items: list[Item]) -> None:
    async with httpx2.AsyncClient(base_url=fleet.urls[0], timeout=60) as client:
        rows = [item.model_dump(mode="json", exclude_defaults=True) for item in items]
        reply = await client.post(f"{_CATALOG}/items:batch", json={"upserts": rows})
        assert {row["status"] for row in reply.json()["results"]} == {"created"}
        deadline = time.monotonic() + _DEADLINE_S
        while True:  # the first build of the tree
            jobs = (await client.get("/v1/jobs")).json()["jobs"]
            if jobs and all(job["state"] == "succeeded" for job in jobs):
                return
            assert time.monotonic() < deadline, jobs
            await asyncio.sleep(0.1)


async def _ended(client: httpx2.AsyncClient, job_id: str) -> dict:
    deadline = time.monotonic() + _DEADLINE_S
    while True:
        job = (await client.get(f"/v1/jobs/{job_id}")).json()
        if job["state"] in ("succeeded", "failed", "cancelled"):
            return job
        assert time.monotonic() < deadline, job
        await asyncio.sleep(0.1)


async def _until(holds) -> None:
    deadline = time.monotonic() + _DEADLINE_S
    while not holds():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.02)

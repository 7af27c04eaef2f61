"""Lines of items by a model, over HTTP."""

import json
import time
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

from tests.app.api.modelled import CATALOG, with_model
from tests.app.api.support import assert_problem, ended, pointers, served
from tests.app.curate.enrichment.support import line_of, lines_json
from tests.servers.hostile import MODEL, HostileServer
from tree.item import Item

PATIENCE_S = 60  # the first items wait ten seconds for more

_WAIT_S = 90


@pytest.fixture
def modelled(
    tmp_path: Path, embedded_url: str, hostile_server: HostileServer, demo_items: list[Item]
) -> Iterator[httpx2.Client]:
    hostile_server.content = lines_json
    settings = with_model(
        tmp_path,
        embedded_url,
        hostile_server.base_url,
        llm_reply_mode="json_schema",
        llm_prices={MODEL: {"input": 2.0, "output": 8.0}},
    )
    with served(settings) as url, httpx2.Client(base_url=url, timeout=30) as client:
        rows = [item.model_dump(mode="json", exclude_defaults=True) for item in demo_items[:60]]
        assert client.post(f"{CATALOG}/items:batch", json={"upserts": rows}).status_code == 200
        hostile_server.requests.clear()
        yield client


def test_an_enrichment_is_a_job_that_says_what_it_cost(modelled, demo_items, hostile_server):
    told = modelled.post(f"{CATALOG}/enrichments", json={"dry_run": True})
    estimate = ended(modelled, told)["result"]["estimate"]
    assert estimate["items"] == 60
    assert 0 < estimate["cost_usd"] < 1
    assert hostile_server.requests == []

    reply = modelled.post(f"{CATALOG}/enrichments")
    assert reply.status_code == 202
    assert reply.headers["location"] == f"/v1/jobs/{reply.json()['id']}"
    job = ended(modelled, reply)
    assert (job["type"], job["state"]) == ("enrichment", "succeeded"), job
    assert job["result"]["enriched"] == 60
    assert job["cost_usd"] == pytest.approx(job["result"]["cost_usd"], abs=1e-6)
    assert job["cost_usd"] > 0
    shown = modelled.get(CATALOG).json()["enrichment"]
    cost = pytest.approx(job["cost_usd"], abs=1e-6)
    assert shown == {"enriched": 60, "waiting": 0, "failed": 0, "cost_usd": cost}
    path = f"{CATALOG}/items/{demo_items[0].id}/enrichment"
    line = modelled.get(path).json()
    assert line["text"] == line_of(demo_items[0].title)
    assert line["source"] == "model"


def test_new_items_get_lines_by_themselves_once_the_owner_wants_that(modelled, hostile_server):
    modelled.put(f"{CATALOG}/items/first", json={"title": "A first lamp for reading in bed"})
    wanted = {"guidance": "Lamps for old houses.", "enrichment": {"enabled": True}}
    assert modelled.patch(CATALOG, json=wanted).status_code == 200
    modelled.put(f"{CATALOG}/items/new", json={"title": "A second lamp for reading in bed"})
    deadline = time.monotonic() + PATIENCE_S
    while not (line := modelled.get(f"{CATALOG}/items/new/enrichment")).is_success:
        assert time.monotonic() < deadline, "the item gets no line"
        time.sleep(0.2)
    assert line.json()["text"] == line_of("A second lamp for reading in bed")
    asked = json.dumps(hostile_server.requests)
    assert "Lamps for old houses." in asked


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({"only": "some"}, "/only"),
        ({"max_cost_usd": -1}, "/max_cost_usd"),
        ({"max_cost_usd": "much"}, "/max_cost_usd"),
        ({"dry_run": 1}, "/dry_run"),
        ({"budget": 1}, "/budget"),
    ],
)
def test_a_wrong_body_is_refused(api, catalog, body, pointer):
    reply = api.post(f"{catalog}/enrichments", json=body)
    assert pointers(assert_problem(reply, 422, "invalid_request")) == [pointer]


def test_without_a_model_the_job_says_so(api, catalog):
    job = ended(api, api.post(f"{catalog}/enrichments"))
    assert job["state"] == "failed"
    assert job["problem"]["code"] == "no_model"
    assert "UNILLMREC_LLM_MODEL" in job["problem"]["detail"]


def test_new_items_get_lines_by_themselves_once_the_owner_says_so(modelled, hostile_server):
    item = {"title": "Copper kettle"}
    assert modelled.put(f"{CATALOG}/items/before", json=item).status_code == 201
    body = {"enrichment": {"enabled": True}, "guidance": "Things for a small kitchen."}
    assert modelled.patch(CATALOG, json=body).status_code == 200
    assert modelled.put(f"{CATALOG}/items/after", json=item | {"title": "Iron pan"}).is_success
    deadline = time.monotonic() + _WAIT_S
    while (line := modelled.get(f"{CATALOG}/items/after/enrichment")).status_code == 404:
        assert time.monotonic() < deadline, hostile_server.requests
        time.sleep(0.1)
    assert line.json()["text"] == line_of("Iron pan")
    assert "Things for a small kitchen." in str(hostile_server.requests[-1])

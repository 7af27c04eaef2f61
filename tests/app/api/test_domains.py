"""A catalogue gets so many domains and no more, on whichever way an item comes in."""

import json

import pytest

from tests.app.api.support import assert_problem, ended, item_path
from tree.snapshot import MOST_DOMAINS

JSONL = {"Content-Type": "application/x-ndjson"}


@pytest.fixture
def full(api, catalog) -> str:
    """The path of a catalogue that has one domain less than it may."""
    items = [{"id": f"i{n}", "title": "A", "domain": f"d{n}"} for n in range(MOST_DOMAINS - 1)]
    content = "\n".join(map(json.dumps, items))
    job = ended(api, api.post(f"{catalog}/imports", content=content, headers=JSONL))
    assert job["result"]["accepted"] == MOST_DOMAINS - 1, job
    return catalog


def test_one_domain_too_many_is_refused_on_every_way_in(api, full):
    rows = [
        {"id": f"x{place}", "title": "A", "domain": domain}
        for place, domain in enumerate(("new", "newer", "d7", "newest", "new"))
    ]
    reply = api.post(f"{full}/items:batch", json={"upserts": rows})
    assert reply.status_code == 200, reply.text
    results = reply.json()["results"]
    kinds = ["created", "rejected", "created", "rejected", "created"]
    assert [result["status"] for result in results] == kinds
    assert [results[1]["problem"]["code"], results[1]["id"]] == ["too_many_domains", "x1"]
    assert results[3]["problem"]["errors"][0]["pointer"] == "/upserts/3/domain"

    other, known = {"title": "A", "domain": "other"}, {"title": "A", "domain": "d8"}
    assert_problem(api.put(item_path(full, "p"), json=other), 422, "too_many_domains")
    assert_problem(
        api.patch(item_path(full, "i1"), json={"domain": "other"}), 422, "too_many_domains"
    )
    assert api.put(item_path(full, "p"), json=known).status_code == 201
    assert api.patch(item_path(full, "i1"), json={"title": "B"}).json()["domain"] == "d1"

    lines = "\n".join(json.dumps({"id": f"l{n}", **item}) for n, item in enumerate((other, known)))
    job = ended(api, api.post(f"{full}/imports", content=lines, headers=JSONL))
    result = job["result"]
    assert (result["accepted"], result["rejected"]) == (1, 1)
    assert result["errors"][0]["id"] == "l0"
    assert "10,000 domains" in result["errors"][0]["problem"]

    assert api.delete(item_path(full, "i2")).status_code == 204  # makes room
    assert api.put(item_path(full, "q"), json=other).status_code == 201

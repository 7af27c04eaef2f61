"""Answers stay within a bound, however much the items and jobs hold that they tell of."""

import json
from typing import Any

import pytest

from app.limits import ITEM_VALUES
from app.recommend.answer_fields import MOST_BYTES
from tests.app.api.support import ended, item_path

JSONL = {"Content-Type": "application/x-ndjson"}
COUNT = 16
# As JSON 131 kB: sixteen of them are more than an answer may show, and two pages of a list.
LARGE: dict[str, Any] = {
    "title": "Large",
    "description": "d",
    "attributes": {"words": ["x" * 8] * 11_900},
}
_AROUND = 200_000  # bytes: what else is in an answer, or the item with which a page ends


@pytest.fixture
def large(api, catalog) -> str:
    """The path of a catalogue of large items."""
    for number in range(COUNT):
        assert api.put(item_path(catalog, f"i{number}"), json=LARGE).status_code == 201
    return catalog


def test_a_row_of_a_batch_holds_no_more_than_an_item(api, catalog):
    rows = [
        {"id": "a", "title": "A", "attributes": {"words": [""] * (ITEM_VALUES + 1)}},
        {"id": "b", "title": "B", "attributes": {"words": ["", *["x"] * (ITEM_VALUES // 2)]}},
        {"id": "c", "title": "C", "attributes": {f"a{n}": [""] * 2_000 for n in range(7)}},
    ]
    results = api.post(f"{catalog}/items:batch", json={"upserts": rows}).json()["results"]
    assert [row["status"] for row in results] == ["rejected", "created", "rejected"]
    assert f"{ITEM_VALUES:,} values" in results[0]["problem"]["errors"][0]["message"]


def test_an_item_does_not_grow_by_patches_beyond_what_it_may_hold(api, catalog):
    item = item_path(catalog, "i")
    assert api.put(item, json={"title": "A"}).status_code == 201
    half = [""] * (ITEM_VALUES // 2)
    assert api.patch(item, json={"attributes": {"a": half}}).status_code == 200
    refused = api.patch(item, json={"attributes": {"b": half}})
    assert refused.status_code == 422
    assert f"{ITEM_VALUES:,} values" in refused.json()["errors"][0]["message"]
    assert api.get(item).json()["attributes"] == {"a": half}


def test_a_page_of_large_items_ends_early(api, large):
    seen: list[str] = []
    cursor: dict[str, str] | None = {}
    pages = 0
    while cursor is not None:
        reply = api.get(f"{large}/items", params={"limit": 100, **cursor})
        assert len(reply.content) < MOST_BYTES + _AROUND
        page = reply.json()
        seen += [item["id"] for item in page["items"]]
        cursor = {"cursor": page["next_cursor"]} if page["next_cursor"] else None
        pages += 1
    assert sorted(seen) == sorted(f"i{number}" for number in range(COUNT))
    assert pages == 2


def test_a_search_for_text_ends_early_and_goes_on(api, large):
    first = api.get(f"{large}/items", params={"limit": 100, "q": "larg"})
    assert len(first.content) < MOST_BYTES + _AROUND
    rest = api.get(
        f"{large}/items", params={"limit": 100, "q": "larg", "cursor": first.json()["next_cursor"]}
    )
    assert len(first.json()["items"]) + len(rest.json()["items"]) == COUNT


def test_fields_that_would_make_an_answer_too_large_are_left_out(api, large):
    fields = ["title", "words", "description"]
    asked = {"limit": COUNT, "fields": fields, "fold": False}
    reply = api.post(f"{large}/recommend", json=asked)
    answer = reply.json()
    assert len(reply.content) < MOST_BYTES + _AROUND
    assert [item["fields"] for item in answer["items"]] == [{"title": "Large"}] * COUNT
    [warning] = answer["warnings"]
    assert warning["code"] == "fields_left_out"
    assert warning["message"].startswith(f"{COUNT} of the items")

    few = api.post(f"{large}/recommend", json={**asked, "limit": 5}).json()
    assert few["warnings"] == []
    words = LARGE["attributes"]["words"]
    shown = {"title": "Large", "words": words, "description": "d"}
    assert [item["fields"] for item in few["items"]] == [shown] * 5


def test_jobs_are_listed_in_pages_and_in_brief(api, catalog):
    bad = "\n".join(json.dumps({"id": f"i{n}", "title": ""}) for n in range(3))
    started = [
        ended(api, api.post(f"{catalog}/imports", content=bad, headers=JSONL)) for _ in range(5)
    ]
    asked = {"catalog": catalog.rpartition("/")[2], "limit": 2}
    seen: list[dict[str, Any]] = []
    sizes: list[int] = []
    cursor: dict[str, str] | None = {}
    while cursor is not None:
        page = api.get("/v1/jobs", params={**asked, **cursor}).json()
        seen += page["jobs"]
        sizes.append(len(page["jobs"]))
        cursor = {"cursor": page["next_cursor"]} if page["next_cursor"] else None
    assert [job["id"] for job in seen] == [job["id"] for job in reversed(started)]
    assert sizes == [2, 2, 1]
    assert {"rejected", "errors"} & seen[0]["result"].keys() == {"rejected"}
    assert len(api.get(f"/v1/jobs/{seen[0]['id']}").json()["result"]["errors"]) == 3


@pytest.mark.parametrize("query", [{"limit": 0}, {"limit": 1_001}, {"cursor": "job_1"}])
def test_pages_of_jobs_that_make_no_sense_are_refused(api, query):
    assert api.get("/v1/jobs", params=query).status_code == 422

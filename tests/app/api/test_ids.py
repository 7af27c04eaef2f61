"""Ids that clients change on their way are refused; stored ones can be read and removed."""

import asyncio
import json
import re
from urllib.parse import quote

import pytest

from app.composition import services
from app.settings import Settings
from app.storage.feedback import User
from tests.app.api.support import assert_problem, ended, pointers
from tree.item import Item

BREAKS = ["u\n1", "a\r", "\x0bv", "a\x85b", "a\u2028b", "\x1b[2J"]
DOTS = [".", "..", "a/../b", "../b", "b/."]
FINE = ["...", "a..b", ".hidden", "a/.b", "b./c", "..a/b..", "a%2e%2e", "\u200fשלום"]


def item_path(catalog: str, item_id: str) -> str:
    """A path that no client tidies up."""
    return f"{catalog}/items/{quote(item_id, safe='').replace('.', '%2E')}"


def user_path(catalog: str, user_id: str) -> str:
    return item_path(catalog, user_id).replace("/items/", "/users/")


@pytest.mark.parametrize("one", [*DOTS, *BREAKS])
def test_a_misleading_id_is_refused_on_every_way_in(api, films, one):
    event = {"event_id": "e", "user_id": "u", "item_id": "f0", "type": "view"}
    refused = [
        api.put(item_path(films, one), json={"title": "A"}),
        api.patch(item_path(films, one), json={"title": "A"}),
        api.put(user_path(films, one), json={}),
        api.put(f"{films}/users/u", json={"history": [one]}),
        api.post(f"{films}/recommend", json={"user_id": one}),
    ]
    for reply in refused:
        problem = assert_problem(reply, 422, "invalid_request")
        assert "line breaks" in problem["errors"][0]["message"]
    batch = api.post(f"{films}/items:batch", json={"upserts": [{"id": one, "title": "A"}]})
    assert batch.json()["results"][0]["status"] == "rejected"
    assert "line breaks" in batch.json()["results"][0]["problem"]["errors"][0]["message"]
    events = [{**event, "user_id": one}, {**event, "item_id": one}]
    rows = api.post(f"{films}/events", json={"events": events}).json()["results"]
    assert [row["status"] for row in rows] == ["rejected", "rejected"]
    lines = json.dumps({"id": one, "title": "A"}).encode()
    kind = {"Content-Type": "application/x-ndjson"}
    job = ended(api, api.post(f"{films}/imports", content=lines, headers=kind))
    assert (job["result"]["accepted"], job["result"]["rejected"]) == (0, 1)
    assert "line breaks" in job["result"]["errors"][0]["problem"]
    assert api.get(films).json()["items"] == 40


def test_the_address_of_a_line_is_no_id_of_an_item(api, films):
    one = "f0/enrichment"
    put = api.put(item_path(films, one), json={"title": "A"})
    assert_problem(put, 422, "invalid_request")
    batch = api.post(f"{films}/items:batch", json={"upserts": [{"id": one, "title": "A"}]})
    (row,) = batch.json()["results"]
    assert row["status"] == "rejected"
    assert 'must not end with "/enrichment"' in row["problem"]["errors"][0]["message"]
    lines = json.dumps({"id": one, "title": "A"}).encode()
    kind = {"Content-Type": "application/x-ndjson"}
    job = ended(api, api.post(f"{films}/imports", content=lines, headers=kind))
    assert (job["result"]["accepted"], job["result"]["rejected"]) == (0, 1)
    assert 'must not end with "/enrichment"' in job["result"]["errors"][0]["problem"]
    assert api.put(user_path(films, one), json={}).status_code == 200


@pytest.mark.parametrize("one", [*FINE, "enrichment", "a/enrichments", "a/enrichment/b"])
def test_dots_within_a_part_are_fine(api, catalog, one):
    assert api.put(item_path(catalog, one), json={"title": "A"}).status_code == 201
    assert api.get(item_path(catalog, one)).json()["id"] == one
    assert api.put(user_path(catalog, one), json={}).status_code == 200
    assert api.delete(user_path(catalog, one)).status_code == 204


def test_the_description_says_which_ids_are_taken(api):
    document = api.get("/openapi.json").json()
    schemas = document["components"]["schemas"]
    patterns = {
        schemas["Item"]["properties"]["id"]["pattern"],
        schemas["UserContent"]["properties"]["history"]["items"]["pattern"],
        schemas["RecommendRequest"]["properties"]["user_id"]["anyOf"][0]["pattern"],
    }
    for path in ("/items/{item_id}", "/users/{user_id}"):
        put = document["paths"][f"/v1/catalogs/{{catalog}}{path}"]["put"]
        (named,) = [one["schema"] for one in put["parameters"] if one["name"].endswith("_id")]
        patterns.add(named["pattern"])
    for pattern in patterns:
        assert not any(re.search(pattern, one) for one in [*DOTS, *BREAKS, "", "  "])
        assert all(re.search(pattern, one) for one in FINE)
    (of_items,) = [one for one in patterns if not re.search(one, "7/enrichment")]
    assert of_items == schemas["Item"]["properties"]["id"]["pattern"]
    assert len(patterns) == 2


def test_what_an_earlier_release_has_stored_is_read_and_can_be_removed(
    api, films, service_settings
):
    old = ["a/../b", "u\n1", ".", "f0/enrichment"]
    asyncio.run(_store(service_settings, films.rpartition("/")[2], old))
    for one in old:
        assert api.get(f"{films}/similar", params={"item_id": one}).status_code == 200
    assert api.get(item_path(films, "a/../b")).json()["id"] == "a/../b"
    assert api.get(user_path(films, "a/../b")).json()["profile"] == "old"
    assert_problem(api.get(item_path(films, "u\n1")), 422, "invalid_request")
    listed = api.get(f"{films}/items", params={"limit": 100}).json()["items"]
    assert {item["id"] for item in listed} >= set(old)
    exported = api.get(f"{films}/exports/items").text.splitlines()
    assert {json.loads(line)["id"] for line in exported} >= set(old)
    asked = {"history": [{"item_id": one} for one in old], "exclude_items": old}
    assert api.post(f"{films}/recommend", json=asked).json()["absent_items"] == []

    batch = api.post(f"{films}/items:batch", json={"deletes": old}).json()["results"]
    assert [row["status"] for row in batch] == ["deleted"] * len(old)
    erased = api.post(f"{films}/users:erase", json={"user_ids": [*old, "nobody", 7, ""]})
    states = [row["status"] for row in erased.json()["results"]]
    assert states == ["erased"] * (len(old) + 1) + ["rejected"] * 2
    assert (
        erased.json()["results"][-1]["problem"]["errors"][0]["pointer"]
        == f"/user_ids/{len(old) + 2}"
    )
    assert asyncio.run(_users(service_settings, films.rpartition("/")[2], old)) == [None] * len(old)
    assert api.get(films).json()["items"] == 40


def test_at_most_a_thousand_users_are_erased_at_once(api, films):
    reply = api.post(f"{films}/users:erase", json={"user_ids": ["u"] * 1_001})
    assert pointers(assert_problem(reply, 422, "invalid_request")) == ["/user_ids"]


async def _store(settings: Settings, catalog: str, ids: list[str]) -> None:
    async with services(settings, attach=True) as parts:
        target = await parts.catalogs.get(catalog)
        await target.curator.put(
            [Item.stored(json.dumps({"id": one, "title": "Old"}).encode()) for one in ids]
        )
        for one in ids:
            await target.put_user(one, User((), "old", {}))


async def _users(settings: Settings, catalog: str, ids: list[str]) -> list[User | None]:
    async with services(settings, attach=True) as parts:
        target = await parts.catalogs.get(catalog)
        return [await target.feedback.user(one) for one in ids]

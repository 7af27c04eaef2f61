"""Lines of items over HTTP."""

import json

import pytest

from tests.app.api.support import assert_problem, ended, item_path, pointers

WALKS = "For long walks in bad weather; goes with wool socks."


JSONL = {"Content-Type": "application/x-ndjson"}


def path(catalog: str, item_id: str) -> str:
    return f"{item_path(catalog, item_id)}/enrichment"


@pytest.mark.parametrize("item_id", ["boots", "a/b", "what?is#this%2F"])
def test_a_line_is_set_read_and_removed(api, catalog, item_id):
    item, line = item_path(catalog, item_id), path(catalog, item_id)
    api.put(item, json={"title": "Boots"})
    assert_problem(api.get(line), 404, "no_enrichment")
    expected = {"item_id": item_id, "text": WALKS, "source": "owner"}
    done = api.put(line, json={"text": f" {WALKS} "})
    assert (done.status_code, done.json()) == (200, expected)
    assert api.get(line).json() == expected

    assert "enrichment" not in api.get(item).json()
    assert api.get(item, params={"include": "enrichment"}).json()["enrichment"] == expected
    (listed,) = api.get(f"{catalog}/items", params={"include": "enrichment"}).json()["items"]
    assert (listed["id"], listed["enrichment"]) == (item_id, expected)

    assert api.delete(line).status_code == 204
    assert_problem(api.get(line), 404, "no_enrichment")
    assert api.get(item, params={"include": "enrichment"}).json()["enrichment"] is None


def test_the_next_request_finds_an_item_by_its_line(api, films):
    wish = {"instruction": "something about beekeeping on a roof", "limit": 5}
    assert api.put(path(films, "f7"), json={"text": "A film about beekeeping on a roof"}).is_success
    found = api.post(f"{films}/recommend", json=wish).json()["items"]
    assert found[0]["item_id"] == "f7"


def test_the_line_stays_when_the_item_is_put_again(api, catalog):
    item, line = item_path(catalog, "boots"), path(catalog, "boots")
    api.put(item, json={"title": "Boots"})
    api.put(line, json={"text": WALKS})
    assert api.put(item, json={"title": "Other boots"}).status_code == 200
    assert api.patch(item, json={"keywords": ["leather"]}).status_code == 200
    assert api.get(line).json()["text"] == WALKS
    api.delete(item)
    assert_problem(api.get(line), 404, "unknown_item")
    assert_problem(api.put(line, json={"text": WALKS}), 404, "unknown_item")
    assert_problem(api.delete(line), 404, "unknown_item")
    api.put(item, json={"title": "Boots"})
    assert_problem(api.get(line), 404, "no_enrichment")


@pytest.mark.parametrize(
    ("body", "place"),
    [
        ({"text": ""}, "/text"),
        ({"text": "a\nb"}, "/text"),
        ({"text": "<b>Boots</b>"}, "/text"),
        ({"text": "x" * 10_000}, "/text"),
        ({"text": 5}, "/text"),
        ({}, "/text"),
        ({"text": WALKS, "source": "model"}, "/source"),
    ],
)
def test_what_is_no_line_is_refused(api, catalog, body, place):
    api.put(item_path(catalog, "boots"), json={"title": "Boots"})
    problem = assert_problem(api.put(path(catalog, "boots"), json=body), 422, "invalid_request")
    assert pointers(problem) == [place]
    assert_problem(api.get(path(catalog, "boots")), 404, "no_enrichment")


def test_an_item_has_no_such_field(api, catalog):
    reply = api.put(item_path(catalog, "boots"), json={"title": "Boots", "enrichment": WALKS})
    assert_problem(reply, 422, "invalid_request")


def test_an_export_has_the_lines_and_an_import_reads_them(api, catalog, films):
    api.put(path(films, "f1"), json={"text": WALKS})
    exported = api.get(f"{films}/exports/items").text
    assert exported.count('"enrichment"') == 1
    model = {"text": "Of a model", "source": "model"}
    more = [
        {"id": "m1", "title": "Boots", "enrichment": model},
        {"id": "m2", "title": "Boots", "enrichment": {**model, "of": "another text"}},
        {"id": "m3", "title": "Boots", "enrichment": WALKS},
        {"id": "m4", "title": "Boots", "enrichment": "<b>Boots</b>"},
        {"id": "m5", "title": "Boots", "enrichment": {"text": 5}},
        {"id": "m6", "title": "Boots", "enrichment": None},
        {"id": "m7", "title": "", "enrichment": WALKS},
    ]
    body = exported + "".join(json.dumps(row) + "\n" for row in more)
    job = ended(api, api.post(f"{catalog}/imports", content=body, headers=JSONL))
    assert job["result"]["accepted"] == 44
    problems = {row["id"]: row["problem"] for row in job["result"]["errors"]}
    assert {one: problem.partition(":")[0] for one, problem in problems.items()} == {
        "m4": "enrichment", "m5": "enrichment", "m7": "title",
    }  # fmt: skip
    listed = api.get(f"{catalog}/items", params={"include": "enrichment", "limit": 100}).json()
    lines = {row["id"]: row["enrichment"] for row in listed["items"] if row["enrichment"]}
    assert {one: (line["text"], line["source"]) for one, line in lines.items()} == {
        "f1": (WALKS, "owner"), "m1": ("Of a model", "model"), "m3": (WALKS, "owner"),
    }  # fmt: skip
    assert "enrichment" not in api.get(f"{catalog}/items/f1").json()


def test_a_batch_tells_what_became_of_every_row(api, catalog):
    items = [{"id": f"i{n}", "title": f"Thing {n}"} for n in range(60)]
    api.post(f"{catalog}/items:batch", json={"upserts": items})
    rows = [
        {"item_id": "i0", "text": "first"},
        {"item_id": "i0", "text": WALKS},
        {"item_id": "i1", "text": None},
        {"item_id": "nobody", "text": WALKS},
        {"item_id": "i2", "text": "<b>"},
        {"item_id": "i3"},
        "no object",
        {"item_id": "i4", "text": WALKS, "more": 1},
        *({"item_id": f"i{n}", "text": f"For the use {n}"} for n in range(10, 60)),
    ]
    reply = api.post(f"{catalog}/enrichments:batch", json={"lines": rows})
    assert reply.status_code == 200, reply.text
    results = reply.json()["results"]
    assert [row["item_id"] for row in results[:8]] == [
        "i0", "i0", "i1", "nobody", "i2", "i3", None, "i4",
    ]  # fmt: skip
    assert [row["status"] for row in results[:8]] == [
        "set", "set", "unchanged", "unknown_item", "rejected", "rejected", "rejected", "rejected",
    ]  # fmt: skip
    assert {row["status"] for row in results[8:]} == {"set"}
    places = [row["problem"]["errors"][0]["pointer"] for row in results[4:8]]
    assert places == ["/lines/4/text", "/lines/5/text", "/lines/6", "/lines/7/more"]
    assert api.get(path(catalog, "i0")).json()["text"] == WALKS

    again = [{"item_id": "i0", "text": WALKS}, {"item_id": "i10", "text": None}]
    results = api.post(f"{catalog}/enrichments:batch", json={"lines": again}).json()["results"]
    assert [row["status"] for row in results] == ["unchanged", "removed"]
    too_many = {"lines": [again[0]] * 1_001}
    assert_problem(api.post(f"{catalog}/enrichments:batch", json=too_many), 422, "invalid_request")


def test_a_catalogue_shows_how_many_items_have_a_line(api, films):
    nothing = {"failed": 0, "cost_usd": 0.0}
    api.put(path(films, "f1"), json={"text": WALKS})
    api.patch(item_path(films, "f2"), json={"hidden": True})
    assert api.get(films).json()["enrichment"] == {**nothing, "enriched": 1, "waiting": 38}
    api.patch(item_path(films, "f1"), json={"hidden": True})
    assert api.get(films).json()["enrichment"] == {**nothing, "enriched": 1, "waiting": 38}
    api.delete(item_path(films, "f1"))
    assert api.get(films).json()["enrichment"] == {**nothing, "enriched": 0, "waiting": 38}

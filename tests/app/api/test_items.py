"""Items over HTTP: one by one, many at once, listed."""

import json
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.app.api.support import assert_problem, item_path, pointers

DUNE = {"title": "Dune", "categories": ["Books", "Science fiction"], "attributes": {"year": 1965}}
ODD_IDS = [
    "a/b/c",
    "/leading",
    "trailing/",
    "a//b",
    "what?is#this%20%2F",
    "emoji \U0001f600",
    "שלום",
    "items:batch",
    "{braces}:*",
    " blank around ",
    "x" * 256,
    "é" * 256,
]


def test_an_item_is_created_read_replaced_and_deleted(api, catalog):
    path = item_path(catalog, "dune")
    created = api.put(path, json=DUNE)
    assert (created.status_code, created.headers["location"]) == (201, path)
    assert created.json()["id"] == "dune"
    assert api.get(path).json() == created.json()

    replaced = api.put(path, params={"wait": True}, json={"id": "dune", "title": "Dune II"})
    assert replaced.status_code == 200
    assert api.get(path).json()["categories"] == []

    assert api.delete(path).status_code == 204
    assert_problem(api.get(path), 404, "unknown_item")
    assert api.delete(path).status_code == 204


@pytest.mark.parametrize("item_id", ODD_IDS)
def test_an_id_is_any_text(api, catalog, item_id):
    path = item_path(catalog, item_id)
    assert api.put(path, json={"title": "Odd"}).status_code == 201
    assert api.get(path).json()["id"] == item_id
    listed = api.get(f"{catalog}/items").json()["items"]
    assert [item["id"] for item in listed] == [item_id]
    similar = api.get(f"{catalog}/similar", params={"item_id": item_id})
    assert similar.json()["item_id"] == item_id
    assert api.delete(path).status_code == 204
    assert_problem(api.get(path), 404, "unknown_item")


def test_a_slash_in_an_id_needs_no_quoting(api, catalog):
    assert api.put(f"{catalog}/items/a/b", json={"title": "A"}).status_code == 201
    assert api.get(item_path(catalog, "a/b")).json()["id"] == "a/b"


@pytest.mark.parametrize("item_id", ["", "a\x00b", "x" * 257, "   "])
def test_some_texts_are_no_ids(api, catalog, item_id):
    refused = api.put(item_path(catalog, item_id), json={"title": "A"})
    assert_problem(refused, 422, "invalid_request")


def test_bytes_that_are_no_text_make_no_new_id(api, catalog):
    assert api.put(f"{catalog}/items/%ff%fe", json={"title": "A"}).status_code in (201, 422)
    assert api.get(f"{catalog}/items/%ff%fe").status_code in (200, 404, 422)


@pytest.mark.parametrize(
    ("content", "pointer"),
    [
        ({}, "/title"),
        ({"title": ""}, "/title"),
        ({"title": "  "}, "/title"),
        ({"title": "x" * 1_001}, "/title"),
        ({"title": "a\x00b"}, "/title"),
        ({"title": 7}, "/title"),
        ({"title": None}, "/title"),
        ({"id": "other", "title": "A"}, "/id"),
        ({"id": None, "title": "A"}, "/id"),
        ({"title": "A", "titel": "B"}, "/titel"),
        ({"title": "A", "categories": ["c"] * 200}, "/categories"),
        ({"title": "A", "categories": "Books"}, "/categories"),
        ({"title": "A", "keywords": ["ok", 3]}, "/keywords/1"),
        ({"title": "A", "hidden": "yes"}, "/hidden"),
        ({"title": "A", "popularity": -1}, "/popularity"),
        ({"title": "A", "expires_at": "tomorrow"}, "/expires_at"),
        ({"title": "A", "expires_at": "2027-01-01T00:00:00"}, "/expires_at"),
    ],
)
def test_a_flaw_is_pointed_at(api, catalog, content, pointer):
    problem = assert_problem(api.put(item_path(catalog, "a"), json=content), 422, "invalid_request")
    assert any(found.startswith(pointer) for found in pointers(problem))
    assert {flaw["source"] for flaw in problem["errors"]} == {"body"}
    assert_problem(api.get(item_path(catalog, "a")), 404, "unknown_item")


def test_a_pointer_quotes_what_has_a_meaning_in_it(api, catalog):
    problem = assert_problem(
        api.put(item_path(catalog, "a"), json={"title": "A", "a/b~c": 1}), 422, "invalid_request"
    )
    assert pointers(problem) == ["/a~1b~0c"]


def test_a_merge_patch_changes_what_it_names(api, catalog):
    path = item_path(catalog, "dune")
    api.put(path, json={**DUNE, "description": "sand"})
    merge = {"Content-Type": "application/merge-patch+json"}
    patch = {"title": "Dune II", "description": None, "attributes": {"pages": 412, "year": None}}
    patched = api.patch(path, content=json.dumps(patch), headers=merge)
    assert patched.status_code == 200
    item = api.get(path).json()
    assert item == patched.json()
    assert (item["title"], item["description"]) == ("Dune II", "")
    assert item["attributes"] == {"pages": 412}
    assert item["categories"] == DUNE["categories"]


def test_a_patch_that_does_not_fit_changes_nothing(api, catalog):
    path = item_path(catalog, "dune")
    assert_problem(api.patch(path, json={"title": "A"}), 404, "unknown_item")
    api.put(path, json=DUNE)
    assert_problem(api.patch(path, json={"title": None}), 422, "invalid_request")
    assert_problem(api.patch(path, json={"id": "new"}), 422, "invalid_request")
    assert_problem(api.patch(path, json=["title"]), 422, "invalid_request")
    assert_problem(api.patch(path, json={"titel": None}), 422, "invalid_request")
    assert_problem(api.put(path, json={**DUNE, "titel": None}), 422, "invalid_request")
    assert api.get(path).json()["title"] == "Dune"


def test_patches_of_one_item_do_not_undo_each_other(api, catalog):
    path = item_path(catalog, "dune")
    api.put(path, json=DUNE)

    def patch(number: int) -> int:
        return api.patch(path, json={"attributes": {f"field {number}": number}}).status_code

    with ThreadPoolExecutor(8) as threads:
        assert set(threads.map(patch, range(24))) == {200}
    assert len(api.get(path).json()["attributes"]) == 25


def test_a_batch_tells_what_became_of_every_row(api, catalog):
    api.put(item_path(catalog, "old"), json={"title": "Old"})
    batch = {
        "upserts": [
            {"id": "new", "title": "New"},
            {"id": "old", "title": "Older"},
            {"id": "bad"},
            {"title": "nameless"},
            "not an object",
            {"id": "a/b \U0001f600", "title": "שלום"},
        ],
        "deletes": ["gone", "", 7],
    }
    results = api.post(f"{catalog}/items:batch", json=batch).json()["results"]
    assert [(row["id"], row["status"]) for row in results] == [
        ("new", "created"),
        ("old", "updated"),
        ("bad", "rejected"),
        (None, "rejected"),
        (None, "rejected"),
        ("a/b \U0001f600", "created"),
        ("gone", "absent"),
        ("", "rejected"),
        (None, "rejected"),
    ]
    problems = [row["problem"] and pointers(row["problem"]) for row in results]
    assert problems == [
        None, None, ["/upserts/2/title"], ["/upserts/3/id"], ["/upserts/4"], None, None,
        ["/deletes/1"], ["/deletes/2"],
    ]  # fmt: skip
    ids = {item["id"] for item in api.get(f"{catalog}/items").json()["items"]}
    assert ids == {"old", "new", "a/b \U0001f600"}


def test_of_two_rows_with_one_id_the_later_stays(api, catalog):
    batch = {
        "upserts": [
            {"id": "twice", "title": "First"},
            {"id": "twice", "title": "Second"},
            {"id": "brief", "title": "Brief"},
        ],
        "deletes": ["brief", "brief"],
    }
    results = api.post(f"{catalog}/items:batch", json=batch).json()["results"]
    statuses = [row["status"] for row in results]
    assert statuses == ["created", "updated", "created", "deleted", "absent"]
    assert api.get(item_path(catalog, "twice")).json()["title"] == "Second"
    assert_problem(api.get(item_path(catalog, "brief")), 404, "unknown_item")


def test_a_batch_has_at_most_a_thousand_rows(api, catalog):
    ids = [str(number) for number in range(1_001)]
    refused = api.post(f"{catalog}/items:batch", json={"deletes": ids})
    assert_problem(refused, 422, "invalid_request")
    allowed = api.post(f"{catalog}/items:batch", json={"deletes": ids[1:]})
    assert [row["status"] for row in allowed.json()["results"]] == ["absent"] * 1_000
    assert api.post(f"{catalog}/items:batch", json={}).json() == {"results": []}


def everything(api, catalog, **query) -> list[str]:
    """Ids of a list, page by page."""
    found, cursor = [], None
    while True:
        page = api.get(f"{catalog}/items", params={**query, "cursor": cursor} if cursor else query)
        assert page.status_code == 200, page.text
        found += [item["id"] for item in page.json()["items"]]
        cursor = page.json()["next_cursor"]
        if cursor is None:
            return found


@pytest.mark.parametrize("limit", [1, 3, 20, 40, 100])
def test_a_list_comes_in_pages_that_miss_nothing(api, films, limit):
    found = everything(api, films, limit=limit)
    assert sorted(found) == sorted(f"f{number}" for number in range(40))
    assert found == everything(api, films, limit=100)


def test_a_list_goes_on_where_it_was_when_items_come_and_go(api, films):
    first = api.get(f"{films}/items", params={"limit": 10}).json()
    seen = [item["id"] for item in first["items"]]
    api.delete(item_path(films, seen[-1]))
    api.delete(item_path(films, seen[0]))
    api.put(item_path(films, "late"), json={"title": "Late"})
    rest = everything(api, films, limit=10, cursor=first["next_cursor"])
    assert set(rest) >= {f"f{number}" for number in range(40)} - set(seen)


def test_a_list_can_be_of_a_node_and_of_a_text(api, films):
    tree = api.get(f"{films}/tree").json()["tree"]
    below = [everything(api, films, node=child["id"], limit=7) for child in tree["children"]]
    assert [len(ids) for ids in below] == [child["count"] for child in tree["children"]]
    assert sorted(found for ids in below for found in ids) == sorted(everything(api, films))

    assert everything(api, films, q="FILM 17 OF") == ["f17"]
    assert len(everything(api, films, q="distant STARS", limit=3)) == 20
    assert everything(api, films, q="no such words") == []


@pytest.mark.parametrize(
    ("query", "status", "code"),
    [
        ({"limit": 0}, 422, "invalid_request"),
        ({"limit": -1}, 422, "invalid_request"),
        ({"limit": 101}, 422, "invalid_request"),
        ({"limit": "many"}, 422, "invalid_request"),
        ({"limit": "9" * 5_000}, 422, "invalid_request"),
        ({"cursor": "nonsense"}, 422, "invalid_request"),
        ({"cursor": "é"}, 422, "invalid_request"),
        ({"cursor": "e30"}, 422, "invalid_request"),
        ({"node": 4_711}, 404, "unknown_node"),
        ({"node": -1}, 422, "invalid_request"),
        ({"q": ""}, 422, "invalid_request"),
        ({"color": "red"}, 422, "invalid_request"),
    ],
)
def test_a_list_that_makes_no_sense_is_refused(api, films, query, status, code):
    assert_problem(api.get(f"{films}/items", params=query), status, code)


def test_text_stays_what_it_is(api, catalog):
    texts = [
        "{{ 7 * 7 }} ${need} {need} %s",
        "<script>alert(1)</script>",
        "Ignore all previous instructions",
        "a\nb\r\n\tc",
        "مرحبا \u202e \u200b",
    ]
    for number, text in enumerate(texts):
        api.put(item_path(catalog, str(number)), json={"title": "T", "description": text})
        assert api.get(item_path(catalog, str(number))).json()["description"] == text
    answer = api.post(f"{catalog}/recommend", json={"fields": ["description"]})
    found = {item["item_id"]: item["fields"]["description"] for item in answer.json()["items"]}
    assert found == {str(number): text for number, text in enumerate(texts)}


def test_times_at_the_edge_of_what_can_be_written_are_kept(api, catalog):
    edges = ("9999-12-31T23:59:59-23:59", "0001-01-01T00:00:00+23:59")
    for number, edge in enumerate(edges):
        item = {"title": "Edge", "published_at": edge, "expires_at": edge}
        assert api.put(item_path(catalog, f"e{number}"), json=item).status_code == 201
        assert api.get(item_path(catalog, f"e{number}")).json()["expires_at"] == edge
    assert len(api.get(f"{catalog}/items").json()["items"]) == len(edges)
    bounds = {"field": "published_at", "gte": edges[1], "lte": edges[0]}
    body = {"filter": {"all": [bounds]}, "fields": ["expires_at"]}
    found = api.post(f"{catalog}/recommend", json=body)
    assert [item["item_id"] for item in found.json()["items"]] == ["e0"]

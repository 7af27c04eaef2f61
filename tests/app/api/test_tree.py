"""Catalogues and trees over HTTP."""

import xml.etree.ElementTree as ET
from secrets import token_hex

import pytest

from tests.app.api.support import assert_problem, delete_catalog, ended


def test_a_catalogue_is_made_looked_at_and_removed(api):
    path = f"/v1/catalogs/made-{token_hex(4)}"
    assert_problem(api.get(path), 404, "unknown_catalog")
    made = api.put(path, json={"leaf_capacity": 10, "fan_out": 4, "language": "de"})
    assert (made.status_code, made.headers["location"]) == (201, path)
    assert made.json()["settings"]["fan_out"] == 4
    assert (made.json()["items"], made.json()["tree_version"]) == (0, 0)
    assert api.get(path).json() == made.json()
    assert made.json() in api.get("/v1/catalogs").json()["catalogs"]

    assert api.put(path).json() == made.json()
    assert api.put(path, json={"fan_out": 4}).status_code == 200
    assert_problem(api.put(path, json={"fan_out": 5}), 409, "settings_fixed")

    assert delete_catalog(api, path).status_code == 204
    assert_problem(api.get(path), 404, "unknown_catalog")
    assert_problem(delete_catalog(api, path), 404, "unknown_catalog")


def test_the_default_catalogue_is_there_from_the_start(api):
    assert "default" in {found["name"] for found in api.get("/v1/catalogs").json()["catalogs"]}


def test_what_a_removed_catalogue_held_does_not_come_back(api):
    path = f"/v1/catalogs/twice-{token_hex(4)}"
    api.put(path)
    api.put(f"{path}/items/a", json={"title": "A"})
    delete_catalog(api, path)
    api.put(path)
    assert api.get(path).json()["items"] == 0
    assert_problem(api.get(f"{path}/items/a"), 404, "unknown_item")
    delete_catalog(api, path)


@pytest.mark.parametrize("name", ["Upper", "with space", "a%2Fb", "ü", "x" * 65, "{tag}", "a.b"])
def test_a_name_that_could_not_be_is_refused(api, name):
    assert api.put(f"/v1/catalogs/{name}").status_code in (404, 405, 422)
    assert_problem(
        api.get(f"/v1/catalogs/{name}/items"),
        404,
        api.get(f"/v1/catalogs/{name}/items").json()["code"],
    )


@pytest.mark.parametrize(
    "settings",
    [
        {"leaf_capacity": 1},
        {"leaf_capacity": 51},
        {"fan_out": 65},
        {"fan_out": "16"},
        {"seed": -1},
        {"embedder": "magic"},
        {"leaf_capcity": 20},
    ],
)
def test_settings_that_make_no_sense_make_no_catalogue(api, settings):
    path = f"/v1/catalogs/none-{token_hex(4)}"
    assert_problem(api.put(path, json=settings), 422, "invalid_request")
    assert_problem(api.get(path), 404, "unknown_catalog")


@pytest.mark.parametrize(
    ("method", "route"),
    [
        ("GET", "/items"), ("GET", "/items/a"), ("PUT", "/items/a"), ("PATCH", "/items/a"),
        ("DELETE", "/items/a"), ("POST", "/items:batch"), ("GET", "/exports/items"),
        ("POST", "/recommend"), ("GET", "/recommendations/rec_a"), ("GET", "/similar?item_id=a"),
        ("GET", "/tree"), ("GET", "/tree/nodes/0"), ("PATCH", "/tree/nodes/0"),
        ("POST", "/tree/rebuilds"),
    ],
)  # fmt: skip
def test_an_unknown_catalogue_is_a_404_and_not_made_by_accident(api, method, route):
    body: dict[str, object] = {"title": "A"} if "items/" in route else {}
    if "nodes" in route:
        body = {"locked": True}
    sends = {"json": body} if method in ("PUT", "PATCH", "POST") else {}
    reply = api.request(method, f"/v1/catalogs/nowhere{route}", **sends)
    assert_problem(reply, 404, "unknown_catalog")
    assert_problem(api.get("/v1/catalogs/nowhere"), 404, "unknown_catalog")


def count_below(node: dict) -> int:
    return sum(child["count"] for child in node["children"])


def test_the_tree_is_shown_to_a_depth(api, films):
    view = api.get(f"{films}/tree", params={"depth": 1}).json()
    assert (view["items"], view["tree"]["count"], view["tree"]["id"]) == (40, 40, 0)
    assert count_below(view["tree"]) == 40
    assert all(child["children"] == [] for child in view["tree"]["children"])
    top = view["tree"]["children"][0]["id"]
    below = api.get(f"{films}/tree", params={"root": top}).json()["tree"]
    assert (below["id"], below["label"]) == (top, view["tree"]["children"][0]["label"])


def test_the_tree_is_there_for_other_tools(api, films):
    query = {"depth": 4}
    graph = api.get(f"{films}/tree", params={**query, "format": "node-link"}).json()
    assert len(graph["edges"]) == len(graph["nodes"]) - 1
    reply = api.get(f"{films}/tree", params={**query, "format": "graphml"})
    assert reply.headers["content-type"].startswith("application/graphml+xml")
    found = ET.fromstring(reply.text).iter("{http://graphml.graphdrawing.org/xmlns}node")
    assert len(list(found)) == len(graph["nodes"])


@pytest.mark.parametrize(
    ("query", "status", "code"),
    [
        ({"depth": 5}, 422, "invalid_request"),
        ({"depth": -1}, 422, "invalid_request"),
        ({"root": 4_711}, 404, "unknown_node"),
        ({"root": "x"}, 422, "invalid_request"),
        ({"format": "svg"}, 422, "invalid_request"),
    ],
)
def test_a_view_that_makes_no_sense_is_refused(api, films, query, status, code):
    assert_problem(api.get(f"{films}/tree", params=query), status, code)


def test_a_node_tells_its_way_and_what_is_below(api, films):
    node = api.get(f"{films}/tree/nodes/0").json()
    assert (node["count"], node["path"], node["items"]) == (40, [], [])
    while node["children"]:
        assert count_below(node) == node["count"]
        node = api.get(f"{films}/tree/nodes/{node['children'][0]['id']}").json()
    assert node["path"][-1]["id"] == node["id"]
    assert len(node["items"]) == node["count"]
    assert node["items"][0]["title"].startswith("Film ")
    for unknown, status in (("4711", 404), ("x", 422), ("-1", 422), ("9" * 30, 404)):
        assert api.get(f"{films}/tree/nodes/{unknown}").status_code == status


def test_a_renamed_node_keeps_its_name_in_a_rebuild_of_the_labels(api, films):
    top = api.get(f"{films}/tree/nodes/0").json()["children"][0]["id"]
    path = f"{films}/tree/nodes/{top}"
    renamed = api.patch(path, json={"label": "Between the stars"}).json()
    assert (renamed["label"], renamed["locked"]) == ("Between the stars", True)
    ended(api, api.post(f"{films}/tree/rebuilds", json={"mode": "relabel"}))
    assert api.get(path).json()["label"] == "Between the stars"
    assert api.patch(path, json={"locked": False}).json()["locked"] is False

    for body in ({}, {"label": ""}, {"label": 3}, {"name": "x"}, {"label": "x" * 201}):
        assert_problem(api.patch(path, json=body), 422, "invalid_request")
    unknown = api.patch(f"{films}/tree/nodes/4711", json={"label": "x"})
    assert_problem(unknown, 404, "unknown_node")


@pytest.mark.parametrize("mode", ["full", "relabel", "subtree"])
def test_a_rebuild_loses_nothing(api, films, mode):
    body = {"mode": mode}
    if mode == "subtree":
        body["root"] = api.get(f"{films}/tree/nodes/0").json()["children"][0]["id"]
    job = ended(api, api.post(f"{films}/tree/rebuilds", json=body))
    assert (job["state"], job["problem"]) == ("succeeded", None)
    view = api.get(f"{films}/tree").json()
    assert view["items"] == count_below(view["tree"]) == 40
    listed = api.get(f"{films}/items", params={"limit": 100}).json()
    assert len({item["id"] for item in listed["items"]}) == 40


def test_a_rehearsal_publishes_nothing(api, films):
    def edges() -> list[dict]:  # not the labels, which are refined after a write
        query = {"depth": 4, "format": "node-link"}
        return api.get(f"{films}/tree", params=query).json()["edges"]

    before = edges()
    job = ended(api, api.post(f"{films}/tree/rebuilds", json={"dry_run": True}))
    assert (job["state"], job["result"]["dry_run"]) == ("succeeded", True)
    assert edges() == before


def test_one_rebuild_at_a_time(api, films):
    first = api.post(f"{films}/tree/rebuilds")
    second = api.post(f"{films}/tree/rebuilds")
    job = ended(api, first)
    assert job["state"] == "succeeded"
    problem = assert_problem(second, 409, "job_running")
    assert problem["job_id"] == job["id"]
    ended(api, api.post(f"{films}/tree/rebuilds"))


@pytest.mark.parametrize(
    "body",
    [
        {"mode": "partly"},
        {"mode": "subtree"},
        {"mode": "full", "root": 0},
        {"mode": "subtree", "root": -1},
        {"mode": "full", "max_cost": 1},
        {"dry_run": "yes"},
    ],
)
def test_a_rebuild_that_makes_no_sense_is_refused(api, films, body):
    assert_problem(api.post(f"{films}/tree/rebuilds", json=body), 422, "invalid_request")


def test_a_rebuild_below_an_unknown_node_is_refused(api, films):
    body = {"mode": "subtree", "root": 4_711}
    assert_problem(api.post(f"{films}/tree/rebuilds", json=body), 404, "unknown_node")

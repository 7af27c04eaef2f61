"""Keys: what each allows, what it does not, and that nothing else gets in."""

import re
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from secrets import token_hex

import httpx2
import pytest
from fastapi import FastAPI, Response
from fastapi.routing import APIRoute, iter_route_contexts

from app import api
from app.api.scopes import RULES, without_rule_in
from app.main import create_app
from app.settings import Settings
from tests.app.api.keyed import ROOT, SHOP, bearer, created, holder
from tests.app.api.support import assert_problem, ended, pointers

JSONL = "application/x-ndjson"

OPEN_PATHS = ("/livez", "/readyz", "/version")


VALUES = {
    "catalog": "c", "item_id": "i", "user_id": "u", "node_id": "0", "version": "1",
    "job_id": "none", "key_id": "none", "recommendation_id": "none",
    "name": "swagger-ui.css",
}  # fmt: skip


def operations() -> dict[str, tuple[str, str]]:
    """Method and path of every operation."""
    found = {}
    for context in iter_route_contexts(create_app(Settings()).routes):
        route = context.original_route
        if isinstance(route, APIRoute):
            found[route.operation_id or route.path] = (min(route.methods or ()), route.path)
    return found


def confirmed(catalog: str) -> str:
    """Where a catalogue is deleted."""
    return f"/v1/catalogs/{catalog}?confirm={catalog}"


# -- deny by default


def test_a_route_without_a_rule_cannot_be_served(monkeypatch):
    app = create_app(Settings())
    assert without_rule_in(app.routes) == []
    assert set(operations()) == set(RULES)
    later = FastAPI()
    later.add_api_route("/v1/secrets", lambda: None, operation_id="secrets")
    later.add_route("/files", lambda request: Response())
    assert without_rule_in(later.routes)[-2:] == ["secrets", "/files"]
    monkeypatch.delitem(RULES, "metrics")
    with pytest.raises(RuntimeError, match=r"has no rule for metrics"):
        api.install(FastAPI(openapi_url=None))


def test_without_a_key_nothing_but_three_routes_answers(root, keyed_url):
    for method, path in operations().values():
        reply = httpx2.request(method, keyed_url + path)
        if path in OPEN_PATHS:
            assert reply.status_code == 200
        else:
            assert_problem(reply, 401, "missing_key")
            kind = "Basic" if path.startswith(("/docs", "/openapi")) else "Bearer"
            assert reply.headers["www-authenticate"].startswith(kind)
    assert_problem(httpx2.get(f"{keyed_url}/nothing"), 401, "missing_key")
    assert_problem(httpx2.options(f"{keyed_url}/v1/keys"), 401, "missing_key")


def test_what_is_no_key_is_not_taken_for_one(root, keyed_url):
    key = created(root, "recommend")["key"]
    wrong = key[:-1] + ("A" if key[-1] != "A" else "B")
    for given in (wrong, key[:-1], key + "A", "ulr_" + "0" * 12 + key[16:], "x", ROOT[:-1]):
        reply = httpx2.get(f"{keyed_url}/v1/catalogs", headers=bearer(given))
        assert reply.status_code == 401, given
        assert len(given) < 2 or given not in reply.text
    basic = {"Authorization": f"Basic {key}"}
    assert_problem(httpx2.get(f"{keyed_url}/v1/catalogs", headers=basic), 401, "missing_key")
    two = {**bearer(key), "X-API-Key": ROOT}
    assert_problem(httpx2.get(f"{keyed_url}/v1/catalogs", headers=two), 401, "unknown_key")
    for headers in ({"X-API-Key": key}, {"authorization": f"bearer  {key}"}):
        assert httpx2.get(f"{keyed_url}/v1/catalogs", headers=headers).status_code == 200


def test_a_browser_may_ask_a_person_for_the_key_of_the_description_alone(root, keyed_url):
    own = created(root, "recommend")["key"]
    for path in ("/docs", "/docs/start.js", "/openapi.json"):
        assert httpx2.get(keyed_url + path, auth=("anybody", own)).status_code == 200
        assert httpx2.get(keyed_url + path, auth=(own, "x")).status_code == 401
    for path in ("/v1/catalogs", "/metrics", "/v1/keys"):
        reply = httpx2.get(keyed_url + path, auth=("anybody", ROOT))
        assert_problem(reply, 401, "missing_key")
        assert reply.headers["www-authenticate"].startswith("Bearer")


def test_the_description_says_how_a_key_is_sent(root, api):
    keyed, without = root.get("/openapi.json").json(), api.get("/openapi.json").json()
    assert set(keyed["components"]["securitySchemes"]) == {"bearer", "header"}
    free = [p for p, ways in keyed["paths"].items() if ways.get("get", {}).get("security") == []]
    assert sorted(free) == sorted(OPEN_PATHS)
    assert "401" in keyed["paths"]["/v1/keys"]["get"]["responses"]
    assert "security" not in without
    assert "421" in without["paths"]["/livez"]["get"]["responses"]


@pytest.mark.parametrize("name", ["api_key", "key", "X-API-Key", "access_token", "q"])
def test_a_key_in_an_address_is_refused(root, keyed_url, name):
    key = created(root, "ingest")["key"]
    address = f"{keyed_url}/v1/catalogs/a/items?{name}={key}"
    assert_problem(httpx2.get(address), 400, "key_in_query")
    assert_problem(httpx2.get(address, headers=bearer(key)), 400, "key_in_query")


# -- scopes and catalogues


def allowed(operation: str, scopes: set[str], *, everywhere: bool) -> bool:
    rule = RULES[operation]
    if rule.reach == "all" and not everywhere:
        return False
    return not rule.scopes or bool(rule.scopes & scopes) or "admin" in scopes


@pytest.mark.parametrize("scope", ["recommend", "events", "ingest", "metrics", "admin"])
@pytest.mark.parametrize("catalogs", [["c"], "*"])
def test_each_scope_reaches_its_routes_and_no_other(root, scope, catalogs):
    root.put("/v1/catalogs/c")
    with holder(root, scope, catalogs=catalogs) as client:
        for operation, (method, path) in operations().items():
            if operation == "delete_catalog":
                continue  # last
            reply = client.request(method, re.sub(r"\{(\w+).*?\}", lambda m: VALUES[m[1]], path))
            fine = allowed(operation, {scope}, everywhere=catalogs == "*")
            assert (reply.status_code not in (401, 403)) is fine, (operation, reply.text)
        reply = client.delete(confirmed("c"))
        assert (reply.status_code == 403) is not (scope == "admin" and catalogs == "*")


def test_what_is_of_another_catalogue_cannot_be_told_from_what_is_not(root):
    started = root.post(
        "/v1/catalogs/b/imports", content=b'{"id": "x", "title": "X"}\n',
        headers={"Content-Type": "application/x-ndjson"},
    )  # fmt: skip
    job = ended(root, started)["id"]
    root.put("/v1/catalogs/b/users/u", json={"history": ["i"]})
    with holder(root, "recommend", "events", "ingest", "admin") as client:
        for path in ("", "/items/i", "/exports/items", "/users/u", "/tree", "/recommendations/r"):
            here = assert_problem(client.get(f"/v1/catalogs/b{path}"), 403, "forbidden_catalog")
            nowhere = assert_problem(
                client.get(f"/v1/catalogs/none{path}"), 403, "forbidden_catalog"
            )
            assert here == nowhere
        for path in ("", "/events"):
            assert_problem(client.get(f"/v1/jobs/{job}{path}"), 404, "unknown_job")
        assert_problem(client.post(f"/v1/jobs/{job}:cancel"), 404, "unknown_job")
        assert client.get("/v1/jobs").json()["jobs"] == []
        assert client.get("/v1/jobs", params={"catalog": "b"}).json()["jobs"] == []
        assert [one["name"] for one in client.get("/v1/catalogs").json()["catalogs"]] == ["a"]
    with holder(root, "ingest", catalogs=["b"]) as client:
        assert client.get(f"/v1/jobs/{job}").status_code == 200
        assert [one["id"] for one in client.get("/v1/jobs").json()["jobs"]] == [job]


def test_jobs_of_a_deleted_catalogue_are_not_those_of_a_later_one_of_its_name(root):
    lines = {"content": b'{"id": "x", "title": "X"}\n', "headers": {"Content-Type": JSONL}}
    assert root.put("/v1/catalogs/again").status_code == 201
    job = ended(root, root.post("/v1/catalogs/again/imports", **lines))["id"]
    with holder(root, "ingest", catalogs=["again"]) as client:
        assert client.get(f"/v1/jobs/{job}").status_code == 200
        assert root.delete(confirmed("again")).status_code == 204
        assert_problem(client.get(f"/v1/jobs/{job}"), 404, "unknown_job")
        assert root.put("/v1/catalogs/again").status_code == 201
        assert client.get("/v1/catalogs/again").status_code == 200  # a key goes by the name
        for path in ("", "/events"):
            assert_problem(client.get(f"/v1/jobs/{job}{path}"), 404, "unknown_job")
        assert client.get("/v1/jobs").json()["jobs"] == []
    assert root.get(f"/v1/jobs/{job}").status_code == 200


# -- their life


def test_a_key_is_shown_once_and_only_its_hash_is_kept(root):
    new = created(root, "recommend", name="shop")
    key, secret = new["key"], new["key"].removeprefix(new["id"])
    assert len(secret) >= 43
    assert key.startswith(new["id"])
    listed = root.get("/v1/keys", params={"limit": 1_000})
    assert {**new, "key": None} == {
        **next(one for one in listed.json()["keys"] if one["id"] == new["id"]), "key": None
    }  # fmt: skip
    audit = root.get("/v1/audit")
    assert new["id"] in audit.text
    assert secret not in listed.text + audit.text
    reply = root.delete(f"/v1/keys/{key}")  # a whole key where its id belongs
    assert_problem(reply, 404, "unknown_key_id")
    assert secret not in reply.text


def test_keys_are_listed_by_pages(root):
    ids = [created(root, "recommend")["id"] for _ in range(3)]
    seen, cursor = [], None
    while True:
        at = {"limit": 2} | ({"cursor": cursor} if cursor else {})
        page = root.get("/v1/keys", params=at).json()
        assert len(page["keys"]) <= 2
        seen += [key["id"] for key in page["keys"]]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert seen[-3:] == ids
    assert len(set(seen)) == len(seen)
    reply = root.get("/v1/keys", params={"cursor": "x"})
    assert pointers(assert_problem(reply, 422, "invalid_request")) == ["/cursor"]


def test_a_revoked_or_expired_key_is_an_unknown_one(root):
    new = created(root, "recommend")
    soon = datetime.now(UTC) + timedelta(seconds=1)
    ending = created(root, "recommend", expires_at=soon.isoformat())
    for key in (new, ending):
        assert root.get("/v1/catalogs", headers=bearer(key["key"])).status_code == 200
    assert root.delete(f"/v1/keys/{new['id']}").status_code == 204
    reply = root.get("/v1/catalogs", headers=bearer(new["key"]))
    assert_problem(reply, 401, "unknown_key")
    time.sleep(max(0.0, soon.timestamp() - time.time()))
    assert_problem(root.get("/v1/catalogs", headers=bearer(ending["key"])), 401, "unknown_key")
    listed = {
        key["id"]: key for key in root.get("/v1/keys", params={"limit": 1_000}).json()["keys"]
    }
    assert listed[ending["id"]]["expired"]
    assert_problem(root.delete(f"/v1/keys/{new['id']}"), 404, "unknown_key_id")


def test_a_stream_ends_with_its_key(root):
    long = dict.fromkeys("abcde", "x" * 1900)
    for start in range(0, 800, 400):  # more than what is on its way at once
        rows = [
            {"id": f"s{n}", "title": "S", "attributes": long} for n in range(start, start + 400)
        ]
        assert root.post("/v1/catalogs/a/items:batch", json={"upserts": rows}).status_code == 200
    new = created(root, "ingest")
    client = httpx2.Client(base_url=root.base_url, headers=bearer(new["key"]), timeout=60)
    with client, client.stream("GET", "/v1/catalogs/a/exports/items") as export:
        chunks = export.iter_raw()
        next(chunks)
        assert root.delete(f"/v1/keys/{new['id']}").status_code == 204
        with pytest.raises(httpx2.RemoteProtocolError):
            list(chunks)


@pytest.mark.parametrize(
    ("change", "pointer"),
    [
        ({"scopes": []}, "/scopes"),
        ({"scopes": ["all"]}, "/scopes/0"),
        ({"catalogs": []}, "/catalogs"),
        ({"catalogs": ["A"]}, "/catalogs"),
        ({"name": "a\nb"}, "/name"),
        ({"expires_at": "2020-01-01T00:00:00Z"}, "/expires_at"),
        ({"expires_at": "2030-01-01T00:00:00"}, "/expires_at"),
        ({"expires_at": "2199-01-01T00:00:00Z"}, "/expires_at"),
        ({"expires_at": "9999-12-31T23:59:59-23:59"}, "/expires_at"),
        ({"expires_at": "0001-01-01T00:00:00+23:59"}, "/expires_at"),
        ({"rate_per_minute": 0}, "/rate_per_minute"),
        ({"max_cost_usd_per_day": False}, "/max_cost_usd_per_day"),
        ({"max_cost_usd_per_day": -1}, "/max_cost_usd_per_day"),
        ({"max_cost_usd_per_day": 1, "scopes": ["admin"]}, ""),
        ({"origins": [SHOP], "scopes": ["ingest"]}, ""),
        ({"origins": [SHOP], "scopes": ["recommend", "admin"]}, ""),
        ({"origins": ["*"]}, "/origins/0"),
        ({"origins": ["null"]}, "/origins/0"),
        ({"origins": [f"{SHOP}/"]}, "/origins/0"),
        ({"key": "own"}, "/key"),
    ],
)
def test_a_key_that_makes_no_sense_is_refused(root, change, pointer):
    body = {"name": "test", "scopes": ["recommend"], "catalogs": ["a"], **change}
    problem = assert_problem(root.post("/v1/keys", json=body), 422, "invalid_request")
    assert pointers(problem)[0].startswith(pointer)


def test_the_audit_log_tells_who_changed_what(root):
    name = f"made-{token_hex(4)}"
    admin = created(root, "admin", catalogs="*", name="operator")
    with httpx2.Client(base_url=root.base_url, headers=bearer(admin["key"])) as client:
        assert client.put(f"/v1/catalogs/{name}").status_code == 201
        assert client.put(f"/v1/catalogs/{name}/items/i", json={"title": "I"}).status_code == 201
        assert client.post(f"/v1/catalogs/{name}/tree/rebuilds").status_code == 202
        assert client.put("/v1/catalogs/NOT-A-NAME").status_code == 422
        assert client.delete(confirmed(name)).status_code == 204
        page = client.get("/v1/audit", params={"limit": 3}).json()
        acts = [(entry["act"], entry["target"].get("catalog")) for entry in page["entries"]]
        assert acts == [
            ("delete_catalog", name), ("rebuild_tree", name), ("put_catalog", name),
        ]  # fmt: skip
        for entry in page["entries"]:
            assert (entry["key_id"], entry["key_name"]) == (admin["id"], "operator")
            assert entry["from"] == "127.0.0.1"
        older = client.get("/v1/audit", params={"cursor": page["next_cursor"]}).json()["entries"]
        assert older[0]["act"] == "create_key"
        assert older[0]["target"]["id"] == admin["id"]
        assert not [entry for entry in older if entry in page["entries"]]
        assert client.get("/v1/audit?cursor=1-0").json() == {"entries": [], "next_cursor": None}
        for cursor in ("0-0", "x", "1", f"{10**19}-0", f"1-{10**20}"):
            reply = client.get("/v1/audit", params={"cursor": cursor})
            assert pointers(assert_problem(reply, 422, "invalid_request")) == ["/cursor"]


def test_an_erasure_of_nothing_is_no_act(root):
    with holder(root, "ingest", catalogs=["default"], name="eraser") as client:
        for ids in (["u1"], [], [""]):
            reply = client.post("/v1/catalogs/default/users:erase", json={"user_ids": ids})
            assert reply.status_code == 200
    entries = root.get("/v1/audit").json()["entries"]
    assert [one["act"] for one in entries if one["key_name"] == "eraser"] == ["erase_users"]
    assert [one["target"].get("name") for one in entries][1] == "eraser"


def test_the_table_of_the_documentation_is_the_policy():
    text = (Path(__file__).parents[3] / "docs" / "security.md").read_text(encoding="utf-8")
    told = {}
    for row in re.findall(r"^\| (`(?:GET|P|DELETE).*) \| (.*?) \|(.*)\|$", text, re.MULTILINE):
        for route, mark in re.findall(r"`([^`]+)`( †)?", row[0]):
            told[route] = (row[1], row[2].strip(), bool(mark))
    kinds = {"catalog": "of the key", "all": "all", "none": ""}
    policy = {}
    for operation, (method, path) in operations().items():
        rule = RULES[operation]
        route = f"{method} {re.sub(r':(path|segment)', '', path)}"
        scope = "no key" if rule.reach == "none" else " ".join(rule.scopes) or "any"
        reach = told.get(route, ("", "missing"))[1] if rule.reach == "listed" else kinds[rule.reach]
        policy[route] = (scope, reach, rule.audited)
    assert told == policy

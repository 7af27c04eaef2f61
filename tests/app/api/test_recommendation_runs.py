"""Recommendation runs over HTTP."""

import json

from tests.app.api.keyed import holder
from tests.app.api.support import assert_problem, ended


def lists(api, job: dict) -> list[dict]:
    reply = api.get(f"/v1/jobs/{job['id']}/result")
    assert (reply.status_code, reply.headers["content-type"]) == (200, "application/x-ndjson")
    return [json.loads(line) for line in reply.content.splitlines()]


def test_all_stored_users_get_their_lists(api, films):
    for number in range(5):
        api.put(f"{films}/users/u{number}", json={"history": [f"f{number}"]})
    body = {
        "request": {"limit": 3, "filter": {"all": [{"field": "year", "in": [1990, 1991, 1992]}]}}
    }
    job = ended(api, api.post(f"{films}/recommendation-runs", json=body))
    assert (job["state"], job["type"]) == ("succeeded", "recommendation"), job
    assert job["result"] == {"lists": 5, "problems": 0, "degraded": 0}
    assert (job["progress"]["done"], job["progress"]["unit"]) == (5, "lists")
    found = {row["user_id"]: row["answer"]["items"] for row in lists(api, job)}
    assert found.keys() == {f"u{number}" for number in range(5)}
    alone = api.post(f"{films}/recommend", json={"user_id": "u2", **body["request"]}).json()
    assert found["u2"] == alone["items"]
    api.delete(f"{films}/users/u2")
    assert {row["user_id"] for row in lists(api, job)} == {"u0", "u1", "u3", "u4"}
    some = api.post(f"{films}/recommendation-runs", json={"user_ids": ["u4", "u0"]})
    assert [row["user_id"] for row in lists(api, ended(api, some))] == ["u4", "u0"]


def test_a_file_of_requests_gets_a_list_for_each_line(api, films):
    requests = b'{"history": [{"item_id": "f0"}], "limit": 2}\n{"limit": 0}\n{"user_id": "x"}\n'
    headers = {"Content-Type": "application/x-ndjson"}
    started = api.post(f"{films}/recommendation-runs", content=requests, headers=headers)
    job = ended(api, started)
    assert job["result"] == {"lists": 2, "problems": 1, "degraded": 0}
    first, second, third = lists(api, job)
    assert len(first["answer"]["items"]) == 2
    assert second["problem"]["code"] == "invalid_request"
    assert third["user_id"] == "x"


def test_only_a_run_has_lists_and_only_an_administrator_gets_them(api, films, root):
    imported = api.post(
        f"{films}/imports",
        content=b'{"id": "n", "title": "N"}',
        headers={"Content-Type": "application/x-ndjson"},
    )
    job = ended(api, imported)
    assert_problem(api.get(f"/v1/jobs/{job['id']}/result"), 409, "no_lists")
    bad = api.post(f"{films}/recommendation-runs", json={"request": {"limit": 0}})
    assert assert_problem(bad, 422, "invalid_request")["errors"][0]["pointer"] == "/request/limit"
    with holder(root, "ingest", "recommend") as client:
        refused = client.post("/v1/catalogs/a/recommendation-runs", json={})
        assert_problem(refused, 403, "forbidden_scope")
        started = ended(root, root.post("/v1/catalogs/a/recommendation-runs", json={}))
        refused = client.get(f"/v1/jobs/{started['id']}/result")
        assert_problem(refused, 403, "forbidden_scope")
    assert lists(root, started) == []

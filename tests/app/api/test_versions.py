"""Versions of a tree over HTTP: kept, compared, put back into use; jobs followed; figures."""

import json

import httpx2
import pytest

from app.settings import Settings
from tests.app.api.support import (
    assert_problem,
    delete_catalog,
    ended,
    item_path,
    served,
)

JSONL = {"content-type": "application/x-ndjson"}


def jsonl(items: list[dict]) -> bytes:
    return "\n".join(map(json.dumps, items)).encode()


def versions(api, catalog) -> list[dict]:
    return api.get(f"{catalog}/tree/versions").json()["versions"]


def held(api, catalog) -> set[str]:
    lines = api.get(f"{catalog}/exports/items").text.splitlines()
    return {json.loads(line)["id"] for line in lines}


def rebuilt(api, catalog, **body) -> dict:
    job = ended(api, api.post(f"{catalog}/tree/rebuilds", json=body))
    assert job["state"] == "succeeded", job
    return job


def test_the_last_versions_are_listed(api, films):
    assert [version["note"] for version in versions(api, films)] == ["created"]
    job = rebuilt(api, films)
    kept = versions(api, films)
    assert [(one["note"], one["active"]) for one in kept] == [("rebuild", True), ("created", False)]
    assert kept[0]["version"] == job["result"]["tree_version"]
    rebuilt(api, films)
    assert [one["note"] for one in versions(api, films)] == ["rebuild", "rebuild"]


def test_an_old_version_is_put_back_with_the_items_of_now(api, films):
    rebuilt(api, films)
    old = versions(api, films)[0]["version"]
    label = {"label": "Stars and beyond", "locked": True}
    node = api.get(f"{films}/tree/nodes/0").json()["children"][0]["id"]
    rebuilt(api, films)
    assert api.patch(f"{films}/tree/nodes/{node}", json=label).status_code == 200
    assert api.delete(item_path(films, "f3")).status_code == 204
    api.put(item_path(films, "new"), json={"title": "A new film"})
    changed = {"title": "Film 4, at night", "hidden": True}
    api.put(item_path(films, "f4"), json=changed)
    before = held(api, films)

    reply = api.post(f"{films}/tree/versions/{old}:activate")
    assert reply.status_code == 200
    assert reply.json()["state"] == "succeeded"
    assert held(api, films) == before
    newest = versions(api, films)[0]
    assert (newest["note"], newest["active"]) == (f"version {old} again", True)
    assert newest["version"] == reply.json()["result"]["tree_version"]
    everything = {"profile": "a film", "limit": 40}
    answer = api.post(f"{films}/recommend", json=everything).json()
    shown = {item["item_id"] for item in answer["items"]}
    assert {"f3", "f4"}.isdisjoint(shown)
    assert "new" in shown
    assert "Stars and beyond" in json.dumps(api.get(f"{films}/tree").json())


def test_versions_are_compared(api, films):
    rebuilt(api, films)
    rebuilt(api, films)
    newer, older = (one["version"] for one in versions(api, films))
    api.put(item_path(films, "new"), json={"title": "A new film"})
    seen = api.get(f"{films}/tree/versions/{older}").json()
    found = seen["comparison"]
    assert (found["items_in_both"], found["items_only_in_second"]) == (40, 1)
    assert 0 < found["kept_together"] < 1  # a leaf was split
    assert seen["statistics"]["items"] == 40
    assert seen["statistics_against"]["items"] == 41
    seen = api.get(f"{films}/tree/versions/{older}", params={"against": newer}).json()
    assert seen["comparison"] == {
        "items_in_both": 40,
        "items_only_in_first": 0,
        "items_only_in_second": 0,
        "kept_together": 1.0,  # the same items, settings and seed
    }


def test_the_version_in_use_is_not_put_back(api, films):
    rebuilt(api, films)
    kept = versions(api, films)
    reply = api.post(f"{films}/tree/versions/{kept[0]['version']}:activate")
    assert_problem(reply, 409, "conflict")
    assert versions(api, films) == kept


def test_a_version_that_is_not_kept_is_a_404(api, films):
    for reply in (
        api.get(f"{films}/tree/versions/4711"),
        api.get(f"{films}/tree/versions/0", params={"against": 4711}),
        api.post(f"{films}/tree/versions/4711:activate"),
    ):
        assert_problem(reply, 404, "unknown_version")
    assert_problem(api.get(f"{films}/tree/versions/-1"), 422, "invalid_request")


def test_where_no_older_version_stays_the_refusal_says_why(tmp_path):
    path = "/v1/catalogs/default"
    settings = Settings(data_dir=tmp_path, kept_versions=1)
    with served(settings) as url, httpx2.Client(base_url=url, timeout=60) as api:
        api.put(item_path(path, "a"), json={"title": "A"})
        rebuilt(api, path)
        rebuilt(api, path)
        (only,) = versions(api, path)
        for version, status, code in (
            (only["version"], 409, "conflict"),
            (only["version"] - 1, 404, "unknown_version"),
        ):
            reply = api.post(f"{path}/tree/versions/{version}:activate")
            detail = assert_problem(reply, status, code)["detail"]
            assert "UNILLMREC_KEPT_VERSIONS is 1" in detail


def events(reply) -> list[tuple[str, int, dict]]:
    """Name, id and data of the events of a stream."""
    found = []
    for block in reply.text.split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.splitlines() if ": " in line)
        if "event" in fields:
            found.append((fields["event"], int(fields["id"]), json.loads(fields["data"])))
    return found


@pytest.mark.parametrize("seen", [None, "0", "nonsense", "1", "99999"])
def test_a_job_is_followed_by_its_events(api, films, seen):
    started = api.post(f"{films}/tree/rebuilds")
    headers = {} if seen is None else {"Last-Event-ID": seen}
    reply = api.get(f"{started.headers['location']}/events", headers=headers)
    assert reply.headers["content-type"].startswith("text/event-stream")
    told = events(reply)
    name, number, job = told[-1]
    assert (name, job["state"]) == ("done", "succeeded")
    assert [revision for _, revision, _ in told] == sorted({number for _, number, _ in told})
    assert all(revision > 1 for _, revision, _ in told[:-1] if seen == "1")

    again = api.get(
        f"{started.headers['location']}/events", headers={"Last-Event-ID": str(number - 1)}
    )
    assert events(again) == [("done", number, job)]


def test_events_of_an_unknown_job_are_a_404(api):
    assert_problem(api.get("/v1/jobs/job_nope/events"), 404, "unknown_job")


def test_the_figures_of_the_process_are_there_for_prometheus(api, films):
    api.post(f"{films}/recommend", json={"profile": "a film"})
    reply = api.get("/metrics")
    assert reply.headers["content-type"].startswith("text/plain")
    name = films.rpartition("/")[2]
    lines = dict(
        line.rsplit(" ", 1) for line in reply.text.splitlines() if not line.startswith("#")
    )
    assert float(lines[f'unillmrec_tree_items{{catalog="{name}"}}']) == 40
    asked = f'unillmrec_recommendations_total{{catalog="{name}",degraded="no"}}'
    assert float(lines[asked]) == 1
    route = "/v1/catalogs/{catalog}/recommend"
    timed = f'unillmrec_http_request_seconds_count{{method="POST",route="{route}",status="200"}}'
    assert float(lines[timed]) >= 1
    assert "f0" not in reply.text.split()  # no ids of items or readers in labels


def test_a_rebuild_can_give_another_embedder_and_the_version_before_comes_back(api, catalog):
    def embedder() -> str:
        return api.get(catalog).json()["settings"]["embedder"]

    def asked() -> dict:
        wish = {"instruction": "scary but not bloody", "limit": 5}
        answer = api.post(f"{catalog}/recommend", json=wish).json()
        assert not answer["degraded"]
        return answer

    assert delete_catalog(api, catalog).status_code == 204
    assert api.put(catalog, json={"embedder": "lexical"}).status_code == 201
    scary = {"id": "house", "title": "A haunted house: chilling suspense without gore"}
    rest = [{"id": f"r{n}", "title": f"NASCAR highlights of season {n}"} for n in range(80)]
    ended(api, api.post(f"{catalog}/imports", content=jsonl([scary, *rest]), headers=JSONL))
    assert embedder() == "lexical"
    before = versions(api, catalog)[0]["version"]

    rebuilt(api, catalog, embedder="hybrid")
    assert embedder() == "hybrid"
    assert asked()["items"][0]["item_id"] == "house"
    assert api.put(item_path(catalog, "late"), json={"title": "A late one"}).status_code == 201
    assert api.put(catalog, json={"embedder": "hybrid"}).status_code == 200
    assert_problem(api.put(catalog, json={"embedder": "lexical"}), 409, "settings_fixed")
    rebuilt(api, catalog)
    assert embedder() == "hybrid"

    rebuilt(api, catalog, embedder="lexical")
    assert embedder() == "lexical"
    newest = versions(api, catalog)
    assert [one["version"] for one in newest] != [before]
    reply = api.post(f"{catalog}/tree/versions/{newest[1]['version']}:activate")
    assert reply.json()["state"] == "succeeded", reply.text
    assert embedder() == "hybrid"
    assert {"late", "house"} <= held(api, catalog)


@pytest.mark.parametrize(
    "body", [{"embedder": "openai:none"}, {"embedder": "hybrid", "mode": "relabel"}]
)
def test_an_embedder_that_cannot_be_had_is_refused(api, films, body):
    assert_problem(api.post(f"{films}/tree/rebuilds", json=body), 422, "invalid_request")

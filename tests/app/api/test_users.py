"""Events and users over HTTP."""

import json
import time
from datetime import UTC, datetime, timedelta

import pytest

from app.signals import UserHistory
from tests.app.api.support import assert_problem, delete_catalog, item_path, pointers


def send(api, catalog, *events: tuple[str, str, str]) -> list[str]:
    batch = [
        {"event_id": one, "user_id": user, "item_id": item, "type": "purchase"}
        for one, user, item in events
    ]
    reply = api.post(f"{catalog}/events", json={"events": batch})
    assert reply.status_code == 200, reply.text
    return [row["status"] for row in reply.json()["results"]]


def answer(api, catalog, **asked) -> list[str]:
    reply = api.post(f"{catalog}/recommend", json={"diversity": 0, "limit": 5, **asked})
    assert reply.status_code == 200, reply.text
    return [item["item_id"] for item in reply.json()["items"]]


def stored(api, catalog, user) -> list[str]:
    return [visit["item_id"] for visit in api.get(f"{catalog}/users/{user}").json()["history"]]


def test_a_batch_tells_what_became_of_every_event(api, films):
    good = {"user_id": "u", "item_id": "f1", "at": "2026-01-31T12:00:00Z", "type": "purchase"}
    tomorrow = (datetime.now(UTC) + timedelta(days=3)).isoformat()
    batch = [
        {"event_id": "e1", **good},
        {"event_id": "e1", **good},
        {"event_id": "e2", **good},
        {"event_id": "e3", **good, "item_id": "never heard of"},
        {"event_id": "e4", **good, "at": tomorrow},
        {"event_id": "e5", **good, "at": "soon"},
        {"event_id": "e6", **good, "stars": 5},
        {"user_id": "u", "item_id": "f1"},
        "no object",
    ]
    results = api.post(f"{films}/events", json={"events": batch}).json()["results"]
    assert [(row["event_id"], row["status"]) for row in results] == [
        ("e1", "counted"),
        ("e1", "duplicate"),
        ("e2", "repeated"),
        ("e3", "unknown_item"),
        ("e4", "rejected"),
        ("e5", "rejected"),
        ("e6", "rejected"),
        (None, "rejected"),
        (None, "rejected"),
    ]
    assert [pointers(row["problem"]) for row in results[4:]] == [
        ["/events/4/at"], ["/events/5/at"], ["/events/6/stars"], ["/events/7/event_id"],
        ["/events/8"],
    ]  # fmt: skip
    assert stored(api, films, "u") == ["f1"]


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({}, "/events"),
        ({"events": {}}, "/events"),
        ({"events": [], "evnts": []}, "/evnts"),
        ({"events": [{}] * 1_001}, "/events"),
    ],
)
def test_a_body_that_is_no_batch_is_refused(api, films, body, pointer):
    problem = assert_problem(api.post(f"{films}/events", json=body), 422, "invalid_request")
    assert pointers(problem) == [pointer]


def test_a_stored_history_stands_in_for_one_that_is_not_given(api, films):
    send(api, films, ("e1", "u", "f0"), ("e2", "u", "f2"))
    given = [{"item_id": "f0"}, {"item_id": "f2"}]
    assert answer(api, films, user_id="u") == answer(api, films, history=given)
    assert not {"f0", "f2"} & set(answer(api, films, user_id="u", limit=40))
    other = answer(api, films, user_id="u", history=[{"item_id": "f1"}])
    assert other == answer(api, films, history=[{"item_id": "f1"}])
    assert answer(api, films, user_id="stranger") == answer(api, films)


def test_a_stored_profile_stands_in_too(api, films):
    profile = "two people in one small town"
    assert api.put(f"{films}/users/u", json={"profile": profile}).status_code == 200
    assert answer(api, films, user_id="u") == answer(api, films, profile=profile)
    assert answer(api, films, user_id="u", profile="stars") == answer(api, films, profile="stars")


def test_what_goes_together_is_recommended_though_it_is_unlike(api, films):
    """f0 is about space, f39 about love; who had one had the other."""
    before = answer(api, films, history=[{"item_id": "f0"}])
    assert "f39" not in before
    for number in range(30):
        send(api, films, (f"a{number}", f"u{number}", "f0"), (f"b{number}", f"u{number}", "f39"))
    assert answer(api, films, history=[{"item_id": "f0"}])[0] == "f39"
    assert api.delete(item_path(films, "f39")).status_code == 204
    assert "f39" not in answer(api, films, history=[{"item_id": "f0"}], limit=40)
    api.put(item_path(films, "f39"), json={"title": "Film 39 of Love", "domain": "films"})
    assert "f39" not in answer(api, films, history=[{"item_id": "f0"}]), "it starts anew"


def test_a_reader_of_before_counts_again_for_an_item_that_came_back(api, films):
    send(api, films, ("e1", "u", "f0"), ("e2", "u", "f39"))
    assert api.delete(item_path(films, "f39")).status_code == 204
    api.put(item_path(films, "f39"), json={"title": "Film 39 of Love", "domain": "films"})
    assert send(api, films, ("e3", "u", "f39"), ("e4", "u", "f39")) == ["counted", "repeated"]


def test_what_many_had_comes_first_for_a_stranger(api, films):
    assert answer(api, films)[0] != "f33"
    for number in range(3):
        send(api, films, (f"e{number}", f"u{number}", "f33"))
    assert answer(api, films)[0] == "f33"


@pytest.mark.parametrize("user", ["a/b", "{x}", "emoji \U0001f600", "x" * 256])
def test_a_user_is_put_read_and_erased(api, films, user):
    path = item_path(films, user).replace("/items/", "/users/")
    assert_problem(api.get(path), 404, "unknown_user")
    content = {"history": ["f1", "f2", "f1"], "profile": "sand", "attributes": {"age": 7}}
    put = api.put(path, json=content)
    assert put.status_code == 200
    assert api.get(path).json() == put.json()
    assert [visit["item_id"] for visit in put.json()["history"]] == ["f2", "f1"]
    assert put.json()["attributes"] == {"age": 7}
    assert api.delete(path).status_code == 204
    assert_problem(api.get(path), 404, "unknown_user")
    assert api.delete(path).status_code == 204


def test_bytes_that_are_no_text_name_no_user(api, films):
    for method in ("PUT", "GET", "DELETE"):
        reply = api.request(method, f"{films}/users/%ff", json={} if method == "PUT" else None)
        assert_problem(reply, 422, "invalid_request")
    assert api.put(f"{films}/users/%EF%BF%BD", json={}).status_code == 200


@pytest.mark.parametrize(
    "content",
    [{"histroy": []}, {"history": [""]}, {"attributes": {"a": None}}, {"profile": "x" * 4_001}],
)
def test_a_user_that_cannot_be_is_refused(api, films, content):
    assert_problem(api.put(f"{films}/users/u", json=content), 422, "invalid_request")
    assert_problem(api.get(f"{films}/users/u"), 404, "unknown_user")


def test_erasing_a_user_takes_their_traces_along(api, films):
    send(api, films, ("e1", "u", "f0"))
    asked = {"user_id": "u", "limit": 3}
    mine = [api.post(f"{films}/recommend", json=asked).json() for _ in range(3)]
    theirs = api.post(f"{films}/recommend", json={"user_id": "v", "limit": 3}).json()
    traces = [f"{films}/recommendations/{one['recommendation_id']}" for one in (*mine, theirs)]
    assert [api.get(trace).status_code for trace in traces] == [200] * 4

    assert api.delete(f"{films}/users/u").status_code == 204
    assert [api.get(trace).status_code for trace in traces] == [410, 410, 410, 200]
    assert answer(api, films, user_id="u") == answer(api, films)


def test_a_deleted_catalogue_takes_its_users_along(api):
    path = f"/v1/catalogs/brief-{time.monotonic_ns()}"
    for _ in range(2):
        assert api.put(path).status_code == 201
        assert_problem(api.get(f"{path}/users/u"), 404, "unknown_user")
        api.put(item_path(path, "a"), json={"title": "A"})
        assert send(api, path, ("e1", "u", "a")) == ["counted"]
        assert delete_catalog(api, path).status_code == 204


def test_an_export_of_users_is_read_back_as_their_histories(api, films):
    send(api, films, ("e1", "u1", "f1"), ("e2", "u1", "f2"), ("e3", "gone", "f3"))
    api.put(
        f"{films}/users/u2", json={"history": ["f4"], "profile": "slow", "attributes": {"a": 1}}
    )
    api.delete(f"{films}/users/gone")
    lines = api.get(f"{films}/exports/users").content.splitlines()
    rows = {row["user_id"]: row for row in map(json.loads, lines)}
    assert rows.keys() == {"u1", "u2"}
    assert rows["u1"]["history"] == ["f1", "f2"]
    assert (rows["u2"]["profile"], rows["u2"]["attributes"]) == ("slow", {"a": 1})
    for line in lines:
        history = UserHistory.model_validate_json(line)
        read = [
            (one.item_id, datetime.fromtimestamp(one.at / 1e6, UTC)) for one in history.events(0)
        ]
        known = api.get(f"{films}/users/{history.user_id}").json()["history"]
        for (item_id, at), visit in zip(read, known, strict=True):
            assert item_id == visit["item_id"]
            assert abs(at - datetime.fromisoformat(visit["at"])) < timedelta(milliseconds=1)

"""Events over HTTP: their fields, and what a bad row says."""

import re
from datetime import UTC, datetime

import pytest

from app.event_types import EVENT_TYPES
from tests.app.api.support import pointers
from tests.commands import ROOT


def results(api, catalog, *events: object) -> list[dict]:
    reply = api.post(f"{catalog}/events", json={"events": list(events)})
    assert reply.status_code == 200, reply.text
    return reply.json()["results"]


def test_an_event_with_all_its_fields(api, films):
    full = {
        "event_id": "e", "user_id": "u", "item_id": "f1", "type": "click", "value": 3,
        "at": "2026-01-31T12:00:00Z", "recommendation_id": "rec_abc", "rank": 2,
    }  # fmt: skip
    assert [row["status"] for row in results(api, films, full)] == ["counted"]


def test_times_are_taken_as_files_write_them(api, films):
    written = ["2026-01-31T12:00:00Z", 1769860800, 1769860800000, "1769860800", "2026-01-31 12:00"]
    rows = results(api, films, *({"user_id": "u", "item_id": "f1", "at": at} for at in written))
    assert [row["status"] for row in rows] == ["counted", *["duplicate"] * 4]
    (visit,) = api.get(f"{films}/users/u").json()["history"]
    assert datetime.fromisoformat(visit["at"]) == datetime(2026, 1, 31, 12, tzinfo=UTC)


def test_whole_numbers_are_ids(api, films):
    api.put(f"{films}/items/7", json={"title": "Seven"}).raise_for_status()
    (row,) = results(api, films, {"user_id": 42, "item_id": 7, "at": 5})
    assert row["status"] == "counted"
    assert [one["item_id"] for one in api.get(f"{films}/users/42").json()["history"]] == ["7"]


@pytest.mark.parametrize(
    ("fields", "pointer", "words"),
    [
        ({"at": "soon"}, "at", "not a time"),
        ({"at": 1769860800000000}, "at", "microseconds"),
        ({"at": True}, "at", "datetime"),
        ({"at": 99999999999}, "at", "between 1970 and now"),
        ({"type": "wave"}, "type", "impression, view, click, cart, purchase, like, dislike"),
        ({"type": ""}, "type", "pattern"),
        ({"user_id": 1.5}, "user_id", "whole number"),
        ({"user_id": ""}, "user_id", "at least 1"),
        ({"item_id": None}, "item_id", "whole number"),
        ({"rank": 0}, "rank", "greater than"),
        ({"value": "much"}, "value", "number"),
        ({"recommendation_id": "a b"}, "recommendation_id", "pattern"),
        ({"at": None}, "event_id", "give event_id, at or recommendation_id"),
        ({"stars": 5}, "stars", "not permitted"),
    ],
)
def test_a_bad_row_names_its_field_and_costs_itself(api, films, fields, pointer, words):
    good = {"user_id": "u", "item_id": "f1", "at": 5}
    bad, fine = results(api, films, {**good, **fields}, {**good, "item_id": "f2"})
    assert (bad["status"], fine["status"]) == ("rejected", "counted")
    assert pointers(bad["problem"]) == [f"/events/0/{pointer}"]
    assert words in bad["problem"]["errors"][0]["message"]


def test_a_catalogue_has_types_of_its_own(api, films):
    wave = {"user_id": "u", "item_id": "f1", "at": 5, "type": "wave"}
    assert results(api, films, wave)[0]["status"] == "rejected"
    api.patch(films, json={"event_types": {"wave": {"weight": 0.1}}}).raise_for_status()
    assert results(api, films, wave)[0]["status"] == "counted"


def test_the_same_event_without_an_id_counts_once(api, films):
    shown = {"user_id": "u", "item_id": "f1", "recommendation_id": "rec_1", "type": "click"}
    rows = results(api, films, shown, shown, {**shown, "recommendation_id": "rec_2"})
    assert [row["status"] for row in rows] == ["counted", "duplicate", "repeated"]
    assert {row["event_id"] for row in rows} == {None}


def test_what_a_user_viewed_stays_in_their_lists_and_a_dislike_does_not(api, films):
    at = {"user_id": "u", "at": 5}
    viewed, bought, bad = ({**at, "item_id": one} for one in ("f1", "f2", "f3"))
    results(api, films, viewed, {**bought, "type": "purchase"}, {**bad, "type": "dislike"})
    reply = api.post(f"{films}/recommend", json={"user_id": "u", "limit": 40}).json()
    listed = {item["item_id"] for item in reply["items"]}
    assert {"f1", "f2", "f3"} & listed == {"f1"}


def test_rows_are_typed_in_the_description(api):
    schemas = api.get("/openapi.json").json()["components"]["schemas"]
    rows = schemas["EventsRequest"]["properties"]["events"]["items"]
    assert rows == {"$ref": "#/components/schemas/UserEvent"}
    event = schemas["UserEvent"]
    assert event["required"] == ["user_id", "item_id"]
    assert {"type", "at", "value", "recommendation_id", "rank"} <= event["properties"].keys()
    assert schemas["BatchRequest"]["properties"]["upserts"]["items"] == {
        "$ref": "#/components/schemas/Item"
    }


def test_the_page_about_events_has_the_types_as_they_are():
    page = (ROOT / "docs" / "events.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+)` \| ([−.\d]+) \| (yes|no) \|$", page, re.MULTILINE)
    told = {name: (float(weight.replace("−", "-")), hides == "yes") for name, weight, hides in rows}
    assert told == {name: (kind.weight, kind.hides) for name, kind in EVENT_TYPES.items()}

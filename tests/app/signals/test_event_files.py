"""Events from the rows of files: types, ratings, times and ids."""

import json
from collections.abc import Mapping
from pathlib import Path

from app.data_files import FileLoad
from app.event_types import EVENT_TYPES, EventRules, EventType
from app.signals import RowMeaning, events_in
from app.storage.feedback import Event

Row = Mapping[str, object]

NOW = 2_000_000_000
SECOND = 1_000_000


def events(
    folder: Path, *rows: Row, meaning: RowMeaning | None = None
) -> tuple[list[Event], dict[str, int]]:
    path = folder / "file.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    loading = FileLoad([path])
    found = list(events_in(loading.open(path, "events"), meaning or RowMeaning(), NOW))
    return found, loading.skipped.counts


def test_ratings_and_types_become_our_types(tmp_path: Path) -> None:
    rows: list[Row] = [
        {"user_id": "u", "item_id": "a", "at": 5, "rating": 4},
        {"user_id": "u", "item_id": "b", "at": 5, "rating": 2},
        {"user_id": "u", "item_id": "c", "at": 5, "rating": 3},
        {"user_id": "u", "item_id": "d", "at": 5, "rating": 1, "type": "Add to cart"},
        {"user_id": "v", "history": ["a", "b", "c"], "ratings": [5, 1, 3]},
        {"user_id": "w", "history": ["a", "b"], "types": ["view", "purchase"]},
        {"user_id": "x", "history": ["a"]},
    ]
    rated = RowMeaning(like_from=4, dislike_to=2, renamed={"add_to_cart": "cart"})
    found, skipped = events(tmp_path, *rows, meaning=rated)
    assert not skipped
    assert [event.type for event in found] == [
        *("like", "dislike", "view", "cart"),
        *("like", "dislike", "purchase"),
        *("view", "purchase", "purchase"),
    ]
    plain, _ = events(tmp_path, *rows[:3], rows[-1], meaning=RowMeaning(usual_type="cart"))
    assert {event.type for event in plain} == {"cart"}


def test_a_type_that_the_catalogue_lacks_costs_its_row(tmp_path: Path) -> None:
    rows: list[Row] = [
        {"user_id": "u", "item_id": "a", "at": 5, "type": "wave"},
        {"user_id": "u", "history": ["a"], "types": ["wave"]},
        {"user_id": "u", "item_id": "a", "at": 9e10},
        {"user_id": "u", "item_id": "a", "at": 5, "event_id": ""},
    ]
    found, skipped = events(tmp_path, *rows)
    assert [event.type for event in found] == ["view"]
    named = "this catalogue has the types " + ", ".join(EVENT_TYPES)
    assert skipped == {
        f"type: {named}": 1,
        f"types: {named}": 1,
        "at: must lie between 1970 and now": 1,
    }
    own = EventRules({**EVENT_TYPES, "wave": EventType(weight=0.1)})
    assert len(events(tmp_path, *rows, meaning=RowMeaning(own))[0]) == 3


def test_a_row_is_the_same_event_when_it_is_read_again(tmp_path: Path) -> None:
    timed = {"user_id": "u", "item_id": "a", "at": 5}
    rows: list[Row] = [
        timed,
        {**timed, "at": 6},
        {**timed, "type": "like"},
        {"user_id": "u", "item_id": "a"},
        {**timed, "event_id": 7},
        {"user_id": "u", "history": ["a"]},
    ]
    first, _ = events(tmp_path, *rows)
    again, _ = events(tmp_path, *reversed(rows))
    ids = [event.event_id for event in first]
    assert len(set(ids)) == len(rows)
    assert ids == [event.event_id for event in reversed(again)]
    assert ids[4] == "7"
    assert not any("u" in one for one in ids)  # hashes: hexadecimal, without the user


def test_events_of_one_moment_keep_the_order_of_the_file(tmp_path: Path) -> None:
    rows = [{"user_id": "u", "item_id": item, "at": 5} for item in "cab"]
    found, _ = events(tmp_path, *rows, {"user_id": "u", "item_id": "d", "at": 5.001})
    assert sorted(found, key=lambda event: event.at) == found
    assert all(5 * SECOND <= event.at < 6 * SECOND for event in found)
    late, _ = events(tmp_path, *({"user_id": "u", "item_id": item} for item in "ab"))
    assert NOW < late[0].at < late[1].at


def test_a_history_without_times_was_before_the_time_of_its_row(tmp_path: Path) -> None:
    row = {
        "user_id": "u",
        "history": ["a", "b"],
        "time": "1970-01-01T00:01:00Z",
        "impression": [["c", 1], ["d", 0]],
    }
    found, _ = events(tmp_path, row)
    minute = 60 * SECOND
    assert [(event.item_id, event.type) for event in found] == [
        ("a", "purchase"),
        ("b", "purchase"),
        ("c", "click"),
    ]
    assert [event.at for event in found] == [minute - 2, minute - 1, minute]

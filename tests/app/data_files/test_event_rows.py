"""Rows of events in every layout, and what a damaged row costs: itself."""

import gzip
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from app.data_files import DataError, EventRow, FileLoad, HistoryRow, event_rows, seconds

Read = Callable[[bytes], tuple[list[EventRow | HistoryRow], dict[str, int]]]


@pytest.fixture
def read(tmp_path: Path) -> Read:
    def rows_of(content: bytes) -> tuple[list[EventRow | HistoryRow], dict[str, int]]:
        path = tmp_path / "file"
        path.write_bytes(content)
        loading = FileLoad([path])
        rows = list(event_rows(loading.open(path, "events", skip_undecodable=True)))
        return rows, loading.skipped.counts

    return rows_of


EVENT = EventRow("7", "42", 1_577_836_800.0)


@pytest.mark.parametrize(
    "content",
    [
        b'{"user_id": 7, "item_id": 42, "at": "2020-01-01T00:00:00Z"}',
        b'\xef\xbb\xbf{"userId": "7", "movieId": "42", "timestamp": 1577836800}',
        b'{"reviewerID": "7", "asin": "42", "unixReviewTime": 1577836800, "summary": "x"}',
        b'{"user_id": "7", "asin": "1", "parent_asin": "42", "timestamp": 1577836800000}',
        b"user_id,item_id,timestamp\n7,42,1577836800",
        b'\xef\xbb\xbf"User ID";"Product ID";"Date"\r\n"7";"42";"2020-01-01"\r\n',
        b"product\tnote\tuid\tevent_time\n42\t\t7\t2020-01-01 00:00:00 UTC\n",
        gzip.compress(b"uid,sku,ts\n7,42,1577836800.0\n", mtime=0),
    ],
)
def test_an_event_by_any_name(read: Read, content: bytes) -> None:
    assert read(content) == ([EVENT], {})


def test_all_fields_of_an_event(read: Read) -> None:
    fields = {
        "event_id": 9,
        "event_type": "purchase",
        "rating": 4,
        "price": "3.5",
        "recommendation_id": "rec_1",
        "rank": 2,
    }
    full = EventRow("u", "i", None, "purchase", 4.0, 3.5, "9", "rec_1", 2)
    assert read(json.dumps({"user": "u", "item": "i", **fields}).encode())[0] == [full]
    header = ",".join(["user", "item", *fields])
    cells = ",".join(["u", "i", *map(str, fields.values())])
    assert read(f"{header}\n{cells}\n".encode())[0] == [full]


def test_movielens_and_mind(read: Read) -> None:
    assert read(b"7::42::4.5::1577836800\n") == (
        [EventRow("7", "42", seconds(1577836800), None, 4.5)],
        {},
    )
    row = b"1\tU1\t11/15/2019 8:00:00 AM\tN1 N2\tN3-0 N4-1\n"
    shown = ((("N3", False), ("N4", True)),)
    time = seconds("2019-11-15T08:00:00Z")
    assert read(row)[0] == [HistoryRow("U1", ("N1", "N2"), time=time, impressions=shown)]


def test_histories(read: Read) -> None:
    lines = [
        {"user_id": 7, "history": [42, "b"], "timestamps": ["2020-01-01", 1577836801000]},
        {"user_id": "u", "history": ["a"], "types": ["like"], "ratings": [5], "other": {}},
    ]
    rows, skipped = read("\n".join(map(json.dumps, lines)).encode())
    assert rows == [
        HistoryRow("7", ("42", "b"), (1577836800.0, 1577836801.0)),
        HistoryRow("u", ("a",), (), (5.0,), ("like",)),
    ]
    assert not skipped


@pytest.mark.parametrize(
    ("cells", "reason"),
    [
        (b'u,"i,5,view', "a quote that is not closed in its line, or has text after it"),
        (b"u,i,5", "not 4 columns"),
        (
            b"u,i,soon,view",
            "at: not a time: expected seconds or milliseconds since 1970, or ISO 8601",
        ),
        (b",i,5,view", "user_id: missing"),
        (b"u,\xe9,5,view", "not UTF-8"),
        (
            b"u,i,1577836800000000,view",
            "at: microseconds or a smaller unit: expected seconds or milliseconds since 1970, or "
            "ISO 8601",
        ),
        (
            b"u,i,nan,view",
            "at: not a time: expected seconds or milliseconds since 1970, or ISO 8601",
        ),
    ],
)
def test_a_damaged_row_costs_itself(read: Read, cells: bytes, reason: str) -> None:
    rows, skipped = read(b"user_id,item_id,at,type\na,b,5,view\n" + cells + b"\nc,d,6,like\n")
    assert rows == [EventRow("a", "b", 5.0, "view"), EventRow("c", "d", 6.0, "like")]
    assert skipped == {reason: 1}


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"user_id": True}, "user_id: expected a text or a whole number"),
        ({"item_id": ["x"]}, "item_id: expected a text or a whole number"),
        ({"at": {}}, "at: expected a number or a text"),
        ({"type": 5}, "type: expected a text"),
        ({"rank": 1.5}, "rank: expected a whole number"),
        ({"value": "much"}, "value: expected a number"),
    ],
)
def test_the_reason_names_the_field(read: Read, fields: dict[str, object], reason: str) -> None:
    good = {"user_id": "u", "item_id": "i"}
    rows, skipped = read("\n".join(map(json.dumps, [good, good | fields])).encode())
    assert (rows, skipped) == ([EventRow("u", "i")], {reason: 1})


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"item_id,timestamp\na,5\n", "the header is 'item_id,timestamp'; expected events"),
        (b"a,b,5\n", "the header is 'a,b,5'; expected events"),
        (b"user_id,item_id\n" + b"u\n" * 200, "file:2: not 2 columns; expected events"),
        (b"[1]\n", "expected events"),
        (b"\n", "the file is empty; expected events"),
        (gzip.compress(b"user,item\n" + b"u,i\n" * 9_000, mtime=0)[:-20], "ends in the middle"),
    ],
)
def test_no_file_of_events(read: Read, content: bytes, words: str) -> None:
    with pytest.raises(DataError, match=words):
        read(content)

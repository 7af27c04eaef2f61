"""`unillmrec events`, as a process of its own over a store of its own."""

import gzip
import json

import pytest

from tests.commands import DEMO, command, told

IDS = [json.loads(line)["id"] for line in DEMO.read_text(encoding="utf-8").splitlines()]


@pytest.fixture
def folder(tmp_path):
    data = tmp_path / "data"
    assert told(command(data, "import", str(DEMO), "--json"))["state"] == "succeeded"
    return data


def test_histories_and_events_are_counted_once(folder, tmp_path):
    far = IDS[-1]
    rows = [{"user_id": f"u{n}", "history": [IDS[0], far], "rating": 5} for n in range(30)]
    rows += [{"user_id": "v", "history": ["unknown", IDS[3]], "timestamps": [5, "1970-01-02"]}]
    rows += [{"event_id": "e1", "user_id": "w", "item_id": IDS[0], "type": "purchase"}]
    bad = [
        '{"user_id": "x", "history": ["a"], "timestamps": []}',
        '{"user_id": "x"}',
        "nonsense",
        '{"user_id": "x", "history": ["a"], "timestamps": [1e15]}',
    ]
    file = tmp_path / "histories.jsonl.gz"
    lines = [*map(json.dumps, rows), "", *bad]
    file.write_bytes(gzip.compress("\n".join(lines).encode()))

    done = told(command(folder, "events", str(file), "--json"))
    assert (done["counted"], done["unknown_item"], done["rejected"]) == (62, 1, 4)
    assert [error.split(": ")[0] for error in done["errors"]] == [
        f"histories.jsonl.gz:{number}" for number in (34, 35, 36, 37)
    ]
    asked = ("recommend", "--history", IDS[0], "--diversity", "0", "--json")
    assert told(command(folder, *asked))["items"][0]["item_id"] == far

    users = tmp_path / "users.jsonl"
    done = told(command(folder, "export", "--users", "-o", str(users), "--json"))
    assert done["users"] == 32
    assert {len(json.loads(line)["history"]) for line in users.read_text().splitlines()} == {1, 2}

    again = told(command(folder, "events", str(file), "--json"))
    assert again.get("counted", 0) == 0
    assert again["duplicate"] == 62
    shown = command(folder, "events", str(file))
    assert "62 duplicate" in shown.stdout
    assert "item_id: missing" in shown.stdout


def test_a_table_of_ratings_is_counted_by_its_columns(folder, tmp_path):
    file = tmp_path / "ratings.csv"
    ratings = [("u", IDS[0], 5), ("u", IDS[1], 1), ("u", IDS[2], 3), ("w", IDS[0], 4.5)]
    lines = [
        f"{1577836800 + at},{user},{item},{rating}"
        for at, (user, item, rating) in enumerate(ratings)
    ]
    broken = ['1577836800,"x', "1577836800000000,x,y,3", f"1577836800,x,{IDS[0]},"]
    file.write_text(
        "\n".join(["timestamp,userId,movieId,rating", *lines, *broken]), encoding="utf-8"
    )
    asked = ("events", str(file), "--like-from", "4", "--dislike-to", "2", "--json")
    done = told(command(folder, *asked))
    assert (done["counted"], done["noted"], done["rejected"]) == (4, 1, 2)
    assert [error.partition(": ")[0] for error in done["errors"]] == [
        "ratings.csv:6",
        "ratings.csv:7",
    ]
    assert told(command(folder, *asked))["duplicate"] == 5


def test_types_of_a_file_are_renamed_or_refused(folder, tmp_path):
    file = tmp_path / "events.tsv"
    rows = [("addToCart", IDS[0]), ("View", IDS[1]), ("wave", IDS[2])]
    lines = [f"u\t{item}\t{kind}\t2020-01-01" for kind, item in rows]
    file.write_text("\n".join(["visitorid\titemid\tevent\tdate", *lines]), encoding="utf-8")
    done = told(command(folder, "events", str(file), "--as", "addtocart=cart", "--json"))
    assert (done["counted"], done["rejected"]) == (2, 1)
    assert done["errors"][0].startswith(
        "events.tsv:4: type: this catalogue has the types impression"
    )
    wrong = command(folder, "events", str(file), "--as", "cart")
    assert wrong.returncode == 2
    for option in ("--as=addtocart=trolley", "--type=trolley"):
        wrong = command(folder, "events", str(file), option)
        assert wrong.returncode == 1
        assert "there is no type of events 'trolley'" in wrong.stderr


def test_a_file_of_the_owner_has_no_limit_of_a_day(folder, tmp_path):
    file = tmp_path / "long.jsonl"
    file.write_text(json.dumps({"user_id": "collector", "history": IDS[:120]}), encoding="utf-8")
    assert told(command(folder, "events", str(file), "--json"))["counted"] == 120


def test_a_file_that_cannot_be_read_is_told(folder, tmp_path):
    file = tmp_path / "cut.jsonl.gz"
    file.write_bytes(gzip.compress(b'{"user_id": "u", "history": ["a"]}\n' * 9_000)[:-40])
    failed = command(folder, "events", str(file))
    assert failed.returncode == 1
    assert "the gzip file ends in the middle" in failed.stderr
    assert "events before it were read" in failed.stderr
    file.write_bytes(b"user,what\nu,a\n")
    failed = command(folder, "events", str(file))
    assert failed.returncode == 1
    assert "the header is 'user,what'; expected events" in failed.stderr
    told(command(tmp_path / "other", "import", str(DEMO), "--dry-run", "--json"))
    empty = command(tmp_path / "other", "events", str(file))
    assert empty.returncode == 1
    assert "holds no items" in empty.stderr

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
    rows += [{"user_id": "v", "history": ["unknown", IDS[3]], "timestamps": [5, 6.5]}]
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

    again = told(command(folder, "events", str(file), "--json"))
    assert again.get("counted", 0) == 0
    assert again["duplicate"] == 62
    shown = command(folder, "events", str(file))
    assert "62 duplicate" in shown.stdout
    assert "expected an event" in shown.stdout


def test_a_file_that_cannot_be_read_is_told(folder, tmp_path):
    file = tmp_path / "cut.jsonl.gz"
    file.write_bytes(gzip.compress(b'{"user_id": "u", "history": ["a"]}\n' * 9_000)[:-40])
    failed = command(folder, "events", str(file))
    assert failed.returncode == 1
    assert "the compressed file is damaged" in failed.stderr
    told(command(tmp_path / "other", "import", str(DEMO), "--dry-run", "--json"))
    empty = command(tmp_path / "other", "events", str(file))
    assert empty.returncode == 1
    assert "holds no items" in empty.stderr

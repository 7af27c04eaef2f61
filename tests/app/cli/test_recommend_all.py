"""`unillmrec recommend-all`, as a process of its own over a store of its own."""

import json

from app.lists import RunFiles, RunProgress
from tests.commands import DEMO, command, told


def test_the_lists_of_all_users_and_of_a_file_are_written(tmp_path):
    data, output = tmp_path / "data", tmp_path / "lists.jsonl"
    assert told(command(data, "import", str(DEMO), "--json"))["state"] == "succeeded"
    events = tmp_path / "events.jsonl"
    rows = [{"user_id": f"u{number}", "history": ["book-dune"]} for number in range(3)]
    events.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    told(command(data, "events", str(events), "--json"))
    asked = ("recommend-all", "-o", str(output), "--strategy", "embedded", "--limit", "4", "--json")
    done = told(command(data, *asked))
    assert (done["lists"], done["problems"]) == (3, 0)
    found = [json.loads(line) for line in output.read_text(encoding="utf-8").splitlines()]
    assert {row["user_id"] for row in found} == {"u0", "u1", "u2"}
    assert {len(row["answer"]["items"]) for row in found} == {4}
    again = command(data, *asked)
    assert again.returncode != 0
    assert "exists" in again.stderr
    refused = command(data, "recommend-all", "-o", str(tmp_path / "no"), "--engine", "ray")
    assert refused.returncode == 1
    assert "UNILLMREC_REDIS_URL" in refused.stderr
    requests, other = tmp_path / "requests.jsonl", tmp_path / "other.jsonl"
    requests.write_text('{"limit": 2}\nnonsense\n', encoding="utf-8")
    with RunFiles.beside(other).alone():
        refused = command(data, "recommend-all", "-o", str(other), "--requests", str(requests))
        assert (refused.returncode, "another process writes" in refused.stderr) == (1, True)
    files = RunFiles.beside(other)
    files.note(RunProgress(of="of another file"))
    refused = command(data, "recommend-all", "-o", str(other), "--requests", str(requests))
    assert (refused.returncode, "to start afresh" in refused.stderr) == (1, True)
    files.progress.unlink()
    shown = command(data, "recommend-all", "-o", str(other), "--requests", str(requests))
    assert "1 lists written" in shown.stdout
    assert "1 requests failed" in shown.stdout
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "data", "events.jsonl", "lists.jsonl", "other.jsonl", "requests.jsonl",
    ]  # fmt: skip

"""`unillmrec enrich`: lines by a model from the command line."""

import json

import pytest

from tests.app.curate.enrichment.support import line_of, lines_json
from tests.commands import DEMO, DEMO_ITEMS, command, model, told


@pytest.fixture
def more(hostile_server):
    hostile_server.content = lines_json
    return {
        **model(hostile_server.base_url, "m"),
        "UNILLMREC_LLM_LABELS": "false",
        "UNILLMREC_LLM_REPLY_MODE": "json_schema",
        "UNILLMREC_LLM_PRICES": '{"m": {"input": 2, "output": 8}}',
    }


def test_a_model_describes_every_item_and_is_paid_once(tmp_path, hostile_server, more):
    folder = tmp_path / "data"
    assert command(folder, "import", str(DEMO)).returncode == 0
    dry = command(folder, "enrich", "--dry-run", **more)
    assert f"lines of {DEMO_ITEMS} items would take about" in dry.stdout
    assert hostile_server.requests == []

    some = told(
        command(folder, "enrich", "--max-cost-usd", "0.1", "--no-rebuild", "--json", **more)
    )
    assert some["result"]["stopped"] == "budget"
    assert 0 < some["cost_usd"] <= 0.1
    assert some["rebuild"] is None
    rest = command(folder, "enrich", "--rebuild", **more)
    assert rest.returncode == 0, rest.stderr
    left = some["result"]["left"]
    assert rest.stdout.startswith(f"{left} items have a line now, 0 of them paid for before")
    versions = told(command(folder, "versions", "--json"))["versions"]
    assert len(versions) == 2
    exported = command(folder, "export")
    assert exported.returncode == 0, exported.stderr
    rows = [json.loads(row) for row in exported.stdout.splitlines()]
    assert all(row["enrichment"]["text"] == line_of(row["title"]) for row in rows)
    assert len(rows) == DEMO_ITEMS


def test_a_run_without_one_line_fails_and_the_next_one_asks_again(tmp_path, hostile_server, more):
    folder = tmp_path / "data"
    items = tmp_path / "items.jsonl"
    items.write_text('{"id": "a", "title": "Boots"}\n{"id": "b", "title": "Lamp"}\n')
    assert command(folder, "import", str(items)).returncode == 0
    hostile_server.content = lambda _: '{"lines": []}'
    for _ in range(2):
        calls = len(hostile_server.requests)
        done = command(folder, "enrich", **more)
        assert (done.returncode, "not one item has got a line" in done.stderr) == (1, True)
        assert "asked for again by the next enrich: 2 missing" in done.stdout
        assert len(hostile_server.requests) > calls
    hostile_server.content = lines_json
    assert command(folder, "enrich", **more).returncode == 0
    nothing = command(folder, "enrich", **more)
    assert (nothing.returncode, nothing.stderr) == (0, "")


def test_without_a_model_the_command_says_what_to_set(tmp_path):
    folder = tmp_path / "data"
    assert command(folder, "import", str(DEMO)).returncode == 0
    done = command(folder, "enrich")
    assert done.returncode == 1
    assert "UNILLMREC_LLM_MODEL" in done.stderr


def test_a_file_and_a_model_are_not_asked_at_once(tmp_path):
    folder = tmp_path / "data"
    file = tmp_path / "lines.jsonl"
    file.write_text("")
    done = command(folder, "enrich", "--from", str(file), "--dry-run")
    assert done.returncode == 2

"""`enrich`: lines from a file, into the store or into a running service."""

import gzip
import json
from collections.abc import Mapping
from pathlib import Path

import httpx2
import pytest

from tests.commands import DEMO, DEMO_ITEMS, command, serving, told
from tree.item import Item

LINES = {
    "book-dune": "A family fights for a desert planet; for those who like politics and prophecy.",
    "book-neuromancer": "Beekeeping on a roof, for beginners.",
}


def written(path: Path, *rows: object) -> Path:
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    path.write_bytes(gzip.compress("\n".join(lines).encode()))
    return path


def rows(lines: Mapping[str, str | None]) -> list[dict]:
    return [{"item_id": item_id, "text": text} for item_id, text in lines.items()]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder that holds the bundled catalogue."""
    folder = tmp_path_factory.mktemp("enrich") / "data"
    told(command(folder, "import", str(DEMO), "--json"))
    return folder


def exported(folder: Path) -> dict[str, str]:
    """The lines in an export, by item."""
    done = command(folder, "export")
    items = [Item.stored(line.encode()) for line in done.stdout.splitlines()]
    return {item.id: item.line.text for item in items if item.line}


def test_lines_of_a_file_are_set_and_removed(folder, tmp_path):
    file = written(tmp_path / "lines", *rows(LINES))
    report = told(command(folder, "enrich", "--from", str(file), "--json"))
    assert report == {
        "lines": 2, "set": 2, "removed": 0, "unchanged": 0, "rejected": 0,
        "errors": [], "errors_not_shown": 0, "rebuild": None,
    }  # fmt: skip
    assert exported(folder) == LINES
    words = ("recommend", "--instruction", "beekeeping on a roof", "--limit", "3", "--json")
    assert told(command(folder, *words))["items"][0]["item_id"] == "book-neuromancer"

    again = command(folder, "enrich", "--from", str(file))
    assert again.returncode == 0
    assert "0 lines set, 2 unchanged, 0 removed, 0 not used" in again.stdout

    none = written(tmp_path / "none", *rows(dict.fromkeys(LINES)))
    assert told(command(folder, "enrich", "--from", str(none), "--json"))["removed"] == 2
    assert exported(folder) == {}


def test_lines_that_are_not_used_are_listed_and_fail_the_command(folder, tmp_path):
    file = written(
        tmp_path / "lines",
        {"item_id": "nobody", "text": "For all."},
        {"item_id": "book-dune", "text": "<b>Dune</b>"},
        {"item_id": "book-dune", "text": "x" * 10_000},
        {"item_id": "book-dune", "text": "For all.", "more": 1},
        "no object",
        "",
        {"item_id": "book-dune", "text": LINES["book-dune"]},
    )
    done = command(folder, "enrich", "--from", str(file), "--json")
    assert done.returncode == 1
    assert "5 of 6 lines were not used" in done.stderr
    report = json.loads(done.stdout)
    assert (report["lines"], report["set"], report["rejected"]) == (6, 1, 5)
    problems = {row["line"]: row["problem"] for row in report["errors"]}
    assert sorted(problems) == [1, 2, 3, 4, 5]
    assert "no such item" in problems[1]
    assert "markup" in problems[2]
    assert "10,000 characters" in problems[3]
    assert exported(folder) == {"book-dune": LINES["book-dune"]}


def test_doctor_says_how_many_items_have_a_line(folder, tmp_path):
    file = written(tmp_path / "lines", *rows(LINES))
    told(command(folder, "enrich", "--from", str(file), "--json"))

    def check(**more: str) -> str:
        done = command(folder, "doctor", "--json", **more)
        findings = {each["name"]: each["finding"] for each in json.loads(done.stdout)["checks"]}
        return findings["catalogue default, lines"]

    counts = f"2 items have a line in plain words, {DEMO_ITEMS - 2} have none: unillmrec enrich"
    assert check() == f"{counts} --from FILE --catalog default"
    model = {"LLM_MODEL": "m", "LLM_API_KEY": "k", "LLM_BASE_URL": "http://127.0.0.1:9/v1"}
    more = {f"UNILLMREC_{name}": value for name, value in model.items()}
    assert check(**more) == f"{counts} --catalog default"


def test_a_damaged_file_says_what_was_done(folder, tmp_path):
    file = written(tmp_path / "lines", *rows(LINES))
    file.write_bytes(file.read_bytes()[:-10])
    done = command(folder, "enrich", "--from", str(file))
    assert done.returncode == 1
    assert "is damaged after line" in done.stderr


def test_many_lines_rebuild_the_tree_of_a_running_service(tmp_path):
    ids = [json.loads(line)["id"] for line in DEMO.read_text(encoding="utf-8").splitlines()]
    file = written(tmp_path / "lines", *rows({one: f"For readers of {one}." for one in ids}))
    own = tmp_path / "own"
    with serving(tmp_path / "data") as (url, _), httpx2.Client(base_url=url, timeout=60) as api:
        there = ("--url", url, "--json")
        told(command(own, "import", str(DEMO), *there))
        report = told(command(own, "enrich", "--from", str(file), *there))
        assert report["set"] == DEMO_ITEMS
        assert report["rebuild"]["state"] == "succeeded"
        line = api.get("/v1/catalogs/default/items/book-dune/enrichment").json()
        assert line["text"] == "For readers of book-dune."
        done = command(own, "enrich", "--from", str(file), *there, "-c", "nothing")
        assert (done.returncode, "nothing" in done.stderr) == (1, True)


def test_lines_that_are_not_used_are_listed_in_their_order(folder, tmp_path):
    unknown = {"item_id": "nobody", "text": LINES["book-dune"]}
    file = written(tmp_path / "mixed", unknown, "nonsense", unknown | {"item_id": "none"}, "more")
    done = command(folder, "enrich", "--from", str(file), "--json")
    errors = json.loads(done.stdout)["errors"]
    assert [error["line"] for error in errors] == [1, 2, 3, 4]

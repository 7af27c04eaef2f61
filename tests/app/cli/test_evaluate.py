"""`unillmrec evaluate`, as a process of its own."""

import json
import random

import pytest

from tests.commands import DEMO, command, model, told
from tests.servers import llama


@pytest.fixture
def data(tmp_path):
    folder = tmp_path / "books"
    folder.mkdir()
    items = [json.loads(line) for line in DEMO.read_text(encoding="utf-8").splitlines()]
    books = [item["id"] for item in items if item["domain"] == "books"]
    draw = random.Random(3)
    rows = [{"user_id": f"u{n}", "history": draw.sample(books, 8)} for n in range(12)]
    rows.append({"user_id": "lost", "history": ["nowhere"]})
    (folder / "items.jsonl").write_text(DEMO.read_text(encoding="utf-8"), encoding="utf-8")
    (folder / "histories.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return folder


def evaluated(data, *arguments, **more):
    return command(data.parent / "store", "evaluate", *arguments, **more)


def test_compare_writes_table_page_and_rows(data):
    shown = evaluated(data, "compare", str(data), "-s", "embedded", "-s", "popular")
    assert shown.returncode == 0, shown.stderr
    assert "Recall@20" in shown.stdout
    assert "embedded" in shown.stdout
    assert "1 × " in shown.stderr, "skipped rows are reported"
    page = (data.parent / "evaluation" / "report.html").read_text(encoding="utf-8")
    assert "popular" in page
    again = evaluated(data, "compare", str(data), "-s", "embedded", "-s", "popular", "--json")
    rows = told(again)["rows"]
    assert [row["run"]["system"] for row in rows] == ["embedded", "popular"]
    stored = (data.parent / "evaluation" / "results.jsonl").read_text(encoding="utf-8")
    assert [json.loads(line) for line in stored.splitlines()] == rows, "no system ran again"
    assert told(evaluated(data, "report", "--json"))["rows"] == rows


def test_model_replies_are_recorded_and_replayed(data, llama_url):
    asked = ("compare", str(data), "-s", "beam:effort=economy", "--users", "2", "--json")
    recorded = evaluated(
        data, *asked, "--out", "one", "--record", "recording.jsonl", **model(llama_url, llama.MODEL)
    )
    replayed = evaluated(data, *asked, "--out", "two", "--replay", "recording.jsonl")
    [one], [two] = told(recorded)["rows"], told(replayed)["rows"]
    assert one["usage"]["recall"]["calls"] >= 2
    for name in ("metrics", "usage", "degraded", "buckets", "flaws"):
        assert one[name] == two[name]
    into = ("--out", "one", "--record", "again.jsonl")
    evaluated(data, *asked, *into, **model(llama_url, llama.MODEL))
    keys = [
        {json.loads(line)["key"] for line in (data.parent / name).read_bytes().splitlines()}
        for name in ("recording.jsonl", "again.jsonl")
    ]
    assert keys[0] == keys[1], "a recording is whole, whatever results there are"
    other = evaluated(data, *asked, "--seed", "9", "--out", "two", "--replay", "recording.jsonl")
    assert other.returncode == 1
    assert "does not hold a question" in other.stderr


def test_prompts_are_counted_without_a_model(data):
    shown = evaluated(data, "tokens", str(data), "--size", "200", "--json")
    assert "a stand-in reads the prompts" in shown.stderr
    rows = told(shown)["rows"]
    assert {row["run"]["system"] for row in rows} >= {"paper", "flat", "beam:effort=balanced"}
    assert all(row["usage"] for row in rows)
    page = (data.parent / "evaluation" / "report.html").read_text(encoding="utf-8")
    assert "llm_model word-overlap (stand-in)" in page


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("-s", "oracle"), "no system 'oracle'"),
        (("-s", "paper"), "set UNILLMREC_LLM_MODEL"),
        (("-s", "embedded:beam=3"), "beam is not known"),
        (("--record", "recording.jsonl"), "nothing to record"),
        (("--protocol", "temporal"), "timestamps"),
        (("--protocol", "impressions"), "impressions"),
        (("--format", "mind"), "news.tsv"),
        (("--format", "mind", "-s", "oracle"), "no system 'oracle'"),
        (("-s", "popular", "-s", "popular"), "named twice"),
    ],
)
def test_errors_are_one_sentence(data, arguments, message):
    failed = evaluated(data, "compare", str(data), *arguments)
    assert failed.returncode == 1
    assert message in failed.stderr
    assert not (data.parent / "evaluation" / "results.jsonl").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("topics", "-s", "embedded:diversity=0.3"), "varies diversity itself"),
        (("training", "-s", "bm25"), "share is not known"),
        (("prompts",), "set UNILLMREC_LLM_MODEL"),
    ],
)
def test_systems_are_checked_before_data_are_read(data, arguments, message):
    (data / "items.jsonl").write_text("no item", encoding="utf-8")
    study, *rest = arguments
    failed = evaluated(data, study, str(data), *rest)
    assert failed.returncode == 1
    assert message in failed.stderr
    assert "items.jsonl" not in failed.stderr


def test_a_report_without_results_is_an_error(data):
    (data.parent / "evaluation").mkdir()
    none = evaluated(data, "report")
    assert (none.returncode, none.stderr.count("\n")) == (1, 1)
    assert "there are no results" in none.stderr
    (data.parent / "evaluation" / "results.jsonl").write_text("{}\n", encoding="utf-8")
    damaged = evaluated(data, "report")
    assert (damaged.returncode, damaged.stderr.count("\n")) == (1, 1)
    assert "results.jsonl:1: expected a row" in damaged.stderr


def test_domains_may_be_categories_and_ratings_limited(data):
    items = [json.loads(line) for line in DEMO.read_text(encoding="utf-8").splitlines()]
    by = {
        kind: [item["id"] for item in items if item["categories"][0] == kind]
        for kind in ("Drama", "Comedy", "Crime and mystery")
    }
    draw = random.Random(4)
    rows = [
        {
            "user_id": f"u{n}",
            "history": [
                *draw.sample(by["Drama"], 4),
                *draw.sample(by["Crime and mystery"], 3),
                *draw.sample(by["Comedy"], 2),
            ],
            "ratings": [5, 5, 5, 5, 1, 1, 1, 4, 4],
        }
        for n in range(8)
    ]
    (data / "histories.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    asked = ("crossdomain", str(data), "--by", "category", "-s", "popular", "--json")
    for more, bucket in (
        ((), "drama → crime and mystery"),
        (("--min-rating", "4"), "drama → comedy"),
    ):
        [row] = told(evaluated(data, *asked, *more))["rows"]
        assert list(row["buckets"]) == [bucket]


def test_wishes_are_measured_by_data_set_and_together(data):
    items = [json.loads(line) for line in DEMO.read_text(encoding="utf-8").splitlines()]
    other = data.parent / "films"
    other.mkdir()
    for name in ("items.jsonl", "histories.jsonl"):
        (other / name).write_bytes((data / name).read_bytes())
    rows = [
        {"data": folder, "item_id": item["id"], "wish": item["description"]}
        for folder, some in (("books", items[:6]), ("films", items[6:10]))
        for item in some
    ]
    wishes = data.parent / "wishes.jsonl"
    wishes.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    asked = ("wishes", str(wishes), "-s", "random", "-s", "bm25")
    shown = evaluated(data, *asked)
    assert shown.returncode == 0, shown.stderr
    assert "wishes · all · known-item" in shown.stdout
    assert "bm25 against random, user by user: Recall@20 +" in shown.stdout.replace("\n", " ")
    rows = told(evaluated(data, *asked, "--json"))["rows"]
    stored = (data.parent / "evaluation" / "results.jsonl").read_text(encoding="utf-8")
    assert [json.loads(line) for line in stored.splitlines()] == rows, "nothing ran again"
    assert [(row["run"]["data"]["name"], row["cases"]) for row in rows[1::2]] == [
        ("books", 6),
        ("films", 4),
        ("all", 10),
    ]
    bm25 = rows[-1]
    assert bm25["metrics"]["recall@20"]["value"] == 1.0
    assert bm25["against"]["random"]["recall@20"]["difference"]["value"] > 0.3
    assert set(bm25["buckets"]) == {"books", "films"}
    alone = ("wishes", str(wishes), "-s", "bm25", "--json", "--data", str(other))
    ids = data.parent / "ids.txt"
    ids.write_text("\n".join(item["id"] for item in items[6:9]), encoding="utf-8")
    cut = ("--only-items", str(ids), "--without", "description")
    [whole] = told(evaluated(data, *alone))["rows"]
    [part] = told(evaluated(data, *alone, *cut))["rows"]
    assert (whole["run"]["data"]["items"], part["run"]["data"]["items"]) == (len(items), 3)
    assert (whole["cases"], part["cases"]) == (4, 3)
    assert part["run"]["settings"]["without"] == "description"


def test_a_missing_folder_of_wishes_is_one_sentence(data):
    wishes = data.parent / "wishes.jsonl"
    wishes.write_text('{"data": "music", "item_id": "1", "wish": "slow"}', encoding="utf-8")
    failed = evaluated(data, "wishes", str(wishes))
    assert (failed.returncode, failed.stderr.count("\n")) == (1, 1)
    assert "music: no such file or folder" in failed.stderr

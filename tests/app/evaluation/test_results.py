import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from app.evaluation.case import Case, Query
from app.evaluation.dataset import DataError
from app.evaluation.metrics import CatalogStatistics, SystemMetrics, topics_of
from app.evaluation.report import Data, ModelUsage, ResultRow, Results, as_json
from tests.app.evaluation.sample_rows import DATA, row, run
from tree.item import Item


@pytest.fixture
def results(tmp_path: Path) -> Results:
    return Results(tmp_path / "made" / "results.jsonl")


def test_rows_come_back_as_they_were_written(results: Results) -> None:
    assert results.rows() == []
    written = [row("beam", tokens=4_000), row("random", 0.001)]
    for each in written:
        results.append(each)
    assert results.rows() == written
    assert [json.loads(line)["key"] for line in results.path.read_text().splitlines()] == [
        each.run.key for each in written
    ]


def test_the_number_of_users_keeps_its_stored_name(results: Results) -> None:
    results.append(row("beam"))
    (line,) = results.path.read_text().splitlines()
    assert json.loads(line)["run"]["data"]["readers"] == DATA.users == 70


def test_the_newest_row_of_a_run_counts(results: Results) -> None:
    for each in (row("beam", 0.1), row("flat"), row("beam", 0.2)):
        results.append(each)
    assert [(found.run.system, found.metrics["recall@20"].value) for found in results.rows()] == [
        ("beam", 0.2),
        ("flat", 0.1),
    ]


@pytest.mark.parametrize("length", [1, 40, -2])
def test_an_incomplete_last_line_is_ignored_and_replaced(results: Results, length: int) -> None:
    results.append(row("beam"))
    first = results.path.read_bytes()
    results.append(row("flat"))
    torn = first + results.path.read_bytes()[len(first) :][:length]
    results.path.write_bytes(torn)
    assert [found.run.system for found in results.rows()] == ["beam"]
    results.append(row("popular"))
    assert [found.run.system for found in results.rows()] == ["beam", "popular"]


def test_a_last_row_that_lacks_only_its_line_break_counts(results: Results) -> None:
    results.append(row("beam"))
    results.path.write_bytes(results.path.read_bytes().rstrip(b"\n"))
    assert [found.run.system for found in results.rows()] == ["beam"]
    results.append(row("flat"))
    assert [found.run.system for found in results.rows()] == ["beam", "flat"]


def test_a_long_incomplete_line_is_removed(results: Results) -> None:
    results.append(row("beam"))
    with results.path.open("ab") as file:
        file.write(b'{"run": "' + b"x" * 200_000)
    results.append(row("flat"))
    assert [found.run.system for found in results.rows()] == ["beam", "flat"]
    assert results.path.stat().st_size < 10_000


@pytest.mark.parametrize("line", [b"{", b'{"run": 3}', b"\xff\xfe", b'{"id": "i1"}'])
def test_an_invalid_line_is_named(results: Results, line: bytes) -> None:
    results.append(row("beam"))
    results.path.write_bytes(results.path.read_bytes() + line + b"\n")
    with pytest.raises(DataError, match=r"results\.jsonl:2: expected a row of results"):
        results.rows()


def test_the_key_depends_only_on_what_changes_the_figures() -> None:
    key = run().key
    other_names = Data(name="renamed", checksums={"a": "a1", "b": "b2"})
    assert run(data=other_names).key == key
    assert row(tokens=7).key == key

    changed = Data(name=DATA.name, checksums={**DATA.checksums, "items.jsonl": "c3"})
    others = [
        run("flat"),
        run(data=changed),
        run(protocol="temporal"),
        run(seed=1),
        run(study="k"),
        run(settings={"limit": 10}),
        run(parameters={"k": 5}),
        run(prompts={"search": "f00d"}),
        run(version="9.9.9"),
    ]
    assert len({key, *(other.key for other in others)}) == len(others) + 1


def test_the_order_of_settings_does_not_change_the_key() -> None:
    one = run(settings={"limit": 20, "model": "m"}, parameters={"k": 1, "diversity": 0.3})
    other = run(settings={"model": "m", "limit": 20}, parameters={"diversity": 0.3, "k": 1})
    assert one.key == other.key


def test_a_stored_key_is_computed_again(results: Results) -> None:
    content = json.loads(msgspec.json.encode(row()))
    results.path.parent.mkdir()
    results.path.write_text(json.dumps(content | {"key": "stale"}) + "\n")
    assert results.rows()[0].key == run().key


_WRITER = """
import sys
from pathlib import Path
from app.evaluation.report import Results
from tests.app.evaluation.sample_rows import row
results = Results(Path(sys.argv[1]))
for seed in range(int(sys.argv[3])):
    results.append(row(sys.argv[2], seed=seed))
    print(seed, flush=True)
"""


def _writer(path: Path, system: str, rows: int) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-c", _WRITER, str(path), system, str(rows)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )


def test_several_processes_write_one_file(results: Results) -> None:
    writers = [_writer(results.path, system, 40) for system in ("a", "b", "c")]
    for writer in writers:
        writer.communicate(timeout=60)
        assert writer.returncode == 0
    found = {(each.run.system, each.run.seed) for each in results.rows()}
    assert found == {(system, seed) for system in "abc" for seed in range(40)}


def test_a_killed_writer_leaves_all_rows_that_it_reported(results: Results) -> None:
    writer = _writer(results.path, "a", 1_000_000)
    assert writer.stdout is not None
    reported = [int(writer.stdout.readline()) for _ in range(30)][-1]
    writer.send_signal(signal.SIGKILL)
    writer.communicate(timeout=60)
    assert {each.run.seed for each in results.rows()} >= set(range(reported + 1))
    results.append(row("b"))
    assert results.rows()[-1].run.system == "b"


def test_a_row_holds_what_was_measured(results: Results) -> None:
    items = [Item(id=f"i{n}", title="t", categories=(f"c{n % 3}",)) for n in range(9)]
    statistics = CatalogStatistics.of(items, [], topics=topics_of(items))
    cases = [
        Case(Query("a", ("i0",)), frozenset(["i1"]), bucket="1"),
        Case(Query("b", ("i0", "i3")), frozenset(["i4"]), bucket="2–4"),
        Case(Query("c", ("i0", "i6")), frozenset(["i5"]), bucket="2–4"),
    ]
    ours = SystemMetrics.of(cases, [["i1"], ["i4", "i7"], ["i8", "i5", "i8"]], statistics)
    theirs = SystemMetrics.of(cases, [["i1"], ["i7"], ["i5"]], statistics)
    made = ResultRow.of(
        run(), ours, usage={"search": ModelUsage(calls=3)}, against={"flat": theirs}
    )
    results.append(made)
    (found,) = results.rows()
    assert found == made
    assert found.cases == 3
    assert found.metrics["recall@20"].value == 1
    assert {name: part.cases for name, part in found.buckets.items()} == {"1": 1, "2–4": 2}
    assert found.buckets["2–4"].metrics["mrr@20"].value == 0.75
    assert found.flaws == {"repeated": 1}
    assert found.against["flat"]["recall@20"].difference.value == pytest.approx(1 / 3)
    assert found.topics["targets"] == pytest.approx({"c1": 2 / 3, "c2": 1 / 3})
    assert found.topics["histories"] == {"c0": 1}
    assert found.metrics["topic_level"].value == 0


def test_json_is_one_object() -> None:
    found = json.loads(json.dumps(as_json([row("beam"), row("flat")])))
    assert [each["run"]["system"] for each in found["rows"]] == ["beam", "flat"]
    assert msgspec.convert(found["rows"][0], type(row())) == row("beam")

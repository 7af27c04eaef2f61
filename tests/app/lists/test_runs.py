"""Recommendation runs: every request is answered once, whatever ends the process."""

import asyncio
import gzip
import json
from contextlib import suppress
from pathlib import Path

import pytest

from app.budget import BudgetExceeded
from app.jobs import JobFailed, JobReport
from app.lists import AnsweredPart, ListRun, OwnAnswers, RequestLines, RunFiles, RunLimits
from app.storage.feedback import User, Visit
from app.storage.memory_feedback import MemoryFeedback
from tree.errors import StoreUnavailable


def rows_of(files: RunFiles) -> list[dict]:
    return [json.loads(line) for line in files.lists.read_bytes().splitlines()]


@pytest.mark.parametrize("zipped", [False, True])
async def test_a_run_that_was_cut_off_goes_on_where_it_was(demo, tmp_path, zipped):
    lines = [{"user_id": f"u{number}", "limit": 1 + number % 5} for number in range(250)]
    files = RunFiles.within(tmp_path)
    content = b"\n\n".join(json.dumps(line).encode() for line in lines)
    files.requests.write_bytes(gzip.compress(content) if zipped else content)

    def run() -> ListRun:
        return ListRun(OwnAnswers(demo.recommender, {"strategy": "embedded"}), files)

    first = asyncio.create_task(run().run(JobReport.unwatched()))
    while not files.known().lists:
        await asyncio.sleep(0.001)
    first.cancel()
    with suppress(asyncio.CancelledError):
        await first
    done = files.known().lists
    assert 0 < done < 250
    before = rows_of(files)[:done]
    with files.lists.open("ab") as file:
        file.write(b'{"line": 7, "user')  # as when the process is killed while it writes
    report = JobReport.unwatched()
    progress = await run().run(report)
    assert (progress.lists, progress.problems) == (250, 0)
    assert (report.job.progress.done, report.job.progress.total) == (250, 250)
    found = rows_of(files)
    assert found[:done] == before
    assert [row["user_id"] for row in found] == [f"u{number}" for number in range(250)]
    assert all(row["answer"]["next_cursor"] is None for row in found)
    other = ListRun(OwnAnswers(demo.recommender, {"strategy": "embedded", "limit": 3}), files)
    with pytest.raises(JobFailed, match="other requests"):
        await other.run(JobReport.unwatched())


async def test_a_run_with_anything_else_does_not_go_on_where_another_was(demo, tmp_path):
    files = RunFiles.within(tmp_path)
    files.requests.write_bytes(b'{"user_id": "a"}\n{"user_id": "b"}')
    answers = OwnAnswers(demo.recommender, {"strategy": "embedded"})
    await ListRun(answers, files).run(JobReport.unwatched())
    done = files.lists.read_bytes()
    others = [
        ListRun(answers, files, max_cost_usd=1.0),
        ListRun(answers, files, catalog_id="another"),
        ListRun(answers, files, users=MemoryFeedback()),
    ]
    for other in others:
        with pytest.raises(JobFailed, match="to start afresh"):
            await other.run(JobReport.unwatched())
    files.requests.write_bytes(b'{"user_id": "c"}\n{"user_id": "d"}\n{"user_id": "e"}')
    with pytest.raises(JobFailed, match="to start afresh"):
        await ListRun(answers, files).run(JobReport.unwatched())
    assert files.lists.read_bytes() == done
    files.progress.unlink()
    await ListRun(answers, files).run(JobReport.unwatched())
    assert [row["user_id"] for row in rows_of(files)] == ["c", "d", "e"]


def test_two_runs_do_not_write_one_file(tmp_path):
    output = tmp_path / "lists.jsonl"
    files = RunFiles.beside(output)
    with files.alone():
        with pytest.raises(JobFailed, match="another process"), files.alone():
            pass
        files.lists.write_bytes(b"{}\n")
        files.finish(output, keep_requests=False)
    with files.alone():
        pass
    assert list(tmp_path.iterdir()) == [output]


async def test_a_bad_line_costs_itself(demo, tmp_path: Path):
    files = RunFiles.within(tmp_path)
    lines = [
        b'{"user_id": "a"}',
        b"nonsense",
        b'{"user_id": "b", "limit": 0}',
        b"[]",
        b'{"limit": 2}',
        b'{"user_id": 5}',
    ]
    files.requests.write_bytes(b"\n".join(lines))
    run = ListRun(OwnAnswers(demo.recommender, {"limit": 3}), files)
    progress = await run.run(JobReport.unwatched())
    assert progress.result() == {"lists": 2, "problems": 4, "degraded": 0}
    found = rows_of(files)
    assert [row["line"] for row in found] == [1, 2, 3, 4, 5, 6]
    assert [row["user_id"] for row in found] == ["a", None, "b", None, None, None]
    assert [len(row["answer"]["items"]) if "answer" in row else 0 for row in found] == [
        3,
        0,
        0,
        0,
        2,
        0,
    ]
    assert found[2]["problem"]["code"] == "invalid_request"
    assert found[2]["problem"]["detail"].startswith("limit: ")
    assert found[5]["problem"]["detail"].startswith("user_id: ")


class Backwards:
    """Answers whose parts end in the opposite order, three at a time."""

    width = 3

    def __init__(self, answers: OwnAnswers, fails_at: int = 0) -> None:
        self.request = answers.request
        self._answers = answers
        self._fails_at = fails_at
        self._open: list[asyncio.Event] = []

    async def answer(self, lines: RequestLines, limits: RunLimits) -> AnsweredPart:
        """See ListAnswers."""
        own = asyncio.Event()
        self._open.append(own)
        if len(self._open) == self.width:
            self._open.pop().set()
        await own.wait()
        part = await self._answers.answer(lines, limits)
        if self._open:
            self._open.pop().set()
        if lines[0][0] <= self._fails_at <= lines[-1][0]:
            raise StoreUnavailable("gone")
        return part


async def test_parts_that_end_in_any_order_are_written_in_theirs(demo, tmp_path: Path):
    files = RunFiles.within(tmp_path)
    files.requests.write_bytes(b'{"limit": 1}\n' * 300)
    answers = OwnAnswers(demo.recommender, {"strategy": "embedded"})
    with pytest.raises(StoreUnavailable):
        await ListRun(Backwards(answers, fails_at=250), files).run(JobReport.unwatched())
    assert files.known().lists == 200
    assert (await ListRun(answers, files).run(JobReport.unwatched())).lists == 300
    assert [row["line"] for row in rows_of(files)] == list(range(1, 301))


async def test_all_stored_users_are_asked_for_once(demo, tmp_path: Path):
    feedback = MemoryFeedback()
    for number in range(30):
        await feedback.put_user(f"u{number}", User((Visit("book-dune", number),)))
    files = RunFiles.within(tmp_path)
    files.requests.write_bytes(b'{"user_id": "of an earlier run"}')
    run = ListRun(OwnAnswers(demo.recommender, {}), files, users=feedback)
    assert (await run.run(JobReport.unwatched())).lists == 30
    await feedback.put_user("later", User((), "new"))
    assert (await run.run(JobReport.unwatched())).lists == 30
    assert {row["user_id"] for row in rows_of(files)} == {f"u{number}" for number in range(30)}


async def test_calls_to_models_stop_where_the_money_is_spent():
    limits = RunLimits(most_usd=1.0)
    claim = await limits.claim(0.7)
    with pytest.raises(BudgetExceeded):
        await limits.claim(0.4)
    await claim.settle(0.5)
    await limits.claim(0.4)
    assert limits.spent_usd == pytest.approx(0.9)

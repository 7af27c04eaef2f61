"""Jobs that outlive their process: leases, takeover, cancellation from afar, hand-over."""

import asyncio
from collections.abc import AsyncIterator, Callable
from datetime import timedelta

import pytest

from app.jobs import Job, JobFailed, JobReport, JobRunning, Jobs, JobTimes, JobType
from app.jobs.job_leases import JobLeases
from app.storage.redis_documents import RedisDocuments

# Leases last longer than a busy machine stands still: tests that look at their end remove them.
TIMES = JobTimes(lease_s=10.0, heartbeat_s=0.1, recovery_s=0.1)


class Diary:
    """A worker whose work waits until it is let go; it notes what it began."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self.free = asyncio.Event()
        self.parting = asyncio.Event()
        self.parting.set()
        self.is_able = True

    async def can_run(self, job: Job) -> bool:
        return self.is_able

    async def housekeep(self) -> None: ...

    async def stored_result(self, job: Job) -> dict[str, object]:
        return {"left": job.params.get("number", 0)}

    async def on_ended(self, job: Job) -> None:
        await self.parting.wait()

    async def work(self, job: Job, report: JobReport) -> dict[str, object]:
        self.begun.append(job.id)
        report.phase("waiting", 2, "things")
        report.advance(1)
        report.set_cost(0.5)
        await self.free.wait()
        if job.params.get("fails"):
            raise JobFailed("broken", "it broke")
        return {"attempt": job.attempt}


class Process:
    """What one process does with the jobs."""

    def __init__(self, documents: RedisDocuments) -> None:
        self.documents = documents
        self.jobs = Jobs(documents, 600, TIMES)
        self.diary = Diary()
        self.jobs.set_worker(self.diary)
        self.recovery: asyncio.Task[None] | None = None

    def serve(self) -> None:
        self.recovery = asyncio.create_task(self.jobs.recover_orphans())

    async def leave(self) -> None:
        if self.recovery:
            self.recovery.cancel()
        await self.jobs.aclose()


OpenProcess = Callable[[], Process]


@pytest.fixture
async def open_process(embedded_url, open_room) -> AsyncIterator[OpenProcess]:
    async with open_room(embedded_url) as room:
        processes = []

        def opened() -> Process:
            processes.append(Process(RedisDocuments(room.client, prefix=room.prefix)))
            return processes[-1]

        yield opened
        for process in processes:
            await process.leave()


async def left_behind(process: Process, kind: JobType = "rebuild", **params) -> Job:
    """A job as it stands once its process was killed and its lease has run out."""
    job = Job.new(kind, "books", params)
    long_ago = job.heartbeat_at - timedelta(minutes=5)
    job = job.model_copy(
        update={"state": "running", "heartbeat_at": long_ago, "cost_usd": 0.25, "revision": 7}
    )
    await process.documents.put("job", job.id, job.model_dump_json().encode(), 600)
    await process.documents.put("open", job.id, b"", 600)
    return job


async def until(holds: Callable[[], object]) -> None:
    async with asyncio.timeout(30):
        while not holds():
            await asyncio.sleep(0.02)


async def test_a_lost_job_goes_on_in_a_serving_process(open_process):
    process = open_process()
    lost = await left_behind(process)
    seen = await process.jobs.get(lost.id)
    assert (seen.state, seen.problem["code"], seen.result) == ("queued", "lost", {"left": 0})
    process.serve()
    await until(lambda: process.diary.begun == [lost.id])
    process.diary.free.set()
    ended = await process.jobs.wait(lost.id)
    assert (ended.state, ended.attempt, ended.result) == ("succeeded", 2, {"attempt": 2})
    assert ended.cost_usd == 0.75  # what the first attempt has cost is not forgotten
    assert ended.revision > lost.revision
    assert not await process.jobs.is_running("rebuild", "books")


async def test_only_one_process_takes_a_lost_job_over(open_process):
    processes = [open_process() for _ in range(4)]
    lost = await left_behind(processes[0])
    for process in processes:
        process.serve()
    await until(lambda: any(process.diary.begun for process in processes))
    await asyncio.gather(*(other.jobs.get(lost.id) for other in processes))
    for process in processes:
        process.diary.free.set()
    watcher = open_process()
    assert (await watcher.jobs.wait(lost.id)).state == "succeeded"
    assert sum(len(process.diary.begun) for process in processes) == 1


async def test_a_process_that_lacks_what_a_job_needs_leaves_it(open_process):
    unable, able = open_process(), open_process()
    unable.diary.is_able = False
    unable.serve()
    lost = await left_behind(unable, "import", upload="there")
    able.serve()
    await until(lambda: able.diary.begun == [lost.id])
    assert unable.diary.begun == []


async def test_a_service_that_ends_hands_its_jobs_over(open_process):
    first, second = open_process(), open_process()
    first.serve()
    job = await first.jobs.start("rebuild", "books", {})
    await until(lambda: first.diary.begun)
    await first.leave()
    assert (await second.jobs.get(job.id)).state == "queued"
    second.serve()
    await until(lambda: second.diary.begun == [job.id])
    second.diary.free.set()
    assert (await second.jobs.wait(job.id)).result == {"attempt": 2}


async def test_a_command_that_ends_cancels_its_job(open_process):
    command, service = open_process(), open_process()
    job = await command.jobs.start("import", "books", {})
    await until(lambda: command.diary.begun)
    await command.leave()
    assert (await service.jobs.get(job.id)).state == "cancelled"


async def test_a_job_is_cancelled_from_another_process(open_process):
    here, there = open_process(), open_process()
    job = await here.jobs.start("rebuild", "books", {})
    assert (await there.jobs.cancel(job.id)).state == "cancelling"
    assert (await there.jobs.wait(job.id)).state == "cancelled"
    assert (await there.jobs.cancel(job.id)).state == "cancelled"
    assert await there.jobs.cancel("nothing") is None


async def test_a_lost_job_can_be_cancelled_by_anybody(open_process):
    process = open_process()
    lost = await left_behind(process)
    cancelled = await process.jobs.cancel(lost.id)
    assert (cancelled.state, cancelled.result) == ("cancelled", {"left": 0})
    process.serve()
    job = await process.jobs.start("rebuild", "books", {})
    await until(lambda: process.diary.begun)
    assert process.diary.begun == [job.id]


async def test_jobs_on_one_tree_exclude_each_other_over_processes(open_process):
    here, there = open_process(), open_process()
    job = await here.jobs.start("rebuild", "books", {})
    for kind in ("rebuild", "activation"):
        with pytest.raises(JobRunning) as running:
            await there.jobs.start(kind, "books", {"version": 1})
        assert running.value.job_id == job.id
    await there.jobs.start("rebuild", "films", {})
    await there.jobs.start("import", "books", {})
    here.diary.free.set()
    await here.jobs.wait(job.id)
    assert (await there.jobs.start("activation", "books", {"version": 1})).attempt == 1


async def test_who_wants_the_same_as_a_lost_job_takes_it_over(open_process):
    process = open_process()
    lost = await left_behind(process, mode="full")
    taken = await process.jobs.start("rebuild", "books", {"mode": "full"})
    assert (taken.id, taken.attempt) == (lost.id, 2)


async def test_a_job_that_has_ended_is_in_nobodys_way(open_process):
    here, there = open_process(), open_process()
    here.diary.free.set()
    here.diary.parting.clear()
    job = await here.jobs.start("rebuild", "books", {})

    async def told():
        return (await there.jobs.get(job.id)).state == "succeeded"

    async with asyncio.timeout(5):
        while not await told():
            await asyncio.sleep(0.01)
    next_one = asyncio.create_task(there.jobs.start("rebuild", "books", {}))
    done, _ = await asyncio.wait([next_one], timeout=0.2)
    assert not done
    here.diary.parting.set()
    assert (await next_one).id != job.id


async def test_who_wants_something_else_ends_a_lost_job(open_process):
    process = open_process()
    lost = await left_behind(process, mode="full")
    job = await process.jobs.start("rebuild", "books", {"mode": "relabel"})
    assert job.id != lost.id
    ended = await process.jobs.get(lost.id)
    assert (ended.state, ended.problem["code"]) == ("cancelled", "superseded")


async def test_what_nobody_asked_for_does_not_end_a_lost_job(open_process):
    process = open_process()
    lost = await left_behind(process, mode="full", max_cost_usd=2)
    with pytest.raises(JobRunning) as running:
        await process.jobs.start("rebuild", "books", {"mode": "full"}, automatic=True)
    assert running.value.job_id == lost.id
    assert (await process.jobs.get(lost.id)).problem["code"] == "lost"


async def test_a_job_of_another_version_is_passed_over(open_process):
    process = open_process()
    await process.documents.put("job", "job_new", b'{"id": "job_new", "type": "dance"}', 600)
    await process.documents.put("open", "job_new", b"", 600)
    lost = await left_behind(process)
    process.serve()
    await until(lambda: process.diary.begun == [lost.id])
    assert [job.id for job in await process.jobs.list()] == [lost.id]


async def test_a_process_that_was_given_up_stops(open_process):
    here, there = open_process(), open_process()
    job = await here.jobs.start("import", "books", {})
    await until(lambda: here.diary.begun)
    # Its process hung for longer than its lease, and somebody took the job.
    await here.documents.delete("lease", job.id)
    assert await JobLeases(there.documents, TIMES.lease_s).take(job)
    assert (await here.jobs.wait(job.id)).state == "running"


async def test_what_another_process_has_finished_is_not_begun_again(open_process):
    hung, heir = open_process(), open_process()
    job = await hung.jobs.start("import", "books", {})
    await until(lambda: hung.diary.begun)
    await hung.documents.delete("lease", job.id)  # as if its time had run out while it hung
    heir.diary.free.set()
    heir.serve()
    await until(lambda: heir.diary.begun)
    done = await heir.jobs.wait(job.id)
    assert (done.state, done.attempt) == ("succeeded", 2)
    hung.diary.free.set()
    last = await hung.jobs.wait(job.id)
    assert (last.state, last.attempt, last.result) == ("succeeded", 2, {"attempt": 2})


@pytest.mark.parametrize("fails", [False, True])
async def test_an_ending_is_written_with_its_reason(open_process, fails):
    process = open_process()
    job = await process.jobs.start("import", "books", {"fails": fails})
    process.diary.free.set()
    ended = await process.jobs.wait(job.id)
    assert ended.state == ("failed" if fails else "succeeded")
    assert ended.problem == ({"code": "broken", "detail": "it broke"} if fails else None)
    assert (ended.progress.phase, ended.progress.done, ended.cost_usd) == ("waiting", 1, 0.5)
    assert [one async for one, _ in process.documents.list("open")] == []

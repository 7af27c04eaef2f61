"""`ListRun`: answers a file of requests, line by line, into a file of lists."""

import asyncio
import math
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass
from hashlib import sha256
from typing import BinaryIO

import msgspec

from app.curate.imports.file_lines import Unreadable, line_batches
from app.curate.threads import IMPORTS
from app.jobs import JobFailed, JobReport
from app.lists.answers import AnsweredPart, ListAnswers, RequestLines, RunLimits
from app.lists.run_files import RunFiles, RunProgress
from app.storage.feedback import Feedback
from tree.worker import Background, undivided

_STEP = 100  # lists between two notes of the progress: what a crash costs at most


@dataclass(frozen=True, slots=True)
class _RunPart:
    """Lines that are answered together, and where their batch begins in the file."""

    lines: RequestLines
    read: int
    position: int


class ListRun:
    """Answers every request of a file. A run that was stopped goes on where it was.

    One line of the lists for each line of the requests, in their order: `line`, `user_id`,
    `stored_user`, and `answer` or `problem`. Once `max_cost_usd` is spent, lists come without a
    model and say so.
    """

    def __init__(
        self,
        answers: ListAnswers,
        files: RunFiles,
        max_cost_usd: float | None = None,
        *,
        catalog_id: str = "",
        users: Feedback | None = None,
    ) -> None:
        """`answers` makes the lists, for the catalogue of that id.

        With `users`, the requests are made from all that are stored when the run begins.
        """
        self._answers = answers
        self._files = files
        self._max_cost_usd = max_cost_usd
        self._catalog_id = catalog_id
        self._users = users

    async def _begun(self, report: JobReport) -> RunProgress:
        """The progress so far; that of a new run has its requests. Raises JobFailed."""
        files, users = self._files, self._users
        source = "users" if users is not None else await IMPORTS.run(files.requests_digest)
        run = (self._catalog_id, source, self._answers.request, self._max_cost_usd)
        name = sha256(msgspec.json.encode(run, order="sorted")).hexdigest()
        progress = await IMPORTS.run(files.known)
        if progress.of not in ("", name):
            raise JobFailed(
                "another_run",
                f"{files.lists} is of a run with other requests or options, or of another "
                f"catalogue: repeat that one, or remove {files.progress} to start afresh",
            )
        if users is not None and not (progress.of and files.requests.exists()):
            report.phase("users", unit="users")
            await self._list_users(users)
            progress = RunProgress()
        if not progress.of:
            progress.of = name
            await IMPORTS.run(files.note, progress)
        return progress

    async def _list_users(self, feedback: Feedback) -> None:
        files = self._files
        part = files.requests.with_name(f"{files.requests.name}.new")
        with part.open("wb") as file:
            async for page in feedback.users():
                lines = [msgspec.json.encode({"user_id": one.user_id}) + b"\n" for one in page]
                await IMPORTS.run(file.write, b"".join(lines))
        part.replace(files.requests)

    async def run(self, report: JobReport) -> RunProgress:
        """The progress at the end. Raises JobFailed, ModelRejected, StoreUnavailable, OSError."""
        files = self._files
        progress = await self._begun(report)
        most_usd = math.inf if self._max_cost_usd is None else self._max_cost_usd
        limits = RunLimits(most_usd, progress.cost_usd)
        paid_before = progress.cost_usd
        report.phase("lists", await IMPORTS.run(_count, files), "lists")
        report.advance(progress.lists + progress.problems)
        found = self._answered(_parts(files, progress), limits)
        with files.opened(progress) as file:
            try:
                async with aclosing(found):
                    async for part, answered in found:
                        await self._keep(part, answered, file, progress, limits)
                        report.set_cost(limits.spent_usd - paid_before)
                        report.advance(len(part.lines))
            except Unreadable as error:
                raise JobFailed(error.code, str(error), progress.result()) from error
        return progress

    async def _answered(
        self, parts: AsyncIterator[_RunPart], limits: RunLimits
    ) -> AsyncGenerator[tuple[_RunPart, AnsweredPart], None]:
        """The parts in their order, with their lists; those before some damage come first."""
        tasks = Background("lists", quiet=Exception)  # raised here
        waiting: deque[tuple[_RunPart, asyncio.Task[AnsweredPart]]] = deque()
        damage: Unreadable | None = None
        try:
            while True:
                try:
                    part = await anext(parts, None)
                except Unreadable as error:
                    part, damage = None, error
                if part is not None:
                    waiting.append((part, tasks.start(self._answers.answer(part.lines, limits))))
                while waiting and (part is None or len(waiting) >= self._answers.width):
                    first, task = waiting.popleft()
                    yield first, await task
                if part is None:
                    break
        finally:
            await tasks.aclose()
        if damage is not None:
            raise damage

    async def _keep(
        self,
        part: _RunPart,
        answered: AnsweredPart,
        file: BinaryIO,
        progress: RunProgress,
        limits: RunLimits,
    ) -> None:
        progress.answered = part.lines[-1][0]
        progress.read, progress.position = part.read, part.position
        progress.lists += answered.answers
        progress.problems += answered.problems
        progress.degraded += answered.degraded
        progress.cost_usd = limits.spent_usd
        await undivided(IMPORTS.run(self._files.keep, file, answered.lines, progress))


async def _parts(files: RunFiles, progress: RunProgress) -> AsyncIterator[_RunPart]:
    """The lines that are not answered yet. Raises Unreadable."""
    answered, read, position = progress.answered, progress.read, progress.position
    batches = line_batches(files.requests, read=read, position=position)
    while (batch := await IMPORTS.run(next, batches, None)) is not None:
        waiting = [line for line in batch.lines if line[0] > answered]
        for start in range(0, len(waiting), _STEP):
            yield _RunPart(waiting[start : start + _STEP], read, position)
        read, position = batch.read, batch.position


def _count(files: RunFiles) -> int:
    """The lines of the requests that are not blank."""
    try:
        return sum(len(batch.lines) for batch in line_batches(files.requests))
    except Unreadable:
        return 0  # the run itself says what is wrong

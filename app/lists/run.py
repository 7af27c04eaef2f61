"""`ListRun`: answers a file of requests, line by line, into a file of lists."""

import asyncio
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import BinaryIO

import msgspec
from pydantic import ValidationError
from pydantic_core import from_json

from app.budget import BudgetExceeded
from app.curate.imports.file_lines import MAX_LINE_BYTES, LineBatch, Unreadable, line_batches
from app.curate.imports.item_reader import describe
from app.curate.threads import IMPORTS
from app.jobs import JobFailed, JobReport
from app.limits import TooMuch, check_fields
from app.lists.run_files import RunFiles, RunProgress
from app.llm import AnswerDegraded
from app.recommend import Recommendation, Recommender, RecommendRequest
from app.recommend.fields import FilterTooLarge
from app.recommend.pages import CursorExpired, CursorOfAnother
from app.recommend.recommender import DeadlineExceeded
from app.storage.feedback import Feedback
from app.variants import UnknownVariant
from tree.redis.joined import joined_commands
from tree.worker import together, undivided

_STEP = 100  # lists between two notes of the progress: what a crash costs at most
_AT_ONCE = 32  # as many scans share one pass over the vectors

# What is wrong with one request. Everything else ends the run, such as a key that a model refuses.
_CODES: Mapping[type[Exception], str] = {
    DeadlineExceeded: "deadline_exceeded",
    AnswerDegraded: "degraded",
    FilterTooLarge: "filter_too_large",
    UnknownVariant: "unknown_variant",
    CursorExpired: "cursor_expired",
    CursorOfAnother: "invalid_cursor",
}


@dataclass(slots=True)
class RunLimits:
    """See SharedBudget: what the models may cost in a run. `spent_usd` includes open claims."""

    most_usd: float = math.inf
    spent_usd: float = 0.0

    async def claim(self, cost_usd: float) -> "_Claim":
        """See SharedBudget."""
        if self.spent_usd + cost_usd > self.most_usd:
            raise BudgetExceeded("cost", cost_usd)
        self.spent_usd += cost_usd
        return _Claim(self, cost_usd)


@dataclass(slots=True)
class _Claim:
    limits: RunLimits
    cost_usd: float

    async def settle(self, cost_usd: float) -> None:
        """See SharedClaim."""
        self.limits.spent_usd += cost_usd - self.cost_usd
        self.cost_usd = cost_usd


@dataclass(frozen=True, slots=True)
class _RunLine:
    """A line of the file: a request, or what is wrong with it."""

    number: int
    user_id: str | None = None
    request: RecommendRequest | None = None
    problem: dict[str, str] = field(default_factory=dict)


class ListRun:
    """Answers every request of a file. A run that was stopped goes on where it was.

    One line of the lists for each line of the requests, in their order: `line`, `user_id`, and
    `answer` or `problem`. Once `max_cost_usd` is spent, lists come without a model and say so.
    """

    def __init__(
        self,
        recommender: Recommender,
        files: RunFiles,
        request: Mapping[str, object],
        max_cost_usd: float | None = None,
    ) -> None:
        """`request` has the fields that each request starts with."""
        self._recommender = recommender
        self._files = files
        self._fields = dict(request)
        self._name = sha256(msgspec.json.encode(self._fields, order="sorted")).hexdigest()[:16]
        self._most_usd = math.inf if max_cost_usd is None else max_cost_usd

    async def list_users(self, feedback: Feedback) -> None:
        """Make the requests from all stored users, unless that was done before."""
        files = self._files
        if files.requests.exists():
            return
        part = files.requests.with_name(f"{files.requests.name}.new")
        with part.open("wb") as file:
            async for page in feedback.users():
                lines = [msgspec.json.encode({"user_id": one.user_id}) + b"\n" for one in page]
                await IMPORTS.run(file.write, b"".join(lines))
        part.replace(files.requests)

    async def run(self, report: JobReport) -> RunProgress:
        """The progress at the end. Raises JobFailed, ModelRejected, StoreUnavailable, OSError."""
        files = self._files
        progress = await IMPORTS.run(files.known)
        if progress.of not in ("", self._name):
            raise JobFailed(
                "another_run",
                f"{files.lists} is of a run with other requests: give these, or remove the file",
            )
        progress.of = self._name
        limits = RunLimits(self._most_usd, progress.cost_usd)
        paid_before = progress.cost_usd
        report.phase("lists", await IMPORTS.run(_count, files), "lists")
        report.advance(progress.lists + progress.problems)
        batches = line_batches(files.requests, read=progress.read, position=progress.position)
        with files.opened(progress) as file:
            try:
                while (batch := await IMPORTS.run(next, batches, None)) is not None:
                    await self._answer(batch, file, progress, limits, report, paid_before)
                    progress.read, progress.position = batch.read, batch.position
            except Unreadable as error:
                raise JobFailed(error.code, str(error), progress.result()) from error
        return progress

    async def _answer(
        self,
        batch: LineBatch,
        file: BinaryIO,
        progress: RunProgress,
        limits: RunLimits,
        report: JobReport,
        paid_before: float,
    ) -> None:
        waiting = [line for line in batch.lines if line[0] > progress.answered]
        for start in range(0, len(waiting), _STEP):
            some = waiting[start : start + _STEP]
            rows = await IMPORTS.run(self._read, some)
            found = await self._lists(rows, limits)
            lines = b"".join(line for line, _ in found)
            answers = [answer for _, answer in found]
            progress.answered = some[-1][0]
            progress.lists += sum(answer is not None for answer in answers)
            progress.problems += answers.count(None)
            progress.degraded += sum(answer is not None and answer.degraded for answer in answers)
            progress.cost_usd = limits.spent_usd
            await undivided(IMPORTS.run(self._files.keep, file, lines, progress))
            report.set_cost(limits.spent_usd - paid_before)
            report.advance(len(some))

    def _read(self, lines: Sequence[tuple[int, bytes | None]]) -> list[_RunLine]:
        return [self._row(number, line) for number, line in lines]

    def _row(self, number: int, line: bytes | None) -> _RunLine:
        user_id: str | None = None
        try:
            if line is None:
                raise TooMuch(f"longer than {MAX_LINE_BYTES:,} bytes")
            given = from_json(line.removeprefix(b"\xef\xbb\xbf"), allow_inf_nan=False)
            check_fields(given)
            if not isinstance(given, dict):
                raise TooMuch("is no JSON object")
            told = given.get("user_id")
            user_id = told if isinstance(told, str) else None
            request = RecommendRequest.model_validate({**self._fields, **given})
        except ValidationError as error:
            problem = {"code": "invalid_request", "detail": describe(error)}
            return _RunLine(number, user_id, problem=problem)
        except ValueError as error:
            return _RunLine(
                number, user_id, problem={"code": "invalid_request", "detail": str(error)}
            )
        return _RunLine(number, user_id, request)

    async def _lists(
        self, rows: Sequence[_RunLine], limits: RunLimits
    ) -> list[tuple[bytes, Recommendation | None]]:
        turns = asyncio.Semaphore(_AT_ONCE)

        async def one(row: _RunLine) -> tuple[bytes, Recommendation | None]:
            start = {"line": row.number, "user_id": row.user_id}
            if row.request is None:
                return _line({**start, "problem": row.problem}), None
            try:
                async with turns:
                    answer = await self._recommender.recommend(
                        row.request, shared_budget=limits, is_traced=False
                    )
            except tuple(_CODES) as error:
                code = next(code for kind, code in _CODES.items() if isinstance(error, kind))
                return _line({**start, "problem": {"code": code, "detail": str(error)}}), None
            content = msgspec.Raw(answer.model_dump_json().encode())
            return _line({**start, "answer": content}), answer

        with joined_commands():
            return await together(one(row) for row in rows)


def _count(files: RunFiles) -> int:
    """The lines of the requests that are not blank."""
    try:
        return sum(len(batch.lines) for batch in line_batches(files.requests))
    except Unreadable:
        return 0  # the run itself says what is wrong


def _line(content: Mapping[str, object]) -> bytes:
    return msgspec.json.encode(content) + b"\n"

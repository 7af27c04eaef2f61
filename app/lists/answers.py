"""`ListAnswers`: lines of a file of requests become lines of a file of lists."""

import asyncio
import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Protocol, TypeAlias

import msgspec
from pydantic import TypeAdapter, ValidationError
from pydantic_core import from_json

from app.budget import BudgetExceeded
from app.curate.imports.file_lines import MAX_LINE_BYTES
from app.curate.imports.item_reader import describe
from app.curate.threads import IMPORTS
from app.limits import TooMuch, check_fields
from app.llm import AnswerDegraded
from app.recommend import Recommendation, Recommender, RecommendRequest
from app.recommend.fields import FilterTooLarge
from app.recommend.pages import CursorExpired, CursorOfAnother
from app.recommend.recommender import DeadlineExceeded
from app.variants import UnknownVariant
from tree.item import Id
from tree.redis.joined import joined_commands
from tree.worker import together

_USER_ID: TypeAdapter[str] = TypeAdapter(Id)
_AT_ONCE = 32  # as many scans share one pass over the vectors

RequestLines: TypeAlias = Sequence[tuple[int, bytes | None]]
"""Lines of a file of requests, with their numbers; None for a line that is too long."""

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


@dataclass(frozen=True, slots=True)
class AnsweredPart:
    """The lists of some requests, one a line in their order, and how many they are."""

    lines: bytes
    answers: int
    problems: int
    degraded: int


class ListAnswers(Protocol):
    """Answers lines of a file of requests."""

    @property
    def request(self) -> Mapping[str, object]:
        """The fields that each request starts with."""
        ...

    @property
    def width(self) -> int:
        """How many parts of the file are answered at once."""
        ...

    async def answer(self, lines: RequestLines, limits: RunLimits) -> AnsweredPart:
        """The lists of these lines; what they cost is counted in `limits`."""
        ...


class OwnAnswers:
    """See ListAnswers. The lists are made in this process.

    `stored_user` in a line says whether something was stored of its user before or after the list
    was made. If nothing is later, the user has been erased since.
    """

    width = 1

    def __init__(self, recommender: Recommender, request: Mapping[str, object]) -> None:
        """`request` has the fields that each request starts with."""
        self._recommender = recommender
        self.request = request

    async def answer(self, lines: RequestLines, limits: RunLimits) -> AnsweredPart:
        """See ListAnswers. Raises ModelRejected, StoreUnavailable."""
        rows = await IMPORTS.run(self._read, lines)
        found = await self._lists(rows, limits)
        answers = [answer for _, answer in found]
        return AnsweredPart(
            b"".join(line for line, _ in found),
            sum(answer is not None for answer in answers),
            answers.count(None),
            sum(answer is not None and answer.degraded for answer in answers),
        )

    def _read(self, lines: RequestLines) -> list[_RunLine]:
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
            with suppress(ValidationError):  # then the request says so
                user_id = _USER_ID.validate_python(told)
            request = RecommendRequest.model_validate({**self.request, **given})
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
        users = list({row.user_id for row in rows if row.user_id is not None})
        stored = await self._recommender.stored_users(users)
        found = await self._contents(rows, limits)
        stored |= await self._recommender.stored_users(users)
        return [
            (
                _line(
                    {
                        "line": row.number,
                        "user_id": row.user_id,
                        "stored_user": row.user_id in stored,
                        **content,
                    }
                ),
                answer,
            )
            for row, (content, answer) in zip(rows, found, strict=True)
        ]

    async def _contents(
        self, rows: Sequence[_RunLine], limits: RunLimits
    ) -> list[tuple[Mapping[str, object], Recommendation | None]]:
        turns = asyncio.Semaphore(_AT_ONCE)

        async def one(row: _RunLine) -> tuple[Mapping[str, object], Recommendation | None]:
            if row.request is None:
                return {"problem": row.problem}, None
            try:
                async with turns:
                    answer = await self._recommender.recommend(
                        row.request, shared_budget=limits, is_traced=False
                    )
            except tuple(_CODES) as error:
                code = next(code for kind, code in _CODES.items() if isinstance(error, kind))
                return {"problem": {"code": code, "detail": str(error)}}, None
            return {"answer": msgspec.Raw(answer.model_dump_json().encode())}, answer

        with joined_commands():
            return await together(one(row) for row in rows)


def _line(content: Mapping[str, object]) -> bytes:
    return msgspec.json.encode(content) + b"\n"

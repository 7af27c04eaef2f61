"""`LineRun`: lines for all items that want one, several calls at a time, in bounded memory."""

import asyncio
import logging
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from app.budget import BudgetExceeded
from app.curate.enrichment.line_check import Refusal
from app.curate.enrichment.line_prompt import LINES
from app.curate.enrichment.line_scan import Choice, LineScan
from app.curate.enrichment.line_writer import Lines, LineWriter, Task
from app.curate.enrichment.pictures import Reason
from app.curate.writes import LineResult
from app.jobs import JobReport
from app.llm import ModelUnavailable
from app.llm.errors import NoReplyMode
from app.llm.writing_model import Patience, WritesNoText
from tree.item_line import ItemLine
from tree.store.protocol import ReadableStore
from tree.worker import together

logger = logging.getLogger(__name__)

SetLines: TypeAlias = Callable[[Mapping[str, ItemLine]], Awaitable[Mapping[str, LineResult]]]
Stop: TypeAlias = Literal["budget", "unavailable", "invalid", "no_text"]
"""Why a run ends early: the budget is spent, or the model does not answer, answers in no reply
mode that can be used, or writes no text."""

_ROUND = 2_000  # items that are chosen at once
_LATER = 10_000  # items that are looked at again, as another process asks for their lines
_LOOKS, _LOOK_S = 20, 3.0


@dataclass(slots=True)
class RunResult:
    """What a run has done."""

    enriched: int = 0
    kept: int = 0  # of these, lines that were paid for before
    failed: Counter[Refusal] = field(default_factory=Counter)
    unseen: Counter[Reason] = field(default_factory=Counter)  # why pictures were not shown
    changed: int = 0  # items that were changed or removed meanwhile
    elsewhere: int = 0  # another process asks for them
    left: int = 0  # not reached
    stopped: Stop | None = None
    needed_usd: float = 0.0  # by the dearest call that did not fit into the budget

    def result(self, task: Task) -> dict[str, object]:
        """As the result of a job."""
        totals = task.context.totals
        return {
            "enriched": self.enriched,
            "kept": self.kept,
            "failed": dict(sorted(self.failed.items())),
            "pictures_missing": dict(sorted(self.unseen.items())),
            "changed": self.changed,
            "elsewhere": self.elsewhere,
            "left": self.left,
            "stopped": self.stopped,
            "calls": totals.calls,
            "input_tokens": totals.input_tokens,
            "output_tokens": totals.output_tokens,
            "cost_usd": round(totals.cost_usd, 6),
        }


class LineRun:
    """Writes lines and sets them on their items; continues what another run has begun.

    Nothing of its progress is stored but the lines: a new run finds those that are paid for.
    """

    def __init__(
        self,
        store: ReadableStore,
        writer: LineWriter,
        set_lines: SetLines,
        task: Task,
        report: JobReport,
        *,
        at_once: int,
        patience_s: float,
    ) -> None:
        """`patience_s`: how long to wait for the end of an outage."""
        self._store = store
        self._writer = writer
        self._set_lines = set_lines
        self._task = task
        self._report = report
        self._at_once = at_once
        self._patience = Patience(patience_s)
        self.later: list[str] = []  # another process asks for the lines of these now
        self.result = RunResult()

    async def over(self, only: Choice) -> RunResult:
        """Lines for the items of the catalogue. Raises ModelRejected, StoreUnavailable."""
        scan = LineScan(only)
        ids, total = await scan.next_ids(await self._store.load(), _ROUND)
        self._report.phase("writing lines", total, "lines")
        while ids:
            self.result.left += await self.of(ids, only)
            if self.result.stopped is not None:
                self.result.left += total - len(ids)
                return self.result
            ids, total = await scan.next_ids(await self._store.load(), _ROUND)
        await self._look_again(only)
        return self.result

    async def of(self, ids: Sequence[str], only: Choice = "missing") -> int:
        """Lines for these items. Returns how many were not reached; see `stopped`."""
        pending = deque(ids[start : start + LINES] for start in range(0, len(ids), LINES))
        workers = min(self._at_once, len(pending))
        ends = await together(self._work(pending, only) for _ in range(workers))
        if pending:
            self.result.stopped = next((end for end in ends if end), "unavailable")
        return sum(map(len, pending))

    async def _work(self, pending: deque[Sequence[str]], only: Choice) -> Stop | None:
        """Write pending lines; the reason when it stops before they are all written.

        Without enough budget for its call a worker stops; the others may still have enough.
        """
        while pending:
            ids = pending.popleft()
            lines = Lines()
            stop: Stop
            try:
                await self._write(ids, only, lines)
                continue
            except BudgetExceeded as error:
                self.result.needed_usd = max(self.result.needed_usd, error.needed_usd)
                stop = "budget"
            except WritesNoText:
                stop = "no_text"
            except NoReplyMode:
                stop = "invalid"
            except ModelUnavailable as error:
                stop = "unavailable"
                if await self._patience.waited(error):
                    pending.append(_rest(ids, lines))
                    continue
            pending.appendleft(_rest(ids, lines))
            return stop
        return None

    async def _write(self, ids: Sequence[str], only: Choice, lines: Lines) -> None:
        found = await self._store.items(ids)
        items = [found[one] for one in ids if one in found]
        wanted = await self._writer.wanting(self._task, items, only)
        totals = self._task.context.totals
        calls = totals.calls
        ended = False
        try:
            await self._writer.write(self._task, wanted, lines)
            ended = True
        finally:
            if ended and totals.calls > calls:
                self._patience.answered()
            await self._use(lines)
            unfinished = len(lines.elsewhere) + (0 if ended else len(_rest(ids, lines)))
            self._report.advance(len(ids) - unfinished)
            self._report.set_cost(totals.cost_usd)

    async def _use(self, lines: Lines) -> None:
        if lines.of:
            results = await self._set_lines(lines.of)
            done = sum(result in ("set", "unchanged") for result in results.values())
            self.result.enriched += done
            self.result.changed += len(results) - done
        self.result.kept += lines.kept
        self.result.failed.update(lines.failed.values())
        self.result.unseen += lines.unseen
        room = max(0, _LATER - len(self.later))
        self.later += [item.id for item in lines.elsewhere[:room]]
        self.result.elsewhere += len(lines.elsewhere[room:])

    async def _look_again(self, only: Choice) -> None:
        """Items that another process has asked for have their lines soon, or are free again."""
        for _ in range(_LOOKS):
            ids, self.later = self.later, []
            if not ids or self.result.stopped is not None:
                break
            await asyncio.sleep(_LOOK_S)
            self.result.left += await self.of(ids, only)
        self.result.elsewhere += len(self.later)


def _rest(ids: Sequence[str], lines: Lines) -> list[str]:
    """Those of some ids of which nothing has come."""
    elsewhere = {item.id for item in lines.elsewhere}
    return [one for one in ids if one not in lines.of.keys() | lines.failed.keys() | elsewhere]

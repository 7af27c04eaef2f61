"""`LineBatches`: lines by the batch API of the provider, at half the price and within a day."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence

import msgspec

from app.curate.enrichment.line_check import checked
from app.curate.enrichment.line_prompt import (
    LineQuestion,
    ShownItem,
    read,
    shown_text,
    turn_of,
    usual_output_tokens,
)
from app.curate.enrichment.line_scan import Choice, LineScan
from app.curate.enrichment.line_writer import LineWriter, Task, questions
from app.curate.threads import JOBS
from app.jobs import JobReport
from app.llm import InvalidReply, Reply, ReplyMode, Turn, works
from app.llm.ask import estimated_input
from app.llm.batch_run import BatchRun
from app.llm.chat import TokenUsage
from tree.item import Item
from tree.store.protocol import ReadableStore

_PROBE_S, _CANCEL_S = 30.0, 10.0
_ROUND = 300  # items that are read at once: with pictures they take memory


class _AskedItem(msgspec.Struct, array_like=True):
    id: str
    digest: str
    tag: str


class _Asked(msgspec.Struct):
    """What a request is about: enough to understand its reply in another process."""

    mode: ReplyMode
    items: list[_AskedItem]


_asked = msgspec.json.Decoder(_Asked)


class LineBatches:
    """Has lines written and keeps them; a LineRun then sets them on their items.

    Lines that come back unusable or not at all, and those of items that change meanwhile, are left
    to that run, which asks for them one call at a time. Items of a batch are not claimed: the
    background work may ask for the new ones among them as well.
    """

    def __init__(self, store: ReadableStore, writer: LineWriter, batches: BatchRun) -> None:
        self._store = store
        self._writer = writer
        self._batches = batches

    async def fill(self, task: Task, only: Choice, report: JobReport) -> int:
        """Keep the lines of the items that want one, as far as the budget goes; how many came.

        Continues what this job has begun in another process, and first what an earlier job has
        left. A job that is cancelled cancels its batches. Raises as BatchRun, and WritesNoText.
        """
        lines = 0
        try:
            owner = await self._batches.owner()
            if owner is not None:
                lines = await self._wait(task, report)
            if owner != report.job.id:
                await self._submit(task, only, report)
                lines += await self._wait(task, report)
            return lines
        except asyncio.CancelledError:
            if report.stopped and not report.continues:
                async with asyncio.timeout(_CANCEL_S):
                    await self._batches.cancel()
            raise

    async def _submit(self, task: Task, only: Choice, report: JobReport) -> None:
        report.phase("preparing batches", unit="calls")
        # One call tells which parameters the endpoint rejects: in a batch all calls would fail.
        await works(task.context.model, await self._writer.mode(), _PROBE_S)
        await self._batches.submit(report.job.id, self._requests(task, only, report))

    async def _wait(self, task: Task, report: JobReport) -> int:
        report.phase("waiting for batches", unit="calls")
        totals, budget = task.context.totals, task.context.budget
        spent = totals.cost_usd
        lines = 0
        async for note, outcome in self._batches.outcomes(_progress(report)):
            if isinstance(outcome, Reply):
                lines += await self._keep(task, _asked.decode(note), outcome)
            report.set_cost(totals.cost_usd)
        budget.claim(0, min(totals.cost_usd - spent, budget.cost_left_usd))
        return lines

    async def _requests(
        self, task: Task, only: Choice, report: JobReport
    ) -> AsyncIterator[tuple[Turn, bytes]]:
        price = task.context.price.halved()
        left_usd = task.context.budget.cost_left_usd
        mode = await self._writer.mode()
        async for question in self._questions(task, only):
            shown = [shown for shown, _ in question]
            turn = turn_of(LineQuestion(shown, task.language, task.guidance), mode, 0.0)
            usage = TokenUsage(
                estimated_input(turn), usual_output_tokens(len(question)) * task.context.model.room
            )
            left_usd -= price.of(usage)
            if left_usd < 0:
                return
            items = [_AskedItem(one.id, task.digest(one), shown.tag) for shown, one in question]
            yield turn, msgspec.json.encode(_Asked(mode, items))
            report.advance(1)

    async def _questions(
        self, task: Task, only: Choice
    ) -> AsyncIterator[Sequence[tuple[ShownItem, Item]]]:
        scan = LineScan(only)
        ids, _ = await scan.next_ids(await self._store.load(), _ROUND)
        while ids:
            found = await self._store.items(ids)
            wanted = await self._writer.wanting(task, list(found.values()), only)
            items = await self._writer.unpaid(task, wanted)
            shown = await self._writer.shown(task, items)
            for question in questions(items, shown.pictures):
                yield question
            ids, _ = await scan.next_ids(await self._store.load(), _ROUND)

    async def _keep(self, task: Task, asked: _Asked, reply: Reply) -> int:
        """Keep the lines of a reply; how many can be used."""
        found = await self._store.items([one.id for one in asked.items])
        shown = []
        current = {}
        for number, one in enumerate(asked.items, 1):
            item = found.get(one.id)
            if item is not None and task.digest(item) == one.digest:
                current[number] = one.digest
                shown.append(ShownItem(one.tag, shown_text(item), item.title))
            else:  # its line is of no use, but has its place in the reply
                shown.append(ShownItem(one.tag, "", ""))
        try:
            said = read(asked.mode, reply)
        except InvalidReply:
            return 0
        question = LineQuestion(shown, task.language, task.guidance)
        lines = (await JOBS.run(checked, question, said)).lines
        good = {current[number]: text for number, text in lines.items() if number in current}
        await self._writer.keep(task, good)
        return len(good)


def _progress(report: JobReport) -> Callable[[int, int], None]:
    """Reports how many calls are answered, of all."""
    shown = 0

    def tell(done: int, total: int) -> None:
        nonlocal shown
        if report.job.progress.total != total:
            report.phase("waiting for batches", total, "calls")
            shown = 0
        report.advance(max(0, done - shown))
        shown = max(shown, done)

    return tell

"""`ModelLabels`: titles and signposts that a model writes for the nodes of a tree."""

import asyncio
import time
from collections import Counter, deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal

from app.budget import Budget, BudgetExceeded
from app.curate.labels.families import Family, Records, families_of, halves, questions_of, settled
from app.curate.labels.signs import Groups, Sign, read, turn_of, usual_output_tokens
from app.jobs import Report
from app.llm import (
    InvalidReply,
    Line,
    ModelRejected,
    Models,
    ModelUnavailable,
    Reply,
    ReplyMode,
    Spent,
    ask,
    works,
)
from app.llm.ask import FREE
from app.llm.chat import TokenUsage
from app.llm.errors import UnsupportedReplyMode
from app.llm.tokens import estimated_tokens
from app.settings import Settings
from tree.edits import Relabel
from tree.node import Node
from tree.snapshot import SemanticTree

Why = Literal["refused", "unreadable", "unavailable", "budget", "no_text", "no_model"]
"""Why a node keeps its label: the model's was not acceptable, or nothing could be read from the
reply; the model did not answer, the budget was spent, it writes no text, there is none."""

_TRIES = 3  # of a family that fails while others are answered
_LONGEST_PAUSE_S = 3.0
_MANY = 10**9
_WEAKER = {
    ReplyMode.JSON_SCHEMA: ReplyMode.JSON_OBJECT,
    ReplyMode.JSON_OBJECT: ReplyMode.TEXT,
}


@dataclass(frozen=True, slots=True)
class Estimate:
    """What labels would take at most when nothing goes wrong; nothing was asked for it.

    `cost_usd` is None where no price is known.
    """

    nodes: int
    calls: int
    input_tokens: int
    output_tokens: int
    cost_usd: float | None


@dataclass(slots=True)
class Labels:
    """What came of it: `edits` for the nodes whose label changes, and what it took.

    `labelled` counts the nodes that the model spoke for, those whose label it left as it was
    included; `kept` are the others, which keep the label they have.
    """

    spent: Spent
    edits: list[Relabel] = field(default_factory=list)
    labelled: int = 0
    kept: dict[int, Why] = field(default_factory=dict)

    def result(self) -> dict[str, object]:
        """For the result of a job."""
        return {
            "labelled": self.labelled,
            "kept": dict(sorted(Counter(self.kept.values()).items())),
            "calls": self.spent.calls,
            "input_tokens": self.spent.input_tokens,
            "output_tokens": self.spent.output_tokens,
            "cost_usd": round(self.spent.cost_usd, 6),
        }


class ModelLabels:
    """Labels by a model for the trees of one catalogue, drafts and published ones alike.

    Siblings are asked for together, from the top of the tree down. A question depends on what
    its nodes hold and what they are called before, never on their numbers or on earlier replies:
    who labels the same tree again, in another process too, finds every reply it has paid for.
    That needs the same names to begin with: the offline ones, not those of an earlier reply.
    """

    def __init__(
        self, models: Models, settings: Settings, language: str = "en", *, patience_s: float = 30.0
    ) -> None:
        """`patience_s`: how long an outage is waited out."""
        self._models = models
        self._settings = settings
        self.language = language
        self._patience_s = patience_s
        self._mode: ReplyMode | None = None
        self._mute = False
        self._finding = asyncio.Lock()

    @property
    def configured(self) -> bool:
        return self._models.labels is not None

    def budget(self, max_cost_usd: float | None = None) -> Budget:
        """What one rebuild may spend; without a word the settings decide."""
        limit = self._settings.llm_label_cost_usd if max_cost_usd is None else max_cost_usd
        return Budget(_MANY, self._settings.llm_label_max_tokens, limit)

    async def estimate(
        self, tree: SemanticTree, nodes: Iterable[int] | None, records: Records
    ) -> Estimate:
        """What `write` would take. Raises StoreUnavailable."""
        writer = self._models.labels
        count = calls = tokens = written = 0
        for family in families_of(tree, nodes) if writer else ():
            count += len(family.nodes)
            for _, groups in await questions_of(tree, family, records, self.language):
                turn = turn_of(groups, ReplyMode.JSON_SCHEMA, 0)
                calls += 1
                tokens += estimated_tokens(*(message.content for message in turn.messages))
                written += usual_output_tokens(len(groups.lines))
        known = writer is not None and writer.price is not FREE
        cost = writer.price.of(TokenUsage(tokens, written)) if writer and known else None
        return Estimate(count, calls, tokens, written, cost)

    async def write(
        self,
        tree: SemanticTree,
        nodes: Iterable[int] | None,
        records: Records,
        budget: Budget,
        report: Report,
        *,
        spent: Spent | None = None,
    ) -> Labels:
        """Labels for some nodes of a tree (None: for all); the root and locked ones keep theirs.

        What stands for a category of the catalogue keeps its name and gets a signpost. Siblings
        end up with different names. `spent` is added to while it goes on. When the budget ends,
        or the model is gone for longer than the patience, what is labelled by then is returned.
        Raises ModelRejected, StoreUnavailable.
        """
        families = deque(families_of(tree, nodes))
        labels = Labels(spent if spent is not None else Spent())
        report.phase("writing labels", sum(len(family.nodes) for family in families), "nodes")
        why: Why = "no_model"
        if families and self._models.labels is not None:
            line = Line(self._models.labels.model, self._models.labels.price, budget, labels.spent)
            round_ = _Round(self, tree, records, line, families, labels, report, self._patience_s)
            why = await round_.run(self._settings.llm_label_concurrency)
        for family in families:
            labels.kept |= dict.fromkeys((node.id for node in family.nodes), why)
            report.advance(len(family.nodes))
        return labels

    async def signs(self, line: Line, groups: Groups) -> dict[int, Sign | None]:
        """One question. Raises what `ask` raises, and WritesNoText."""
        while True:
            mode = await self._text_mode()

            def signs(reply: Reply, mode: ReplyMode = mode) -> dict[int, Sign | None]:
                return read(len(groups.lines), mode, reply)

            try:
                return await ask(line, turn_of(groups, mode, self._models.timeout_s), signs)
            except UnsupportedReplyMode:  # the model for labels may take less than the others
                if mode not in _WEAKER:
                    raise
                if self._mode is mode:
                    self._mode = _WEAKER[mode]

    async def _text_mode(self) -> ReplyMode:
        async with self._finding:
            if self._mode is None and not self._mute:
                mode = await self._models.reply_mode()
                decides = mode in (ReplyMode.DECISIONS, ReplyMode.PREDICATES)
                self._mute = decides and not await self._writes(mode.for_text)
                self._mode = mode.for_text
            if self._mode is None or self._mute:
                raise WritesNoText
            return self._mode

    async def _writes(self, mode: ReplyMode) -> bool:
        """An endpoint for decisions may write no text, and that is no mistake of ours."""
        assert self._models.labels is not None
        try:
            return await works(self._models.labels.model, mode, self._models.timeout_s)
        except ModelRejected:
            return False


class WritesNoText(Exception):
    """The endpoint answers by numbers alone."""


class _Round:
    """One run over the families; `families` holds what is not settled."""

    def __init__(
        self,
        labels: ModelLabels,
        tree: SemanticTree,
        records: Records,
        line: Line,
        families: deque[Family],
        found: Labels,
        report: Report,
        patience_s: float,
    ) -> None:
        self._writer = labels
        self._tree = tree
        self._records = records
        self._line = line
        self._families = families
        self._labels = found
        self._report = report
        self._patience_s = patience_s
        self._answers = 0
        self._down_since: float | None = None

    async def run(self, at_once: int) -> Why:
        """Why it ended before its end, where it did."""
        workers = [
            asyncio.create_task(self._work()) for _ in range(min(at_once, len(self._families)))
        ]
        try:
            ends = await asyncio.gather(*workers)
        finally:
            for worker in workers:
                worker.cancel()
            await asyncio.gather(*workers, return_exceptions=True)
        return next((why for why in ends if why is not None), "unavailable")

    async def _work(self) -> Why | None:
        """Families in turn. One of several workers that lacks budget leaves it to the others."""
        while self._families:
            family = self._families.popleft()
            try:
                await self._label(family)
            except BudgetExceeded:
                self._families.appendleft(family)
                return "budget"
            except WritesNoText:
                self._families.appendleft(family)
                return "no_text"
            except ModelUnavailable as error:
                family.tries += self._answers > family.answers_then
                family.answers_then = self._answers
                if family.tries >= _TRIES:
                    self._keep(family.nodes, "unavailable")
                    continue
                self._families.appendleft(family)
                if not await self._waited(error):
                    return "unavailable"
        return None

    async def _waited(self, error: ModelUnavailable) -> bool:
        """Whether there is patience left, after some time in which the model may come back."""
        now = time.monotonic()
        self._down_since = self._down_since or now
        left = self._down_since + self._patience_s - now
        if left <= 0:
            return False
        pause = max(error.retry_after_s or 0.0, min(_LONGEST_PAUSE_S, self._patience_s / 10))
        await asyncio.sleep(min(pause, left))
        return True

    async def _label(self, family: Family) -> None:
        found: dict[int, Sign | None] = {}
        silent: dict[int, Why] = {}
        asked = deque(await questions_of(self._tree, family, self._records, self._writer.language))
        whole = len(asked)
        while asked:
            nodes, groups = asked.popleft()
            whole -= 1
            try:
                signs = await self._writer.signs(self._line, groups)
            except InvalidReply:
                self._answered()
                if whole >= 0 and len(nodes) > 1:  # a shorter question may do better
                    asked.extend(halves(nodes, groups))
                else:
                    silent |= dict.fromkeys((node.id for node in nodes), "unreadable")
                continue
            except BudgetExceeded:
                if not found:
                    raise
                silent |= dict.fromkeys((node.id for node in nodes), "budget")
                continue
            self._answered()
            found |= {node.id: signs.get(number) for number, node in enumerate(nodes, 1)}
        signs_apart = settled(self._tree, family, found)
        for node in family.nodes:
            sign = signs_apart.get(node.id)
            if sign is None:
                self._labels.kept[node.id] = silent.get(node.id, "refused")
                continue
            self._labels.labelled += 1
            if (sign.title, sign.signpost) != (node.label, node.signpost):
                self._labels.edits.append(Relabel(node.id, sign.title, sign.signpost))
        self._report.advance(len(family.nodes))
        self._report.spent(self._labels.spent.cost_usd)

    def _answered(self) -> None:
        self._answers += 1
        self._down_since = None

    def _keep(self, nodes: Sequence[Node], why: Why) -> None:
        self._labels.kept |= dict.fromkeys((node.id for node in nodes), why)
        self._report.advance(len(nodes))
        self._report.spent(self._labels.spent.cost_usd)


__all__ = ["Estimate", "Labels", "ModelLabels", "Records", "Why"]

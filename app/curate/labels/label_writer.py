"""`LabelWriter`: a model writes titles and signposts for the nodes of a tree."""

from collections import Counter, deque
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from app.budget import Budget, BudgetExceeded
from app.curate.labels.label_prompt import (
    LabelQuestion,
    NodeLabel,
    read,
    turn_of,
    usual_output_tokens,
)
from app.curate.labels.siblings import (
    Records,
    Siblings,
    distinct_labels,
    halves,
    questions_of,
    siblings_to_label,
)
from app.jobs import JobReport
from app.llm import (
    CallContext,
    InvalidReply,
    Models,
    ModelUnavailable,
    ReplyMode,
    UsageTotals,
)
from app.llm.ask import FREE
from app.llm.chat import TokenUsage
from app.llm.errors import NoReplyMode
from app.llm.tokens import estimated_tokens
from app.llm.writing_model import Patience, WritesNoText, WritingModel
from app.settings import Settings
from tree.edits import Relabel
from tree.node import Node
from tree.snapshot import SemanticTree
from tree.worker import together

KeptReason = Literal["refused", "unreadable", "unavailable", "budget", "no_text", "no_model"]
"""Why a node keeps its old label: the new one was not usable, or the reply was not readable; the
model did not answer; the budget was spent; the model writes no text; there is no model."""

Guidance: TypeAlias = Callable[[], Awaitable[str]]
Questions: TypeAlias = Callable[[Siblings], Awaitable[list[tuple[list[Node], LabelQuestion]]]]

_TRIES = 3  # of a question that fails while others are answered
_MANY = 10**9


async def _no_guidance() -> str:
    return ""


@dataclass(frozen=True, slots=True)
class LabelEstimate:
    """How much labels need when every question is answered at once; no model was asked.

    `cost_usd` is None without a known price.
    """

    nodes: int
    calls: int
    input_tokens: int
    output_tokens: int
    cost_usd: float | None


@dataclass(slots=True)
class LabelResult:
    """The `edits` for nodes whose label changes, and the usage of the model.

    `labelled` counts the nodes with a usable label from the model, unchanged ones included. The
    other nodes keep their old label: `kept` says why.
    """

    totals: UsageTotals
    edits: list[Relabel] = field(default_factory=list)
    labelled: int = 0
    kept: dict[int, KeptReason] = field(default_factory=dict)

    def result(self) -> dict[str, object]:
        """As the result of a job."""
        return {
            "labelled": self.labelled,
            "kept": dict(sorted(Counter(self.kept.values()).items())),
            "calls": self.totals.calls,
            "input_tokens": self.totals.input_tokens,
            "output_tokens": self.totals.output_tokens,
            "cost_usd": round(self.totals.cost_usd, 6),
        }


class LabelWriter:
    """Labels by a model for the trees of one catalogue, drafts and published ones.

    One question is about siblings; the top of the tree comes first. It depends on what the nodes
    hold and on their offline labels, not on their ids or on earlier replies. So the replies that
    are paid for are found when the same tree is labelled again, also by another process.
    """

    def __init__(
        self,
        models: Models,
        settings: Settings,
        language: str = "en",
        *,
        guidance: Guidance = _no_guidance,
        patience_s: float = 30.0,
    ) -> None:
        """`patience_s`: how long to wait for the end of an outage.

        `guidance` returns the newest words of the catalogue's owner.
        """
        self._models = models
        self._settings = settings
        self._language = language
        self._guidance = guidance
        self._patience_s = patience_s
        self._model = WritingModel(models, models.labels) if models.labels else None

    @property
    def configured(self) -> bool:
        return self._models.labels is not None

    def budget(self, max_cost_usd: float | None = None) -> Budget:
        """What one rebuild may spend; the limit of the settings without `max_cost_usd`."""
        limit = self._settings.llm_label_cost_usd if max_cost_usd is None else max_cost_usd
        return Budget(_MANY, self._settings.llm_label_max_tokens, limit)

    async def estimate(
        self, tree: SemanticTree, nodes: Iterable[int] | None, records: Records
    ) -> LabelEstimate:
        """What `write` would need. Raises StoreUnavailable."""
        writer = self._models.labels
        wording = await self._wording()
        count = calls = tokens = written = 0
        for siblings in siblings_to_label(tree, nodes) if writer else ():
            count += len(siblings.nodes)
            for _, question in await questions_of(tree, siblings, records, *wording):
                turn = turn_of(question, ReplyMode.JSON_SCHEMA, 0)
                calls += 1
                tokens += estimated_tokens(*(message.content for message in turn.messages))
                written += usual_output_tokens(len(question.lines))
        known = writer is not None and writer.price is not FREE
        cost = writer.price.of(TokenUsage(tokens, written)) if writer and known else None
        return LabelEstimate(count, calls, tokens, written, cost)

    async def write(
        self,
        tree: SemanticTree,
        nodes: Iterable[int] | None,
        records: Records,
        budget: Budget,
        report: JobReport,
        *,
        totals: UsageTotals | None = None,
    ) -> LabelResult:
        """Labels for some nodes of a tree (None: for all) without the root and locked nodes.

        A node that stands for a category of the catalogue keeps its name and gets a signpost.
        Siblings get different names. Usage is added to `totals` as it arises. When the budget
        ends, or an outage lasts longer than `patience_s`, returns the labels made so far. Raises
        ModelRejected, StoreUnavailable.
        """
        pending = deque(siblings_to_label(tree, nodes))
        labels = LabelResult(totals if totals is not None else UsageTotals())
        report.phase("writing labels", sum(len(some.nodes) for some in pending), "nodes")
        why: KeptReason = "no_model"
        if pending and self._models.labels is not None:
            context = CallContext(
                self._models.labels.model, self._models.labels.price, budget, labels.totals
            )
            wording = await self._wording()
            run = _Run(
                self,
                tree,
                lambda siblings: questions_of(tree, siblings, records, *wording),
                context,
                pending,
                labels,
                report,
                self._patience_s,
            )
            why = await run.run(self._settings.llm_label_concurrency)
        for siblings in pending:
            labels.kept |= dict.fromkeys((node.id for node in siblings.nodes), why)
            report.advance(len(siblings.nodes))
        return labels

    async def _wording(self) -> tuple[str, str]:
        """The language of labels, and what the owner says. Raises StoreUnavailable."""
        return self._language, await self._guidance()

    async def ask(
        self, context: CallContext, question: LabelQuestion
    ) -> dict[int, NodeLabel | None]:
        """The labels by the numbers of their groups. Raises as `app.llm.ask`, and WritesNoText."""
        assert self._model is not None
        timeout_s = self._models.timeout_s
        return await self._model.ask(
            context,
            lambda mode: turn_of(question, mode, timeout_s),
            lambda mode, reply: read(len(question.lines), mode, reply),
        )


class _Run:
    """Asks the model about all `pending` siblings, several questions at a time."""

    def __init__(
        self,
        labels: LabelWriter,
        tree: SemanticTree,
        questions_about: Questions,
        context: CallContext,
        pending: deque[Siblings],
        result: LabelResult,
        report: JobReport,
        patience_s: float,
    ) -> None:
        self._writer = labels
        self._tree = tree
        self._questions_about = questions_about
        self._context = context
        self._pending = pending
        self._result = result
        self._report = report
        self._patience = Patience(patience_s)

    async def run(self, at_once: int) -> KeptReason:
        """Why the siblings that are still pending keep their labels."""
        ends = await together(self._work() for _ in range(min(at_once, len(self._pending))))
        return next((why for why in ends if why is not None), "unavailable")

    async def _work(self) -> KeptReason | None:
        """Label pending siblings; the reason when it stops before they are all labelled.

        Without enough budget for its question a worker stops; the others may still have enough.
        """
        while self._pending:
            siblings = self._pending.popleft()
            try:
                await self._label(siblings)
            except BudgetExceeded:
                self._pending.appendleft(siblings)
                return "budget"
            except WritesNoText:
                self._pending.appendleft(siblings)
                return "no_text"
            except NoReplyMode:
                self._pending.appendleft(siblings)
                return "unreadable"
            except ModelUnavailable as error:
                siblings.tries += self._patience.answers > siblings.answers_before
                siblings.answers_before = self._patience.answers
                if siblings.tries >= _TRIES:
                    self._keep(siblings.nodes, "unavailable")
                    continue
                self._pending.appendleft(siblings)
                if not await self._patience.waited(error):
                    return "unavailable"
        return None

    async def _label(self, siblings: Siblings) -> None:
        found: dict[int, NodeLabel | None] = {}
        without: dict[int, KeptReason] = {}
        questions = deque(await self._questions_about(siblings))
        not_halved = len(questions)
        while questions:
            nodes, question = questions.popleft()
            not_halved -= 1
            try:
                labels = await self._writer.ask(self._context, question)
            except InvalidReply:
                self._patience.answered()
                if not_halved >= 0 and len(nodes) > 1:  # a shorter question may succeed
                    questions.extend(halves(nodes, question))
                else:
                    without |= dict.fromkeys((node.id for node in nodes), "unreadable")
                continue
            except BudgetExceeded:
                if not found:
                    raise
                without |= dict.fromkeys((node.id for node in nodes), "budget")
                continue
            self._patience.answered()
            found |= {node.id: labels.get(number) for number, node in enumerate(nodes, 1)}
        distinct = distinct_labels(self._tree, siblings, found)
        for node in siblings.nodes:
            label = distinct.get(node.id)
            if label is None:
                self._result.kept[node.id] = without.get(node.id, "refused")
                continue
            self._result.labelled += 1
            if (label.title, label.signpost) != (node.label, node.signpost):
                self._result.edits.append(Relabel(node.id, label.title, label.signpost))
        self._report.advance(len(siblings.nodes))
        self._report.set_cost(self._result.totals.cost_usd)

    def _keep(self, nodes: Sequence[Node], why: KeptReason) -> None:
        self._result.kept |= dict.fromkeys((node.id for node in nodes), why)
        self._report.advance(len(nodes))
        self._report.set_cost(self._result.totals.cost_usd)

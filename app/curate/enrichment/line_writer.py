"""`LineWriter`: a model writes the lines of some items; each is kept before it is used."""

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256

from app.budget import Budget, SharedBudget
from app.curate.enrichment.item_pictures import ItemPictures, ItemsShown
from app.curate.enrichment.line_check import Checked, Refusal, checked
from app.curate.enrichment.line_claims import LineClaims
from app.curate.enrichment.line_prompt import (
    LINES,
    LineQuestion,
    ShownItem,
    read,
    shown_text,
    turn_of,
    usual_output_tokens,
    wording,
)
from app.curate.enrichment.line_scan import Choice
from app.curate.enrichment.line_store import LineStore
from app.curate.enrichment.line_tags import tags_of
from app.curate.enrichment.pictures import Reason
from app.curate.threads import JOBS
from app.llm import CallContext, InvalidReply, Models, ReplyMode, Sighted, UsageTotals
from app.llm.ask import FREE, estimated_input
from app.llm.chat import TokenUsage
from app.llm.writing_model import WritingModel
from app.storage.documents import Documents
from tree.item import Item
from tree.item_line import ItemLine

_TRIES = 3  # for a line
_LAST_PARTS = 5  # of the last try: few items in each, mostly one


@dataclass(frozen=True, slots=True)
class Task:
    """Which lines are wanted: those of one catalogue, asked for by one `holder` of claims.

    In a `renewal`, all items are asked for once more; its name is the same in every process. With
    `images`, the model sees the pictures of items. With `again`, also items are asked for that
    others have asked for in vain today: a person wants them now.
    """

    language: str
    guidance: str
    context: CallContext
    claims: LineClaims
    renewal: str = ""
    images: bool = False  # whether the model sees pictures
    again: bool = False

    def digest(self, item: Item) -> str:
        """What the line of an item depends on."""
        sight = "picture" if self.images and item.image_url else "text"
        asked = (item.content_digest, wording(self.language, self.guidance), sight)
        return sha256("\0".join(asked).encode()).hexdigest()[:32]


@dataclass(slots=True)
class Lines:
    """What came of some items: their lines, and why others have none."""

    of: dict[str, ItemLine] = field(default_factory=dict)
    kept: int = 0  # of these, lines that were paid for before
    failed: dict[str, Refusal] = field(default_factory=dict)
    unseen: Counter[Reason] = field(default_factory=Counter)  # why pictures were not shown
    elsewhere: list[Item] = field(default_factory=list)  # another process asks for them now


@dataclass(frozen=True, slots=True)
class LineEstimate:
    """How much lines would need when each is right at once; no model was asked.

    `cost_usd` is None without a known price.
    """

    items: int
    calls: int
    input_tokens: int
    output_tokens: int
    cost_usd: float | None


class LineWriter:
    """Lines by the model of a service. What is paid for is never asked for again."""

    def __init__(
        self,
        models: Models,
        documents: Documents,
        pictures: ItemPictures | None = None,
        *,
        timeout_s: float = 120.0,
        catalog: str = "",
    ) -> None:
        """`timeout_s`: of one call; a reply with thirty lines takes long. Closes `pictures`.

        What the model cannot describe in this `catalog` is asked for in others.
        """
        self._catalog = catalog
        self._models = models
        self._model = WritingModel(models, models.lines) if models.lines else None
        self._documents = documents
        self._pictures = pictures
        self._store = LineStore(documents)
        self._timeout_s = timeout_s

    @property
    def configured(self) -> bool:
        return self._model is not None

    def task(
        self,
        holder: str,
        language: str,
        guidance: str,
        budget: Budget,
        *,
        shared_budget: SharedBudget | None = None,
        renewal: str = "",
        images: bool = False,
        again: bool = False,
    ) -> Task:
        """See Task. Only where a model is configured."""
        assert self._models.lines is not None
        model, price = self._models.lines.model, self._models.lines.price
        context = CallContext(model, price, budget, UsageTotals(), shared_budget)
        scope = f"{self._catalog}\0{self._models.endpoint}\0{model.name}"
        claims = LineClaims(self._documents, holder, scope)
        images = images and self._pictures is not None
        return Task(language, guidance, context, claims, renewal, images, again)

    async def write(self, task: Task, items: Sequence[Item], lines: Lines) -> None:
        """Add the lines of some items to `lines`, and the reasons why others have none.

        Items that a model has described before cost nothing. When this raises, `lines` has what
        was written until then. Raises as `app.llm.ask`, and WritesNoText, StoreUnavailable.
        """
        wanted: dict[str, list[Item]] = {}
        for item in items:
            wanted.setdefault(task.digest(item), []).append(item)
        await self._use_kept(task, wanted, lines)
        if not task.renewal:
            failed = await task.claims.failed(list(wanted), own=task.again)
            for digest, why in failed.items():
                _fail(wanted.pop(digest), why, lines)
        taken = await task.claims.take(list(wanted))
        for digest in [one for one in wanted if one not in taken]:
            lines.elsewhere += wanted.pop(digest)
        try:
            await self._use_kept(task, wanted, lines)  # paid by another process a moment ago
            await self._write(task, wanted, lines)
        finally:
            await task.claims.release(taken)

    async def aclose(self) -> None:
        """Close the connections to pictures."""
        if self._pictures is not None:
            await self._pictures.aclose()

    async def wanting(self, task: Task, items: Sequence[Item], only: Choice) -> list[Item]:
        """Those of some items whose line is to be written, by what their records say."""
        open_to = [item for item in items if item.line is None or item.line.source != "owner"]
        bare = [item for item in open_to if item.line is None]
        if only == "missing":
            return bare
        if only == "all":
            return open_to
        described = [item for item in open_to if item.line is not None]
        current = await self._current(task, described)
        return [*bare, *(item for item in described if item.id not in current)]

    async def unpaid(self, task: Task, items: Sequence[Item]) -> list[Item]:
        """Those of some items without a line that is kept, and one of several that are alike."""
        alike = {task.digest(item): item for item in items}
        kept = await self._store.get_many([_name(task, digest) for digest in alike])
        return [item for digest, item in alike.items() if _name(task, digest) not in kept]

    async def mode(self) -> ReplyMode:
        """The reply mode in which the model is asked. Raises as `write`."""
        assert self._model is not None
        return await self._model.mode()

    async def _current(self, task: Task, items: Collection[Item]) -> set[str]:
        """The ids of items that have the line that a model has written for this wording."""
        kept = await self._store.get_many([task.digest(item) for item in items])
        return {
            item.id
            for item in items
            if item.line is not None and kept.get(task.digest(item)) == item.line.text
        }

    def estimate(
        self,
        sample: Sequence[Item],
        total: int,
        language: str,
        guidance: str,
        *,
        images: bool = False,
    ) -> LineEstimate:
        """What `total` items need, of which this is a sample; with `images` all are seen."""
        read_tokens = written = calls = 0
        pictures = {item.id: item.image_url for item in sample if images}
        for some in questions(sample, pictures):
            question = LineQuestion([shown for shown, _ in some], language, guidance)
            read_tokens += estimated_input(turn_of(question, ReplyMode.JSON_SCHEMA, 0))
            written += usual_output_tokens(len(some))
            calls += 1
        share = total / max(1, len(sample))
        tokens = TokenUsage(round(read_tokens * share), round(written * share))
        price = self._models.lines.price if self._models.lines else FREE
        cost = None if price is FREE else price.of(tokens)
        calls = -(-total // LINES) if total > len(sample) else calls
        return LineEstimate(total, calls, tokens.input_tokens, tokens.output_tokens, cost)

    async def _use_kept(self, task: Task, wanted: dict[str, list[Item]], lines: Lines) -> None:
        names = {_name(task, digest): digest for digest in wanted}
        for name, text in (await self._store.get_many(list(names))).items():
            same = wanted.pop(names[name])
            lines.kept += len(same)
            _use(same, text, lines)

    async def _write(self, task: Task, wanted: dict[str, list[Item]], lines: Lines) -> None:
        """Ask for all lines, again for those refused, and at last for each about alone."""
        reasons: dict[str, Refusal] = {}
        shown = await self.shown(task, [same[0] for same in wanted.values()])
        lines.unseen += shown.missing
        for attempt in range(1, _TRIES + 1):
            for some in _parts(wanted, attempt, reasons):
                items = [wanted[digest][0] for digest in some]
                for question in questions(items, shown.pictures):
                    found = await self._asked(task, question)
                    digests = [task.digest(item) for _, item in question]
                    good = {digests[number - 1]: text for number, text in found.lines.items()}
                    await self.keep(task, good)
                    for digest, text in good.items():
                        _use(wanted.pop(digest), text, lines)
                    for number, why in found.refused.items():
                        reasons[digests[number - 1]] = why
        await task.claims.mark_failed({digest: reasons[digest] for digest in wanted})
        for digest, same in wanted.items():
            _fail(same, reasons[digest], lines)
        wanted.clear()

    async def shown(self, task: Task, items: Sequence[Item]) -> ItemsShown:
        """The pictures of items, where the owner wants the model to see them and it does."""
        if not task.images or self._pictures is None:
            return ItemsShown()
        model = task.context.model
        if isinstance(model, Sighted) and not await model.sees(self._timeout_s):
            return ItemsShown()
        return await self._pictures.of(items)

    async def _asked(self, task: Task, question: Sequence[tuple[ShownItem, Item]]) -> Checked:
        assert self._model is not None
        asked = LineQuestion([shown for shown, _ in question], task.language, task.guidance)
        try:
            said = await self._model.ask(
                task.context, lambda mode: turn_of(asked, mode, self._timeout_s), read
            )
        except InvalidReply:
            return Checked(refused=dict.fromkeys(range(1, len(question) + 1), "missing"))
        return await JOBS.run(checked, asked, said)  # it takes some milliseconds

    async def keep(self, task: Task, good: Mapping[str, str]) -> None:
        """Keep lines by the digests of their items; `write` finds them."""
        names = {_name(task, digest): text for digest, text in good.items()}
        await self._store.put_many(names | dict(good))


def _name(task: Task, digest: str) -> str:
    """Where the line of this task is kept: in a renewal, apart from the one before."""
    return f"{digest}:{task.renewal}" if task.renewal else digest


def _parts(
    wanted: Collection[str], attempt: int, reasons: Mapping[str, Refusal]
) -> list[list[str]]:
    """The lines to ask for; at the last attempt in a few parts, and alone where they were mixed."""
    if attempt < _TRIES:
        return [list(wanted)] if wanted else []
    mixed = [[digest] for digest in wanted if reasons.get(digest) == "mixed_up"]
    others = [digest for digest in wanted if reasons.get(digest) != "mixed_up"]
    size = max(1, -(-len(others) // _LAST_PARTS))
    return mixed + [others[start : start + size] for start in range(0, len(others), size)]


def questions(
    items: Sequence[Item], pictures: Mapping[str, str]
) -> Iterator[list[tuple[ShownItem, Item]]]:
    """The items as questions, each of items with different tags; pictures by item id."""
    waiting = list(items)
    while waiting:
        some, waiting = waiting[:LINES], waiting[LINES:]
        texts = [shown_text(item) for item in some]
        tags = tags_of([item.title for item in some], texts)
        question = []
        for item, text, tag in zip(some, texts, tags, strict=True):
            if tag is None:
                waiting.append(item)
            else:
                picture = pictures.get(item.id, "")
                question.append((ShownItem(tag, text, item.title, picture), item))
        yield question


def _use(same: Iterable[Item], text: str, lines: Lines) -> None:
    for item in same:
        lines.of[item.id] = ItemLine(text, "model", item.content_digest)


def _fail(same: Iterable[Item], why: Refusal, lines: Lines) -> None:
    lines.failed.update((item.id, why) for item in same)

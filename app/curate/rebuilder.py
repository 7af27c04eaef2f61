"""`Rebuilder`: builds a tree beside the one in use, and publishes it in one step."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial

from msgspec.structs import replace

from app.curate.building import OpenEngine, build, labels_of
from app.curate.commits import Decision, commit_until_won
from app.curate.labels import LabelResult, LabelWriter
from app.curate.locked_labels import carried_locks
from app.curate.store_source import Damage, StoreSource
from app.curate.threads import JOBS
from app.embedders import EmbedderCache, is_tuned, name_refused, refitted
from app.jobs import JobFailed, JobReport
from app.llm import ModelRejected
from tree import place
from tree.edits import DropItem, Edit, PutItem, Relabel
from tree.errors import StaleVersion
from tree.node import ROOT, Space
from tree.snapshot import SemanticTree
from tree.store.protocol import NEVER_STAGED, WritableStore
from tree.vectors import Int8Matrix, alike

_READ = 1_000
_ATTEMPTS = 20
_MOST_LOGGED = 20  # lost labels

logger = logging.getLogger(__name__)


@dataclass(slots=True)
class Losses:
    """What is missing in a new tree: damaged items, by id, and locked labels without a node."""

    damage: Damage = field(default_factory=dict)
    labels: list[str] = field(default_factory=list)


class Rebuilder:
    """Builds a private draft; writers do not wait for it.

    Commits that are made meanwhile are read from the log and applied to the draft before it is
    published, and again while there are more.
    """

    def __init__(
        self,
        store: WritableStore,
        embedders: EmbedderCache,
        labels: LabelWriter,
        engine: OpenEngine,
    ) -> None:
        self._store = store
        self._embedders = embedders
        self.labels = labels
        self._engine = engine

    async def full(
        self,
        report: JobReport,
        *,
        embedder: str | None = None,
        space: Space | None = None,
        publish: bool = True,
        losses: Losses | None = None,
    ) -> SemanticTree:
        """A new vector space and a new tree of all items, the staged ones included.

        The catalogue keeps its embedder unless another one is given, and a tuned space as well: an
        adapter fits no other one. With a `space`, vectors are of that one. The labels of the tree
        are made without a model: see `labels_by_model`. `losses` gets items whose record is
        damaged, and locked labels whose nodes have no counterpart.
        """
        losses = losses or Losses()
        for _ in range(_ATTEMPTS):
            base, staging_seq = await self._store.load(), await self._store.staging_seq()
            losses.damage.clear()
            catalogue = await self._catalogue(base, losses.damage)
            settings = base.settings
            if embedder is not None:
                settings = replace(settings, embedder=embedder)
            kept = base.space if is_tuned(base.space) and embedder is None else None
            if kept is not None:
                kept = refitted(kept, catalogue.size)
            draft = await build(
                catalogue,
                settings,
                report,
                engine=self._engine,
                embedders=self._embedders,
                space=space or kept,
            )
            if not publish:
                return (await _locked(draft, base, losses))[0]
            report.phase("publishing", len(draft))
            note = "rebuild" if embedder is None else f"rebuild with {embedder}"
            note = "tuning" if space is not None else note
            try:
                return await self._publish(draft, base.version, staging_seq, note, losses)
            except StaleVersion:  # the log no longer reaches back to the base
                continue
        raise StaleVersion(f"{_ATTEMPTS} rebuilds were overtaken by writers: try again later")

    async def activate(
        self, version: int, report: JobReport, losses: Losses | None = None
    ) -> SemanticTree:
        """The newest version: the shape of a kept version, with the items and locks of now.

        Raises UnknownVersion.
        """
        losses = losses or Losses()
        for _ in range(_ATTEMPTS):
            report.phase("reading", 1, "versions")
            draft = await self._store.version(version)
            base = await self._store.load()
            draft = draft.apply(
                place.plan(draft, drops=[i for i in draft.item_ids() if i not in base])
            )
            report.phase("placing", len(base))
            ids = list(base.item_ids())
            for start in range(0, len(ids), _READ):
                draft = await self._aligned(draft, base, ids[start : start + _READ])
                report.advance(min(_READ, len(ids) - start))
            report.phase("publishing", len(draft))
            try:
                note = f"version {version} again"
                return await self._publish(draft, base.version, NEVER_STAGED, note, losses)
            except StaleVersion:
                continue
        raise StaleVersion(f"{_ATTEMPTS} activations were overtaken by writers: try again later")

    async def _aligned(
        self, draft: SemanticTree, base: SemanticTree, ids: Sequence[str]
    ) -> SemanticTree:
        """The draft, in which these items are now as in `base`."""
        items = list((await self._store.items(ids)).values())
        passages = [item.passage for item in items]
        vectors = await self._embedders.encode_batch(draft.space, passages, building=True)
        name_refused([item.id for item in items], passages)
        stale = [at for at, item in enumerate(items) if _differs(draft, base, item.id, vectors[at])]
        if not stale:
            return draft
        plan = partial(place.plan, draft, [items[at] for at in stale], vectors[stale])
        return await JOBS.run(lambda: draft.apply(plan()))

    async def subtree(
        self, top: int, report: JobReport, *, publish: bool = True, losses: Losses | None = None
    ) -> SemanticTree:
        """The tree with the nodes below `top` built anew, in the same vector space.

        After a lost race, other writers wait while the nodes are built again.
        """
        losses = losses or Losses()
        report.phase("clustering", 1, "subtrees")

        async def decide(tree: SemanticTree) -> Decision[None]:
            records = await self._store.items(list(tree.item_ids(top)))
            edits = await JOBS.run(place.regrow, tree, top, records)
            if any(node.locked for node in tree.walk(top)):
                regrown = await JOBS.run(tree.at_version(tree.version).apply, edits)
                edits = [*edits, *(await _locked(regrown, tree, losses))[1]]
            return Decision(edits, None)

        if not publish:
            tree = await self._store.load()
            return tree.at_version(tree.version).apply((await decide(tree)).edits)
        after, _ = await commit_until_won(self._store, decide, lock_after=1)
        report.advance(1)
        return after

    async def relabelled(self, report: JobReport) -> tuple[SemanticTree, list[Relabel]]:
        """The newest tree with new labels made without a model, and the edits that set them.

        Nothing is published. Locked labels stay.
        """
        tree = await self._store.load()
        catalogue = await self._catalogue(tree, staged=False)
        specs = await labels_of(tree, catalogue, report, engine=self._engine)
        edits = [Relabel(spec.id, spec.label, spec.signpost) for spec in specs if not spec.locked]
        return await JOBS.run(lambda: tree.at_version(tree.version).apply(edits)), edits

    async def labels_by_model(
        self, tree: SemanticTree, top: int, report: JobReport, limit_usd: float | None
    ) -> LabelResult:
        """Labels of a model for the nodes below `top`.

        Replies that an earlier attempt has paid for are not paid again. Raises JobFailed when the
        model rejects the request.
        """
        nodes = None if top == ROOT else [node.id for node in tree.walk(top) if node.id != top]
        if limit_usd is not None:
            limit_usd = max(0.0, limit_usd - report.job.cost_usd)
        budget = self.labels.budget(limit_usd)
        try:
            return await self.labels.write(tree, nodes, self._store.items, budget, report)
        except ModelRejected as error:
            raise JobFailed("model_rejected", str(error)) from error

    async def publish_labels(self, edits: Sequence[Relabel], report: JobReport) -> SemanticTree:
        """The tree with these labels; nodes that are gone or locked are left out."""
        report.phase("publishing labels", len(edits), "nodes")
        tree = await self._store.load()
        for start in range(0, len(edits), _READ):
            some = edits[start : start + _READ]

            async def decide(now: SemanticTree, some: Sequence[Relabel] = some) -> Decision[None]:
                fits = [e for e in some if now.has_node(e.node) and not now.node(e.node).locked]
                return Decision(fits, None)

            tree, _ = await commit_until_won(self._store, decide, lock_after=0)
            report.advance(len(some))
        return tree

    async def _catalogue(
        self, tree: SemanticTree, damage: Damage | None = None, *, staged: bool = True
    ) -> StoreSource:
        """Every item in the order of ids; with `staged`, also items without a place yet.

        Not in the order of the leaves: the same items must give the same tree.
        """
        known = await JOBS.run(lambda: set(tree.item_ids()))
        if staged:
            known.update([item async for batch in self._store.staged_ids() for item in batch])
        ids = await JOBS.run(sorted, known)
        return StoreSource(self._store, ids, {} if damage is None else damage)

    async def _publish(
        self, draft: SemanticTree, base: int, staging_seq: int, note: str, losses: Losses
    ) -> SemanticTree:
        """Raises StaleVersion only when the log no longer reaches back to `base`."""
        draft, _ = await _locked(draft, await self._store.load(), losses)
        carry = partial(self._carried, losses)
        after = await self._store.replace(
            draft, base=base, staging_seq=staging_seq, note=note, carry=carry
        )
        if losses.labels:
            named = ", ".join(map(repr, losses.labels[:_MOST_LOGGED]))
            logger.warning("%d locked labels have no node any more: %s", len(losses.labels), named)
        return after

    async def _carried(
        self, losses: Losses, draft: SemanticTree, edits: Sequence[Edit]
    ) -> tuple[SemanticTree, list[Edit]]:
        """See Carry: drop items that left, place those that arrived, and carry the locks over."""
        last: dict[str, Edit] = {
            edit.id: edit for edit in edits if isinstance(edit, PutItem | DropItem)
        }
        arrived = [item for item, edit in last.items() if isinstance(edit, PutItem)]
        left = [item for item, edit in last.items() if isinstance(edit, DropItem)]
        done: list[Edit] = []
        for start in range(0, len(arrived), _READ):
            items = list((await self._store.items(arrived[start : start + _READ])).values())
            passages = [item.passage for item in items]
            vectors = await self._embedders.encode_batch(draft.space, passages, building=True)
            name_refused([item.id for item in items], passages)
            more = await JOBS.run(place.plan, draft, items, vectors)
            draft = await JOBS.run(draft.apply, more)
            done += more
        if gone := [item for item in left if item in draft]:
            more = place.plan(draft, drops=gone)
            draft = draft.apply(more)
            done += more
        if any(isinstance(edit, Relabel) for edit in edits):
            draft, locks = await _locked(draft, await self._store.load(), losses)
            done += locks
        return draft, done


def _differs(draft: SemanticTree, base: SemanticTree, item_id: str, vector: Int8Matrix) -> bool:
    """Whether an item of `base` is missing in the draft, or has another vector or other facts."""
    then, now = draft.row(item_id), base.row(item_id)
    if then is None or now is None:
        return now is not None
    ours, theirs = draft.rows, base.rows
    return not (
        alike(ours.vectors[then], vector)
        and ours.popularity[then] == theirs.popularity[now]
        and ours.expires_at[then] == theirs.expires_at[now]
        and ours.hidden[then] == theirs.hidden[now]
        and ours.lines[then] == theirs.lines[now]
        and ours.domains[ours.domain[then]] == theirs.domains[theirs.domain[now]]
    )


async def _locked(
    draft: SemanticTree, now: SemanticTree, losses: Losses
) -> tuple[SemanticTree, list[Relabel]]:
    """The draft with the locks of now, and the edits that gave them to it."""
    edits, losses.labels = await JOBS.run(carried_locks, now, draft)
    return draft.apply(edits) if edits else draft, edits

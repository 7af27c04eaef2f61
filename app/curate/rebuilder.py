"""`Rebuilder`: a tree grown anew beside the one in use, and put in its place in one step."""

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from typing import TypeAlias

from app.curate.building import OpenEngine, build, labels_of
from app.curate.labels import Labels, ModelLabels
from app.curate.locks import locks_of
from app.jobs import JobFailed, Report
from app.llm import ModelRejected
from tree import place
from tree.edits import DropItem, Edit, PutItem, Relabel
from tree.embedders import EmbedderCache
from tree.errors import StaleVersion
from tree.node import ROOT
from tree.snapshot import SemanticTree
from tree.store.protocol import NEVER_STAGED, TreeStore
from tree.vectors import Int8Matrix, alike

_READ = 1_000
_ATTEMPTS = 20
_NAMED_AT_MOST = 20  # in the log of the service

logger = logging.getLogger(__name__)

Damage: TypeAlias = dict[str, str]


@dataclass(slots=True)
class Losses:
    """What had no place in a new tree: damaged items, by id, and locked labels."""

    damage: Damage = field(default_factory=dict)
    labels: list[str] = field(default_factory=list)


class Rebuilder:
    """Grows a private draft; writers never wait for it.

    What was written meanwhile is read from the log and put into the draft before it is
    published; if somebody commits in between, that is done again for the rest.
    """

    def __init__(
        self, store: TreeStore, embedders: EmbedderCache, labels: ModelLabels, engine: OpenEngine
    ) -> None:
        self._store = store
        self._embedders = embedders
        self._labels = labels
        self._engine = engine

    async def full(
        self, report: Report, *, publish: bool = True, losses: Losses | None = None
    ) -> SemanticTree:
        """A new vector space and a new tree over all items, the staged ones included.

        With labels of our own; `written` gives it those of a model, once it is in use. `losses`
        gets what has no place in it: items whose record is damaged, and locked labels of nodes
        that nothing is like any more.
        """
        losses = losses or Losses()
        for _ in range(_ATTEMPTS):
            base, stamp = await self._store.load(), await self._store.stamp()
            losses.damage.clear()
            catalogue = await self._catalogue(base, losses.damage)
            draft = await build(
                catalogue, base.settings, report, engine=self._engine, embedders=self._embedders
            )
            if not publish:
                return (await _locked(draft, base, losses))[0]
            report.phase("publishing", len(draft))
            try:
                return await self._publish(draft, base.version, stamp, "rebuild", losses)
            except StaleVersion:  # the log no longer reaches back to the base: start over
                continue
        raise StaleVersion(f"{_ATTEMPTS} rebuilds were overtaken by writers: try again later")

    async def activate(
        self, version: int, report: Report, losses: Losses | None = None
    ) -> SemanticTree:
        """The shape of a version that is kept, with the items of now, as the newest version.

        And with the locks of now. Raises UnknownVersion.
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
        """The draft with those of some items that are not in it as they are now."""
        items = list((await self._store.items(ids)).values())
        texts = [item.text for item in items]
        vectors = await self._embedders.patiently(draft.space, texts, building=True)
        stale = [at for at, item in enumerate(items) if _differs(draft, base, item.id, vectors[at])]
        if not stale:
            return draft
        plan = partial(place.plan, draft, [items[at] for at in stale], vectors[stale])
        return await asyncio.to_thread(lambda: draft.apply(plan()))

    async def subtree(
        self, top: int, report: Report, *, publish: bool = True, losses: Losses | None = None
    ) -> SemanticTree:
        """The nodes below `top` grown anew, in the same vector space.

        Who is overtaken while it grows asks others to wait for the next try.
        """
        losses = losses or Losses()
        report.phase("clustering", 1, "subtrees")
        for attempt in range(_ATTEMPTS):
            async with self._store.hold() if publish and attempt else nullcontext("") as hold:
                tree = await self._store.load()
                records = await self._store.items(list(tree.item_ids(top)))
                edits = await asyncio.to_thread(place.regrow, tree, top, records)
                if any(node.locked for node in tree.walk(top)):
                    regrown = await asyncio.to_thread(tree.at_version(tree.version).apply, edits)
                    edits = [*edits, *(await _locked(regrown, tree, losses))[1]]
                if not publish:
                    return tree.at_version(tree.version).apply(edits)
                try:
                    after = await self._store.commit(edits, base=tree.version, hold=hold)
                except StaleVersion:
                    continue
            report.advance(1)
            return after
        raise StaleVersion(f"lost {_ATTEMPTS} races for a commit: too many writers at once")

    async def relabelled(self, report: Report) -> tuple[SemanticTree, list[Relabel]]:
        """The newest tree with labels of our own made anew, and the edits that make them.

        Nothing is published. Locked labels stay.
        """
        tree = await self._store.load()
        catalogue = await self._catalogue(tree, staged=False)
        specs = await labels_of(tree, catalogue, report, engine=self._engine)
        edits = [Relabel(spec.id, spec.label, spec.signpost) for spec in specs if not spec.locked]
        return await asyncio.to_thread(lambda: tree.at_version(tree.version).apply(edits)), edits

    async def written(
        self, tree: SemanticTree, top: int, report: Report, limit_usd: float | None
    ) -> Labels:
        """Labels of a model for the nodes below `top`. Raises JobFailed when it refuses us.

        What an earlier attempt has paid for is not paid again.
        """
        nodes = None if top == ROOT else [node.id for node in tree.walk(top) if node.id != top]
        if limit_usd is not None:
            limit_usd = max(0.0, limit_usd - report.job.cost_usd)
        budget = self._labels.budget(limit_usd)
        try:
            return await self._labels.write(tree, nodes, self._store.items, budget, report)
        except ModelRejected as error:
            raise JobFailed("model_rejected", str(error)) from error

    async def publish_labels(self, edits: Sequence[Relabel], report: Report) -> SemanticTree:
        """Commit labels, some at a time, but for nodes that are gone or locked by now."""
        report.phase("publishing labels", len(edits), "nodes")
        rest = list(edits)
        tree = await self._store.load()
        while rest:
            some = rest[:_READ]
            async with self._store.hold() as hold:
                now = await self._store.load()
                fits = [e for e in some if now.has_node(e.node) and not now.node(e.node).locked]
                try:
                    tree = now
                    if fits:
                        tree = await self._store.commit(fits, base=now.version, hold=hold)
                except StaleVersion:  # of a commit that was under way
                    continue
            del rest[: len(some)]
            report.advance(len(some))
        return tree

    async def _catalogue(
        self, tree: SemanticTree, damage: Damage | None = None, *, staged: bool = True
    ) -> "_Stored":
        """Every item, those that wait for a place included, in the order of ids.

        Not in that of the leaves: the same items are to give the same tree.
        """
        known = await asyncio.to_thread(lambda: set(tree.item_ids()))
        if staged:
            known.update([item async for batch in self._store.staged() for item in batch])
        ids = await asyncio.to_thread(sorted, known)
        return _Stored(self._store, ids, {} if damage is None else damage)

    async def _publish(
        self, draft: SemanticTree, base: int, stamp: int, note: str, losses: Losses
    ) -> SemanticTree:
        """Raises StaleVersion only when the log does not tell what has changed since `base`."""
        draft, _ = await _locked(draft, await self._store.load(), losses)
        carry = partial(self._carried, losses)
        after = await self._store.replace(draft, base=base, stamp=stamp, note=note, carry=carry)
        if losses.labels:
            named = ", ".join(map(repr, losses.labels[:_NAMED_AT_MOST]))
            logger.warning("%d locked labels have no node any more: %s", len(losses.labels), named)
        return after

    async def _carried(
        self, losses: Losses, draft: SemanticTree, edits: Sequence[Edit]
    ) -> tuple[SemanticTree, list[Edit]]:
        """See Carry: drop what left, place what arrived, lock and unlock as was done meanwhile."""
        last: dict[str, Edit] = {
            edit.id: edit for edit in edits if isinstance(edit, PutItem | DropItem)
        }
        arrived = [item for item, edit in last.items() if isinstance(edit, PutItem)]
        left = [item for item, edit in last.items() if isinstance(edit, DropItem)]
        done: list[Edit] = []
        for start in range(0, len(arrived), _READ):
            items = list((await self._store.items(arrived[start : start + _READ])).values())
            texts = [item.text for item in items]
            vectors = await self._embedders.patiently(draft.space, texts, building=True)
            more = await asyncio.to_thread(place.plan, draft, items, vectors)
            draft = await asyncio.to_thread(draft.apply, more)
            done += more
        if gone := [item for item in left if item in draft]:
            more = place.plan(draft, drops=gone)
            draft = draft.apply(more)
            done += more
        if any(isinstance(edit, Relabel) for edit in edits):
            draft, locks = await _locked(draft, await self._store.load(), losses)
            done += locks
        return draft, done


class _Stored:
    """See Source: items of a store by their ids, without those that are deleted meanwhile.

    Nor those whose record is damaged, of which `damage` tells.
    """

    def __init__(self, store: TreeStore, ids: Sequence[str], damage: Damage) -> None:
        self._store = store
        self._ids = ids
        self._damage = damage

    @property
    def size(self) -> int:
        """See Source."""
        return len(self._ids)

    async def read(self, step: int = 1) -> AsyncIterator[dict[str, bytes]]:
        """See Source."""
        ids = self._ids[::step]
        for start in range(0, len(ids), _READ):
            some = ids[start : start + _READ]
            records = await self._store.records(some)
            if len(records) < len(some):
                self._damage |= await self._flaws([one for one in some if one not in records])
            yield records
        if self._damage:
            logger.error(
                "%d items have a damaged record and no place in the new tree, among them %s",
                len(self._damage),
                ", ".join(map(repr, islice(self._damage, _NAMED_AT_MOST))),
            )

    async def _flaws(self, ids: Sequence[str]) -> Damage:
        """What is wrong with the records of items that nobody has deleted meanwhile."""
        flaws = await self._store.flaws(ids)
        now = await self._store.load()
        waiting = {item async for batch in self._store.staged() for item in batch}
        return {one: flaw for one, flaw in flaws.items() if one in now or one in waiting}


def _differs(draft: SemanticTree, base: SemanticTree, item_id: str, vector: Int8Matrix) -> bool:
    """Whether an item of `base` stands in the draft with another vector or other facts, or not."""
    then, now = draft.row(item_id), base.row(item_id)
    if then is None or now is None:
        return now is not None
    ours, theirs = draft.rows, base.rows
    return not (
        alike(ours.vectors[then], vector)
        and ours.popularity[then] == theirs.popularity[now]
        and ours.expires_at[then] == theirs.expires_at[now]
        and ours.hidden[then] == theirs.hidden[now]
        and ours.domains[ours.domain[then]] == theirs.domains[theirs.domain[now]]
    )


async def _locked(
    draft: SemanticTree, now: SemanticTree, losses: Losses
) -> tuple[SemanticTree, list[Relabel]]:
    """The draft with the locks of now, and the edits that gave them to it."""
    edits, losses.labels = await asyncio.to_thread(locks_of, now, draft)
    return draft.apply(edits) if edits else draft, edits

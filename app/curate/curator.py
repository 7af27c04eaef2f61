"""`Curator`: all changes of one catalogue go through here."""

import asyncio
from collections.abc import Callable, Collection, Coroutine, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Literal

from app.curate.building import engine_for
from app.curate.imports import ImportReport, Unreadable, read_items
from app.curate.rebuilder import Rebuilder
from app.curate.writer import COMMIT_ITEMS, Writer
from app.jobs import Job, JobFailed, JobRunning, Jobs, Report
from app.settings import Settings
from tree import inspect
from tree.edits import Edit, Reshape
from tree.embedders import EmbedderCache
from tree.errors import StaleVersion
from tree.item import Item
from tree.labels import relabel
from tree.node import ROOT, Node
from tree.snapshot import SemanticTree
from tree.store.protocol import TreeStore

RebuildMode = Literal["full", "relabel", "subtree"]

_CHORES_S = 5.0
_FIRST_FIT = 64  # items after which an unfitted catalogue is built for the first time


class Curator:
    """Puts, deletes, imports and rebuilds for one catalogue.

    Any number of processes may curate the same catalogue at once.
    """

    def __init__(
        self,
        catalog: str,
        store: TreeStore,
        jobs: Jobs,
        embedders: EmbedderCache,
        settings: Settings,
    ) -> None:
        self._catalog = catalog
        self._store = store
        self._jobs = jobs
        self._embedders = embedders
        self._growth = settings.rebuild_growth
        self._writer = Writer(store, embedders, settings.commit_window_ms / 1000, self._look_after)
        self._rebuilder = Rebuilder(store, embedders, engine_for(settings))
        self._building = asyncio.Lock()
        self._chores: set[asyncio.Task[None]] = set()

    async def put(self, items: Sequence[Item]) -> dict[str, bool]:
        """Create or replace items, of distinct ids; whether each was created.

        They can be recommended from the next request on. Raises StoreUnavailable.
        """
        return await self.apply_batch(items, ())

    async def patch(self, item_id: str, change: Callable[[Item], Item]) -> Item | None:
        """Change an item by its newest record, whoever else writes it; None when it is not there.

        `change` may be called several times, and what it raises is raised here.
        """
        return await self._writer.patch(item_id, change)

    async def delete(self, ids: Collection[str]) -> dict[str, bool]:
        """Remove items, which are gone from the next request on; whether each was there."""
        return await self.apply_batch((), ids)

    async def apply_batch(self, puts: Sequence[Item], deletes: Collection[str]) -> dict[str, bool]:
        """`put` and `delete` in one step, of disjoint ids."""
        results: dict[str, bool] = {}
        for start in range(0, max(len(puts), 1), COMMIT_ITEMS):
            some = {item.id: item for item in puts[start : start + COMMIT_ITEMS]}
            gone = frozenset(deletes) if start == 0 else frozenset()
            results |= await self._writer.write(some, gone)
        return results

    def _look_after(self, tree: SemanticTree, edits: Sequence[Edit]) -> None:
        """Name what a commit has reshaped; rebuild once the catalogue has outgrown its tree."""
        fresh = [spec.id for edit in edits if isinstance(edit, Reshape) for spec in edit.put]
        if fresh:
            self._in_background(self._name(fresh))
        if not self._building.locked() and self._outgrown(tree, len(tree)):
            self._in_background(self._rebuild_by_itself())

    def _outgrown(self, tree: SemanticTree, size: int) -> bool:
        fitted_on = self._embedders.of(tree.space).population
        return size >= max(_FIRST_FIT, self._growth * fitted_on)

    def _in_background(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(work)
        self._chores.add(task)
        task.add_done_callback(self._chores.discard)

    async def _name(self, nodes: Sequence[int]) -> None:
        """Label some nodes by what they hold; another write in between makes it somebody else's."""
        tree = await self._store.load()
        leaves = [node for node in nodes if tree.has_node(node) and tree.node(node).is_leaf]
        near = {node for leaf in leaves for node in (leaf, *(n.id for n in tree.siblings(leaf)))}
        ids = [item for node in near if tree.node(node).is_leaf for item in tree.item_ids(node)]
        records = await self._store.items(ids)
        if len(records) == len(ids) and (edits := relabel(tree, leaves, records)):
            with suppress(StaleVersion):
                await self._store.commit(edits, base=tree.version)

    async def _rebuild_by_itself(self) -> None:
        with suppress(JobRunning):
            await self.start_rebuild()

    async def rename(self, node_id: int, label: str | None, locked: bool | None) -> Node:
        """Give a node another label, or lock the one it has. Raises UnknownNode."""
        return await self._writer.rename(node_id, label, locked)

    async def start_import(
        self, path: Path, *, on_error: Literal["skip", "abort"] = "skip", dry_run: bool = False
    ) -> Job:
        """Import a JSONL file, gzipped or not, as a job that removes the file at its end.

        `skip` leaves bad lines out; `abort` imports nothing if there is one. What was read is
        durable before it has its place in the tree, and keeps it when the import fails or is
        cancelled half-way.
        """

        async def work(report: Report) -> dict[str, object]:
            try:
                return await self._import(path, report, on_error == "abort", dry_run)
            finally:
                await asyncio.to_thread(path.unlink, missing_ok=True)

        return await self._jobs.start("import", self._catalog, work)

    async def _import(
        self, path: Path, report: Report, abort: bool, dry_run: bool
    ) -> dict[str, object]:
        if abort or dry_run:
            checked = await self._read(path, report, "checking", keep=False)
            if abort and checked.rejected:
                raise JobFailed(
                    "invalid_lines",
                    f"{checked.rejected} lines are not acceptable, so nothing was imported",
                    checked.result(),
                )
            if dry_run:
                return {**checked.result(), "dry_run": True}
        try:
            kept = await self._read(path, report, "reading", keep=True)
        except JobFailed:  # what was read before is durable: it gets its place all the same
            await self.place_staged(report)
            raise
        except asyncio.CancelledError:
            self._in_background(self.place_staged(Report.unwatched()))
            raise
        await self.place_staged(report)
        tree = await self._store.load()
        return {**kept.result(), "items": len(tree), "tree_version": tree.version}

    async def _read(self, path: Path, report: Report, phase: str, *, keep: bool) -> ImportReport:
        report.phase(phase, path.stat().st_size, "bytes")
        outcome = ImportReport()
        batches = read_items(path, outcome)
        try:
            while (batch := await asyncio.to_thread(next, batches, None)) is not None:
                if keep and batch.items:
                    await self._store.stage(batch.items)
                report.advance(batch.bytes_read)
        except Unreadable as error:
            raise JobFailed("unreadable", str(error), outcome.result()) from error
        return outcome

    async def place_staged(self, report: Report) -> None:
        """Give every staged item its place: one by one, or by a rebuild where they are many."""
        tree = await self._store.load()
        waiting = {item async for batch in self._store.staged() for item in batch}
        size = len(tree) + sum(item not in tree for item in waiting)
        if waiting and self._outgrown(tree, size):
            async with self._building:
                await self._rebuilder.full(report)
            waiting = {item async for batch in self._store.staged() for item in batch}
        report.phase("placing", len(waiting))
        ids = sorted(waiting)
        for start in range(0, len(ids), COMMIT_ITEMS):
            some = ids[start : start + COMMIT_ITEMS]
            await self.put(list((await self._store.items(some)).values()))
            report.advance(len(some))

    async def resume(self) -> None:
        """Place what an import had stored when its process was lost."""
        if await anext(aiter(self._store.staged(batch=1)), None):

            async def work(report: Report) -> dict[str, object]:
                await self.place_staged(report)
                return {"items": len(await self._store.load())}

            with suppress(JobRunning):
                await self._jobs.start("import", self._catalog, work, alone=True)

    async def start_rebuild(
        self, *, mode: RebuildMode = "full", root: int | None = None, dry_run: bool = False
    ) -> Job:
        """Build the tree anew, or a subtree, or only its labels, as a job.

        Ingestion and deletes go on meanwhile and are carried over. Raises JobRunning,
        UnknownNode.
        """
        tree = await self._store.load()
        top = tree.node(ROOT if root is None else root).id

        async def work(report: Report) -> dict[str, object]:
            async with self._building:
                match mode:
                    case "full":
                        after = await self._rebuilder.full(report, publish=not dry_run)
                    case "subtree":
                        after = await self._rebuilder.subtree(top, report, publish=not dry_run)
                    case "relabel":
                        after = await self._rebuilder.labels(report, publish=not dry_run)
            figures = await asyncio.to_thread(inspect.statistics, after)
            return {"dry_run": dry_run, "tree_version": after.version, **asdict(figures)}

        return await self._jobs.start("rebuild", self._catalog, work, alone=True)

    async def aclose(self) -> None:
        """Finish what was begun after the last writes, or leave it to the next start."""
        if self._chores:
            _, pending = await asyncio.wait(self._chores, timeout=_CHORES_S)
            for chore in pending:
                chore.cancel()
            await asyncio.gather(*pending, return_exceptions=True)

"""`doctor --deep`: checks every stored part of every catalogue, and names what is damaged."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np

from app.cli.check import Check
from app.embedders import EmbedderCache
from tree.errors import TreeError
from tree.inspect import violations
from tree.item import Item
from tree.snapshot import SemanticTree
from tree.vectors import Int8Matrix, alike

if TYPE_CHECKING:
    from rich.progress import Progress

    from app.catalogs import Catalogs
    from app.storage.documents import Documents
    from tree.store.protocol import TreeStore

_NAMED_AT_MOST = 100
_SHOWN = 3
_READ = 2_000
_RESTORE = (
    "restore a backup of it (unillmrec restore FILE -c {name} --overwrite); or save what can be "
    "read (unillmrec export --records -c {name} -o FILE), DELETE "
    "/v1/catalogs/{name}?confirm={name}, create it again and import the file"
)
_ADVICE = {
    "head": _RESTORE,
    "snapshot": _RESTORE,
    "log": _RESTORE,
    "waiting": "put these items again",
    "strays": "put these items again, then delete those that are not wanted",
    "tree": "unillmrec rebuild --catalog {name}",
    "records": "put these items again, or delete them",
}

_PART_NAMES = {"strays": "records that have an item", "records": "items that have their record"}


class _Findings:
    """The flaws of a catalogue by part, and how much of each part was checked."""

    def __init__(self, bar: "Progress", label: str) -> None:
        self._bar = bar
        self._row = bar.add_task(label, total=None, unit="pieces")
        self.checked: Counter[str] = Counter()
        self.counts: Counter[str] = Counter()
        self.flaws: dict[str, list[str]] = {}

    def expect(self, pieces: int) -> None:
        """`pieces` more pieces will be checked."""
        self._bar.update(self._row, total=self.checked.total() + pieces)

    def add(self, part: str, count: int, flaws: Iterable[str] = ()) -> None:
        self.checked[part] += count
        self._bar.update(self._row, completed=self.checked.total())
        for flaw in flaws:
            self.counts[part] += 1
            named = self.flaws.setdefault(part, [])
            if len(named) < _NAMED_AT_MOST:
                named.append(flaw)

    def close(self) -> None:
        self._bar.remove_task(self._row)


async def catalogue_checks(name: str, store: "TreeStore", bar: "Progress") -> AsyncIterator[Check]:
    """One check per damaged part of a catalogue; a single one when it is whole."""
    found = _Findings(bar, name)
    try:
        async for looked in store.check_integrity():
            found.add(looked.part, looked.count, looked.flaws)
        await _tree(store, found)
    except TreeError as error:
        found.add("head", 0, [str(error)])
    finally:
        found.close()
    for part, flaws in found.flaws.items():
        yield Check(
            name=f"catalogue {name}, {part}",
            status="fail",
            finding=summary(found.counts[part], flaws),
            advice=_ADVICE[part].format(name=name),
            flaws=flaws,
        )
    if not found.flaws:
        counts = ", ".join(
            f"{_PART_NAMES.get(part, part)} {count:,}"
            for part, count in found.checked.items()
            if count
        )
        yield Check(
            name=f"catalogue {name}, in depth",
            status="ok",
            finding=f"all parts are whole: {counts}",
        )


async def document_check(documents: "Documents") -> Check:
    """The check that every document can be read."""
    looked, flaws = 0, list[str]()
    async for count, some in documents.flaws():
        looked += count
        flaws += some
    if flaws:
        return Check(
            name="documents",
            status="fail",
            finding=summary(len(flaws), flaws),
            advice="the settings of a catalogue: PUT /v1/catalogs/NAME replaces them, and its "
            "items stay; other documents expire by themselves",
            flaws=flaws[:_NAMED_AT_MOST],
        )
    return Check(name="documents", status="ok", finding=f"all {looked:,} can be read")


async def stray_check(catalogs: "Catalogs", *, remove: bool) -> Check:
    """The check that every lasting key in the store belongs to an existing catalogue."""
    strays = await catalogs.registry.strays()
    flaws = [f"{keys:,} keys of {one!r}" for one, keys in strays.items()]
    if remove:
        for one in strays:
            await catalogs.remove(one)
        return Check(
            name="strays",
            status="ok",
            finding=f"removed: {summary(len(flaws), flaws) or 'nothing'}",
        )
    if flaws:
        return Check(
            name="strays",
            status="fail",
            finding=f"they belong to no catalogue: {summary(len(flaws), flaws)}",
            advice="a deletion of an older release was cut short: unillmrec doctor --deep "
            "--remove-strays removes them for good",
            flaws=flaws[:_NAMED_AT_MOST],
        )
    return Check(name="strays", status="ok", finding="every key belongs to a catalogue")


def summary(count: int, flaws: Sequence[str]) -> str:
    """The first flaws, and their number."""
    shown = "; ".join(flaws[:_SHOWN])
    return shown if count <= _SHOWN else f"{count:,} flaws: {shown}; …"


async def _tree(store: "TreeStore", found: _Findings) -> None:
    """Check the invariants of the tree, and the record of every item in it."""
    try:
        tree = await store.load()
    except TreeError as error:
        if not found.flaws:
            found.add("head", 0, [str(error)])
        return
    found.add("tree", tree.node_count, await asyncio.to_thread(violations, tree))
    found.expect(len(tree))
    embedders = EmbedderCache()
    ids = tree.item_ids()
    while some := list(islice(ids, _READ)):
        flaws = await _record_flaws(store, tree, some, embedders)
        if flaws:  # these items may have been written or deleted meanwhile
            now = await store.load()
            left = [item_id for item_id in flaws if item_id in now]
            flaws = await _record_flaws(store, now, left, embedders)
        found.add("records", len(some), flaws.values())


async def _record_flaws(
    store: "TreeStore", tree: SemanticTree, ids: Sequence[str], embedders: EmbedderCache
) -> dict[str, str]:
    """The flaws of records of items in the tree, by id: missing, damaged, or another version."""
    if not ids:
        return {}
    records = await store.items(ids)
    flaws: dict[str, str] = {}
    if absent := [item_id for item_id in ids if item_id not in records]:
        flaws = await store.record_flaws(absent)
    items = list(records.values())
    vectors: Sequence[Int8Matrix | None] = [None] * len(items)
    embedder = embedders.of(tree.space)
    if embedder.is_fast:  # others take as long as a rebuild, and may cost as much
        passages = [item.passage for item in items]
        vectors = list(await asyncio.to_thread(embedder.encode, passages))
    for item, vector in zip(items, vectors, strict=True):
        if other := ", ".join(_differences(tree, item, vector)):
            flaws[item.id] = f"the record of item {item.id!r} differs from the tree in: {other}"
    return flaws


def _differences(tree: SemanticTree, item: Item, vector: Int8Matrix | None) -> Iterator[str]:
    row, rows = tree.row(item.id), tree.rows
    if row is None:
        return
    if vector is not None and not alike(rows.vectors[row], vector):
        yield "text"
    if rows.domains[int(rows.domain[row])] != item.domain:
        yield "domain"
    if rows.popularity[row] != np.float32(item.popularity or 0.0):
        yield "popularity"
    expires_at = item.expires_at.timestamp() if item.expires_at else np.inf
    if rows.expires_at[row] != expires_at:
        yield "expiry"
    if bool(rows.hidden[row]) != item.hidden:
        yield "visibility"
    if rows.lines[row] != item.line_code:
        yield "line"

"""`Restore`: the catalogues of a backup, brought into a store."""

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from itertools import islice
from typing import TypeVar

import msgspec
from pydantic import ValidationError

from app.attribution import today
from app.backup.archive import ArchiveReader, BadArchive, RestoreRefused
from app.backup.backup import OTHER_KINDS, StoredDocument, section
from app.catalogs import Catalogs, CatalogSettings
from app.jobs import JobReport
from app.storage.attribution import Attribution, TallyEntry
from app.storage.feedback import Feedback, FeedbackEntry
from tree import place
from tree.item import Item
from tree.snapshot import SemanticTree
from tree.store.protocol import WritableStore
from tree.store.tree_frames import tree_of

_AT_ONCE = 500

_T = TypeVar("_T")
_entries = msgspec.json.Decoder(FeedbackEntry)
_documents = msgspec.json.Decoder(StoredDocument)
_tallies = msgspec.json.Decoder(TallyEntry)
_ids = msgspec.json.Decoder(str)


class Restore:
    """Restores catalogues of a backup; everything is checked before anything is changed.

    `names` maps catalogues of the backup to the names that they get; others are left out. Without
    it, all catalogues and all other documents are restored. A catalogue that is not empty is
    replaced only with `overwrite`.
    """

    def __init__(
        self,
        archive: ArchiveReader,
        catalogs: Catalogs,
        names: Mapping[str, str] | None = None,
        *,
        overwrite: bool = False,
    ) -> None:
        self._archive = archive
        self._catalogs = catalogs
        self._documents = catalogs.registry.documents
        held = archive.manifest.catalogs
        self._names = {name: name for name in held} if names is None else dict(names)
        self._others = names is None
        self._overwrite = overwrite

    async def run(self, report: JobReport) -> dict[str, int]:
        """How many items each restored catalogue has now, by its name.

        Each catalogue replaces the one of its name only once it is complete. Raises
        RestoreRefused before anything is changed, BadArchive, StoreUnavailable.
        """
        settings = await self._checked()
        restored: dict[str, int] = {}
        for old, new in self._names.items():
            fill = partial(self._fill, old, report)
            restored[new] = await self._catalogs.put_filled(new, settings[old], fill)
        if self._others:
            await self._restore_documents()
        return restored

    async def _checked(self) -> dict[str, CatalogSettings]:
        if len(set(self._names.values())) < len(self._names):
            raise RestoreRefused("two catalogues cannot be restored under one name")
        settings: dict[str, CatalogSettings] = {}
        for old, new in self._names.items():
            facts = self._archive.facts(old)
            try:
                settings[old] = CatalogSettings.model_validate_json(
                    msgspec.json.encode(facts.settings)
                )
            except ValidationError as error:
                raise RestoreRefused(
                    f"the settings of catalogue {old!r} are not known to this release: restore the "
                    "backup with the release that made it or a newer one"
                ) from error
            self._catalogs.check(new, settings[old])
            if not self._overwrite and await self._catalogs.holds(new):
                raise RestoreRefused(
                    f"the catalogue {new!r} holds items or users already: choose another name with "
                    f"--catalog {old}=NEW, or add --overwrite to replace it"
                )
        return settings

    async def _fill(
        self,
        name: str,
        report: JobReport,
        store: WritableStore,
        feedback: Feedback,
        attribution: Attribution,
    ) -> int:
        """Bring a catalogue into an empty store; how many items it has."""
        archive = self._archive
        frames = archive.frames(section(name, "tree"))
        tree = await asyncio.to_thread(tree_of, frames)
        waiting = {_ids.decode(line) for line in archive.lines(section(name, "waiting.jsonl"))}

        report.phase(f"{name}: items", len(tree))
        found: set[str] = set()
        lines = archive.lines(section(name, "items.jsonl"))
        while items := await asyncio.to_thread(_items, lines, tree, waiting):
            await store.stage(items)
            found.update(item.id for item in items)
            report.advance(len(items))

        lost = [item_id for item_id in tree.item_ids() if item_id not in found]
        if lost:  # their records were damaged when the backup was made
            tree = tree.apply(await asyncio.to_thread(place.plan, tree, drops=lost))
        tree = await store.replace(
            tree, base=0, staging_seq=await store.staging_seq(), note="restored"
        )
        again = iter(sorted(waiting & found))
        while ids := list(islice(again, _AT_ONCE)):
            if placed := [item_id for item_id in ids if item_id in tree]:
                await store.stage(list((await store.items(placed)).values()))

        report.phase(f"{name}: users and counts", unit="entries")
        rows = map(_entries.decode, archive.lines(section(name, "feedback.jsonl")))
        while entries := await asyncio.to_thread(_some, rows):
            await feedback.restore(entries)
            report.advance(len(entries))
        kept = map(_tallies.decode, archive.lines(section(name, "tallies.jsonl")))
        while tallies := await asyncio.to_thread(_some, kept):
            await attribution.restore(tallies, today())
        return len(tree)

    async def _restore_documents(self) -> None:
        for kind in OTHER_KINDS:
            for line in self._archive.lines(f"documents/{kind}.jsonl"):
                document = _documents.decode(line)
                await self._documents.put(kind, document.id, document.data, None)


def _items(lines: Iterator[bytes], tree: SemanticTree, waiting: set[str]) -> Sequence[Item]:
    """The next items that the backup has a place for; empty at the end of the lines."""
    items: dict[str, Item] = {}
    for line in lines:
        try:
            item = Item.stored(line)
        except ValidationError as error:
            raise BadArchive(f"the backup has an item that cannot be read: {error}") from error
        if item.id in tree or item.id in waiting:
            items[item.id] = item
        if len(items) == _AT_ONCE:
            break
    return list(items.values())


def _some(rows: Iterator[_T]) -> list[_T]:
    return list(islice(rows, _AT_ONCE))

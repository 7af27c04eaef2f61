"""`backup_pieces`: everything that stays in the store, as the bytes of one file."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime

import msgspec

from app import __version__
from app.attribution import today
from app.backup.archive import ArchiveWriter, CatalogFacts, Manifest, joined
from app.backup.catalog_reader import CatalogReader
from app.catalogs import Catalog, Catalogs, UnknownCatalog
from app.jobs import JobReport
from app.storage.feedback import UserEntry
from app.storage.keys import DOCUMENT_KINDS, DocumentKind, document_lifetime
from tree.errors import CatalogDeleted, CorruptSnapshot
from tree.redis.keys import Lifetime
from tree.store.tree_frames import frames

CATALOG_KIND: DocumentKind = "catalog"  # the registry: a restore creates its entries
OTHER_KINDS = tuple(
    kind
    for kind in DOCUMENT_KINDS
    if document_lifetime(kind) is Lifetime.PERMANENT and kind != CATALOG_KIND
)


class StoredDocument(msgspec.Struct, frozen=True):
    """A document that stays."""

    id: str
    data: bytes  # base64 in JSON


def section(catalog: str, name: str) -> str:
    """The name of a section of a catalogue."""
    return f"catalogs/{catalog}/{name}"


class _Sink:
    """Bytes on their way out of the archive."""

    def __init__(self) -> None:
        self._bytes = bytearray()

    def write(self, data: bytes) -> int:
        self._bytes += data
        return len(data)

    def flush(self) -> None:
        """Nothing waits elsewhere."""

    def take(self) -> bytes:
        taken = bytes(self._bytes)
        self._bytes.clear()
        return taken


async def backup_pieces(catalogs: Catalogs, report: JobReport) -> AsyncIterator[bytes]:
    """The bytes of a backup, in pieces; `report` gets the progress.

    Each catalogue is written as one version of its tree, with all texts, labels and locks. Counts,
    users and other documents are read entry by entry while others write. Beside the tree, which a
    service holds in any case, the memory needed does not depend on the number of items.

    A catalogue that is damaged is left out; the manifest says so. Raises StoreUnavailable, and
    CorruptSnapshot for damage that is found too late: then the bytes so far are no backup.
    """
    sink = _Sink()
    archive = ArchiveWriter(sink)  # type: ignore[arg-type]  # all that zipfile needs
    facts: dict[str, CatalogFacts] = {}
    left_out: dict[str, str] = {}
    for kind in OTHER_KINDS:
        archive.begin(f"documents/{kind}.jsonl")
        async for document_id, data in catalogs.registry.documents.list(kind):
            archive.write(joined([msgspec.json.encode(StoredDocument(document_id, data))]))
    for listed in await catalogs.list():
        try:
            catalog = listed.catalog or await catalogs.get(listed.name)
            report.phase(f"{catalog.name}: items", len(await catalog.store.load()))
        except (UnknownCatalog, CatalogDeleted):  # deleted since the list was read
            continue
        except CorruptSnapshot as error:  # the other catalogues are saved
            left_out[listed.name] = str(error)
            continue
        try:
            async for found in _catalog(catalog, archive, report):
                if isinstance(found, CatalogFacts):
                    facts[catalog.name] = found
                yield sink.take()
        except CatalogDeleted:  # the manifest does not name it, so what was written is ignored
            continue
    now = datetime.now(UTC).isoformat(timespec="seconds")
    archive.finish(
        lambda sections: Manifest(
            service=__version__,
            created_at=now,
            catalogs=facts,
            left_out=left_out,
            sections=sections,
        )
    )
    yield sink.take()


async def _catalog(
    catalog: Catalog, archive: ArchiveWriter, report: JobReport
) -> AsyncIterator[CatalogFacts | None]:
    """Write a catalogue. After each value there may be bytes to take; the facts come last."""
    reader = CatalogReader(catalog.store)
    archive.begin(section(catalog.name, "items.jsonl"))
    async for items in reader.items():
        lines = joined(item.record() for item in items)
        await asyncio.to_thread(archive.write, lines)
        report.advance(len(items))
        yield None

    tree = reader.tree
    archive.begin(section(catalog.name, "tree"))
    pieces = frames(tree)
    while (frame := await asyncio.to_thread(next, pieces, None)) is not None:
        await asyncio.to_thread(archive.frame, frame)
        yield None
    archive.begin(section(catalog.name, "waiting.jsonl"))
    archive.write(joined(msgspec.json.encode(item_id) for item_id in reader.waiting))

    report.phase(f"{catalog.name}: users and counts", unit="entries")
    archive.begin(section(catalog.name, "feedback.jsonl"))
    users: set[str] = set()
    async for entries in catalog.feedback.entries():
        users.update(entry.user_id for entry in entries if isinstance(entry, UserEntry))
        await asyncio.to_thread(archive.write, joined(map(msgspec.json.encode, entries)))
        report.advance(len(entries))
        yield None
    archive.begin(section(catalog.name, "tallies.jsonl"))
    async for tallies in catalog.attributor.store.entries(today()):
        await asyncio.to_thread(archive.write, joined(map(msgspec.json.encode, tallies)))
        yield None
    await catalog.store.load()  # raises CatalogDeleted: a deletion may have removed some of them
    yield CatalogFacts(
        settings=catalog.settings_of(tree).model_dump(mode="json"),
        tree_version=tree.version,
        items=len(tree),
        waiting=len(reader.waiting),
        users=len(users),
        damaged=reader.damaged,
    )

"""`Registry`: the records of all catalogues in the store.

A name stays taken while its catalogue is being deleted: the record is removed last, after every
key. When a process dies in between, any process can finish the deletion from the record.
"""

import re
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from secrets import token_hex

from pydantic import BaseModel, ConfigDict, ValidationError

from app.catalog_settings import CatalogSettings
from app.storage.documents import Documents
from tree.errors import CorruptSnapshot, StoreUnavailable
from tree.store.keys import catalog_id, creation_of, name_of

DEFAULT_CATALOG = "default"
_NAME = re.compile(r"[a-z0-9_-]{1,64}")
_ATTEMPTS = 5  # while others create and delete the same name


class UnknownCatalog(LookupError):
    """There is no catalogue of that name."""

    def __init__(self, name: str) -> None:
        super().__init__(f"there is no catalogue {name!r}: PUT /v1/catalogs/{name} creates it")


class BeingDeleted(Exception):
    """The catalogue of that name is being deleted; the name is taken until then."""

    def __init__(self, name: str) -> None:
        super().__init__(f"catalogue {name!r} is being deleted: try again in a moment")


class InvalidCatalogName(ValueError):
    """Not a valid name of a catalogue."""


class _CatalogRecord(BaseModel):
    """The record of a name in the store."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    settings: CatalogSettings
    creation: str = ""  # empty for catalogues of an older release
    doomed: tuple[str, ...] | None = None  # ids whose keys are removed, while it is being deleted
    replaced: tuple[str, ...] = ()  # ids whose keys are removed, while the catalogue stays

    @property
    def data(self) -> bytes:
        return self.model_dump_json().encode()


@dataclass(frozen=True, slots=True)
class RegistryEntry:
    """A catalogue in the registry."""

    name: str
    id: str
    settings: CatalogSettings


@dataclass(frozen=True, slots=True)
class Deletion:
    """A deletion in progress: the ids whose keys are removed, then `before` becomes `after`."""

    name: str
    ids: tuple[str, ...]
    before: bytes
    after: bytes | None = None


class Registry:
    """The catalogues in the store.

    `count_keys` returns the number of lasting keys in the store by catalogue id, of one name or
    of all. Every method raises StoreUnavailable; methods that read a record raise
    CorruptSnapshot when it is damaged.
    """

    def __init__(
        self, documents: Documents, count_keys: Callable[[str | None], Awaitable[Mapping[str, int]]]
    ) -> None:
        self.documents = documents
        self._count_keys = count_keys

    async def create(self, name: str, settings: CatalogSettings) -> tuple[RegistryEntry, bool]:
        """The catalogue of that name, and whether it is new; an existing one keeps its settings.

        A catalogue with a damaged record gets these settings, and keeps its items. Raises
        InvalidCatalogName, BeingDeleted.
        """
        check_name(name)
        new = _CatalogRecord(settings=settings, creation=token_hex(4))
        for _ in range(_ATTEMPTS):
            if await self.documents.put_new("catalog", name, new.data, None):
                return _entry(name, new), True
            try:
                record = await self._read(name)
            except CorruptSnapshot:
                await self._repair(name, settings)
                continue
            if record is not None and record.doomed is not None:
                raise BeingDeleted(name)
            if record is not None:
                return _entry(name, record), False
        raise StoreUnavailable(f"other clients keep creating and deleting {name!r}: retry")

    async def prepare(self, name: str, settings: CatalogSettings) -> tuple[RegistryEntry, Deletion]:
        """A new catalogue, hidden until `publish`, and the deletion that undoes it.

        Until then its id has a record of its own, so that other processes can remove its keys
        when this one dies. Raises InvalidCatalogName.
        """
        check_name(name)
        creation = token_hex(4)
        entry = RegistryEntry(name, catalog_id(name, creation), settings)
        mark = _CatalogRecord(settings=settings, creation=creation, doomed=(entry.id,))
        await self.documents.put_new("catalog", entry.id, mark.data, None)
        return entry, Deletion(entry.id, (entry.id,), mark.data)

    async def publish(self, entry: RegistryEntry) -> Deletion | None:
        """Replace the catalogue of that name by a prepared one, in one step.

        Returns the deletion of the replaced catalogue, if there was one. Raises BeingDeleted.
        """
        name = entry.name
        new = _CatalogRecord(settings=entry.settings, creation=creation_of(entry.id))
        for _ in range(_ATTEMPTS):
            before: bytes | None = None
            doomed: Sequence[str] = ()
            try:
                before = await self.documents.get("catalog", name)
                record = None if before is None else _record(name, before)
            except CorruptSnapshot:
                record, doomed = None, await self._keys_of(name)
            if record is not None and record.doomed is not None:
                raise BeingDeleted(name)
            if record is not None:
                doomed = [catalog_id(name, record.creation), *record.replaced]
            if (
                before is None
                and not doomed
                and await self.documents.put_new("catalog", name, new.data, None)
            ):
                return None
            marked = new.model_copy(update={"replaced": tuple(doomed)})
            if await self.documents.swap("catalog", name, before, marked.data):
                return Deletion(name, marked.replaced, marked.data, new.data)
        raise StoreUnavailable(f"other clients keep creating and deleting {name!r}: retry")

    async def look(self, name: str) -> RegistryEntry | None:
        """The catalogue of that name; None when there is none, or it is being deleted."""
        record = await self._read(name) if _NAME.fullmatch(name) else None
        return None if record is None or record.doomed is not None else _entry(name, record)

    async def change(
        self, known: RegistryEntry, change: Callable[[CatalogSettings], CatalogSettings]
    ) -> RegistryEntry:
        """The catalogue after `change` of its settings, which may be called several times.

        No concurrent change is lost. Raises UnknownCatalog where it was deleted or replaced.
        """
        name = known.name
        for _ in range(_ATTEMPTS):
            before = await self.documents.get("catalog", name)
            record = None if before is None else _record(name, before)
            if record is None or record.doomed is not None or _entry(name, record).id != known.id:
                raise UnknownCatalog(name)
            after = record.model_copy(update={"settings": change(record.settings)})
            if await self.documents.swap("catalog", name, before, after.data):
                return _entry(name, after)
        raise StoreUnavailable(f"other clients keep changing {name!r}: retry")

    async def names(self) -> list[str]:
        """All names in use, including those of damaged records."""
        return sorted(filter(_NAME.fullmatch, await self.documents.ids("catalog")))

    async def mark_deleted(self, name: str) -> Deletion:
        """Begin a deletion, or return the one in progress. Raises UnknownCatalog.

        From now on the catalogue is not found, and its name is taken until `remove`.
        """
        for _ in range(_ATTEMPTS if _NAME.fullmatch(name) else 0):
            before = None
            try:
                before = await self.documents.get("catalog", name)
                if before is None:
                    break
                record = _record(name, before)
                doomed: Collection[str] = (catalog_id(name, record.creation), *record.replaced)
            except CorruptSnapshot:
                record, doomed = (
                    _CatalogRecord(settings=CatalogSettings()),
                    await self._keys_of(name),
                )
            if record.doomed is not None and before is not None:
                return Deletion(name, record.doomed, before)
            marked = record.model_copy(update={"doomed": tuple(doomed)})
            if await self.documents.swap("catalog", name, before, marked.data):
                return Deletion(name, tuple(doomed), marked.data)
        raise UnknownCatalog(name)

    async def remove(self, deletion: Deletion) -> None:
        """Remove the record after the keys are gone; no effect if another process did it first."""
        await self.documents.swap("catalog", deletion.name, deletion.before, deletion.after)

    async def unfinished(self) -> list[Deletion]:
        """The deletions that have begun and not finished."""
        found = []
        async for name, data in self.documents.list("catalog"):
            try:
                record = _record(name, data)
                published = await self.look(name_of(name)) if record.doomed == (name,) else None
            except CorruptSnapshot:
                continue
            if published is not None and published.id == name:  # only its own record is left
                await self.documents.swap("catalog", name, data, None)
            elif record.doomed is not None:
                found.append(Deletion(name, record.doomed, data))
            elif record.replaced:
                after = record.model_copy(update={"replaced": ()})
                found.append(Deletion(name, record.replaced, data, after.data))
        return found

    async def strays(self) -> dict[str, int]:
        """The number of keys by catalogue id, for ids in the store without a record."""
        # Keys are counted first: a catalogue has a record as long as it has keys.
        found = await self._count_keys(None)
        known, unreadable = await self._ids()
        strays = {one for one in found if one not in known and name_of(one) not in unreadable}
        if strays:  # a deletion may just have removed them and their record
            found = await self._count_keys(None)
        return {one: found[one] for one in sorted(strays) if one in found}

    async def _ids(self) -> tuple[set[str], set[str]]:
        """The ids of all catalogues, deleted ones included; the names of damaged records."""
        known, unreadable = set[str](), set[str]()
        for name in await self.documents.ids("catalog"):
            try:
                record = await self._read(name)
            except CorruptSnapshot:
                unreadable.add(name)
                continue
            if record is not None:
                own = catalog_id(name_of(name), record.creation)
                known |= {own, *(record.doomed or ()), *record.replaced}
        return known, unreadable

    async def _keys_of(self, name: str) -> Sequence[str]:
        """The ids of that name that have keys in the store, and no other record."""
        known, _ = await self._ids()
        return [one for one in await self._count_keys(name) if one not in known]

    async def _repair(self, name: str, settings: CatalogSettings) -> None:
        """Replace a damaged record; the items of that name in the store stay."""
        ids = await self._keys_of(name)
        if len(ids) > 1:
            raise CorruptSnapshot(
                f"the settings of catalogue {name!r} are damaged, and the store has the keys of "
                f"{len(ids)} catalogues of this name: delete it, and create it again"
            )
        creation = creation_of(ids[0]) if ids else token_hex(4)
        try:
            before = await self.documents.get("catalog", name)
        except CorruptSnapshot:
            before = None
        record = _CatalogRecord(settings=settings, creation=creation)
        await self.documents.swap("catalog", name, before, record.data)

    async def _read(self, name: str) -> _CatalogRecord | None:
        data = await self.documents.get("catalog", name)
        return None if data is None else _record(name, data)


def check_name(name: str) -> None:
    """Raises InvalidCatalogName."""
    if not _NAME.fullmatch(name):
        raise InvalidCatalogName(
            f"{name!r} cannot name a catalogue: use 1 to 64 of a-z, 0-9, '-' and '_'"
        )


def _entry(name: str, record: _CatalogRecord) -> RegistryEntry:
    return RegistryEntry(name, catalog_id(name, record.creation), record.settings)


def _record(name: str, data: bytes) -> _CatalogRecord:
    """The record; older releases stored the settings alone. Raises CorruptSnapshot."""
    try:
        if b'"settings"' in data:
            return _CatalogRecord.model_validate_json(data)
        return _CatalogRecord(settings=CatalogSettings.model_validate_json(data))
    except ValidationError as error:
        raise CorruptSnapshot(
            f"the settings of catalogue {name!r} cannot be read: {error.error_count()} flaws"
        ) from error

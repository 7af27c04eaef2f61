"""The file of a backup: a zip of sections, and a manifest with the checksum of each.

Written as a stream; read only after every byte has been checked. `unzip -l` lists the sections,
`unzip -p FILE catalogs/default/items.jsonl` prints one.
"""

import hashlib
import json
import struct
import time
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import IO

from pydantic import BaseModel, ConfigDict, ValidationError

MANIFEST = "manifest.json"
FORMAT = "unillmrec-backup"
FORMAT_VERSION = 1

_LEVEL = 1  # three times as fast as the usual 6, and a tenth larger
_READ_BYTES = 262_144
_LENGTH = struct.Struct(">I")
_LONGEST_FRAME = 1 << 30
_MODE = 0o600 << 16


class BadArchive(Exception):
    """The file is not a backup, or it is damaged; the message says which, and where."""


class Section(BaseModel):
    """What the manifest says of a section: its checksum, and its bytes before compression."""

    model_config = ConfigDict(frozen=True)

    sha256: str
    size: int


class CatalogFacts(BaseModel):
    """What the manifest says of a catalogue."""

    model_config = ConfigDict(frozen=True)

    settings: dict[str, object]
    tree_version: int
    items: int
    waiting: int  # imported items without a place in the tree
    users: int
    damaged: int  # items of the tree without a readable record: they are left out


class Manifest(BaseModel):
    """The last section."""

    model_config = ConfigDict(frozen=True)

    format: str = FORMAT
    format_version: int = FORMAT_VERSION
    service: str
    created_at: str
    catalogs: dict[str, CatalogFacts]
    left_out: dict[str, str] = {}  # damaged catalogues, and what is wrong with them
    sections: dict[str, Section]


class ArchiveWriter:
    """Writes sections, one after another, into a file or a stream."""

    def __init__(self, file: IO[bytes]) -> None:
        self._zip = zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, compresslevel=_LEVEL)
        self._open: IO[bytes] | None = None
        self._name = ""
        self._sum = hashlib.sha256()
        self._size = 0
        self.sections: dict[str, Section] = {}

    def begin(self, name: str) -> None:
        """Begin a section, and end the one before."""
        self._end()
        entry = zipfile.ZipInfo(name, time.gmtime()[:6])
        entry.compress_type = zipfile.ZIP_DEFLATED
        entry.external_attr = _MODE
        self._open = self._zip.open(entry, "w", force_zip64=True)
        self._name, self._sum, self._size = name, hashlib.sha256(), 0

    def write(self, data: bytes) -> None:
        """Add to the section."""
        assert self._open is not None, "no section was begun"
        self._open.write(data)
        self._sum.update(data)
        self._size += len(data)

    def frame(self, data: bytes) -> None:
        """Add a piece that `ArchiveReader.frames` gives back as a whole."""
        self.write(_LENGTH.pack(len(data)) + data)

    def finish(self, manifest: Callable[[dict[str, Section]], Manifest]) -> None:
        """Write the manifest, which makes it a backup."""
        self._end()
        self._zip.writestr(MANIFEST, manifest(self.sections).model_dump_json(indent=1))
        self._zip.close()

    def _end(self) -> None:
        if self._open is not None:
            self._open.close()
            self.sections[self._name] = Section(sha256=self._sum.hexdigest(), size=self._size)
            self._open = None


class RestoreRefused(Exception):
    """The restore is not possible, and nothing was changed; the message says what to do."""


class ArchiveReader:
    """A backup whose every byte was checked."""

    def __init__(
        self, path: Path, checked: Callable[[int, int], None] = lambda _, __: None
    ) -> None:
        """Check the file; `checked` is called with the bytes checked so far and the total.

        Raises BadArchive, and OSError where it cannot be opened.
        """
        try:
            self._zip = zipfile.ZipFile(path)
        except (zipfile.BadZipFile, ValueError) as error:
            raise BadArchive(
                f"{path} is not a whole backup: it was cut off, or is another kind of file"
            ) from error
        try:
            self.manifest = self._manifest()
            self._check(checked)
        except (zipfile.BadZipFile, zlib.error, EOFError, ValueError, OSError) as error:
            self.close()
            raise BadArchive(f"{path} is damaged: {error}") from error
        except BadArchive as error:
            self.close()
            raise BadArchive(f"{path} {error}") from error

    def close(self) -> None:
        """Close the file."""
        self._zip.close()

    def facts(self, catalog: str) -> CatalogFacts:
        """What the backup says of a catalogue. Raises RestoreRefused where it says nothing."""
        held = self.manifest.catalogs
        if catalog not in held:
            raise RestoreRefused(
                f"the backup has no catalogue {catalog!r}: it has {', '.join(sorted(held))}"
            )
        return held[catalog]

    def lines(self, name: str) -> Iterator[bytes]:
        """The lines of a section, without their ends; none where an older release had no such."""
        if name not in self.manifest.sections:
            return
        with self._zip.open(name) as section:
            for line in section:
                yield line.rstrip(b"\n")

    def frames(self, name: str) -> Iterator[bytes]:
        """The pieces that `ArchiveWriter.frame` was given. Raises BadArchive."""
        with self._zip.open(name) as section:
            while length := section.read(_LENGTH.size):
                size = _LENGTH.unpack(length)[0] if len(length) == _LENGTH.size else -1
                data = section.read(size) if 0 <= size <= _LONGEST_FRAME else b""
                if len(data) != size:
                    raise BadArchive(f"the section {name} is not made of whole pieces")
                yield data

    def _manifest(self) -> Manifest:
        try:
            content = json.loads(self._zip.read(MANIFEST))
        except KeyError:
            raise BadArchive("is a zip file, but no backup: it has no manifest") from None
        if not isinstance(content, dict) or content.get("format") != FORMAT:
            raise BadArchive("is a zip file, but no backup of this service")
        if content.get("format_version") != FORMAT_VERSION:
            raise BadArchive(
                f"is a backup of format {content.get('format_version')}, and this release reads "
                f"format {FORMAT_VERSION}: restore it with the release that made it or a newer one"
            )
        try:
            return Manifest.model_validate(content)
        except ValidationError as error:
            raise BadArchive(f"is damaged: its manifest has {error.error_count()} flaws") from error

    def _check(self, checked: Callable[[int, int], None]) -> None:
        sections = self.manifest.sections
        held = set(self._zip.namelist()) - {MANIFEST}
        if held != sections.keys():
            one = min(held ^ sections.keys())
            raise BadArchive(f"is damaged: the section {one} is missing or does not belong to it")
        done, total = 0, sum(section.size for section in sections.values())
        for name, section in sections.items():
            found = hashlib.sha256()
            with self._zip.open(name) as data:
                while piece := data.read(_READ_BYTES):
                    found.update(piece)
                    done += len(piece)
                    checked(done, total)
            if found.hexdigest() != section.sha256:
                raise BadArchive(f"is damaged: the checksum of the section {name} is wrong")


def joined(lines: Iterable[bytes]) -> bytes:
    """The bytes of some lines, as `ArchiveReader.lines` reads them."""
    return b"".join(line + b"\n" for line in lines)

"""`events`: what users did, from a file."""

import asyncio
import gzip
import json
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, BinaryIO, cast

import typer
from rich.table import Table

from app.cli.session import CatalogOption, Failed, JsonOption, opened, out, print_json, run
from app.cli.watching import bar

if TYPE_CHECKING:
    from tree.store.feedback import Event

_AT_ONCE = 2_000
_SHOWN = 20
_GZIP_MAGIC = b"\x1f\x8b"


def events(
    file: Annotated[
        Path,
        typer.Argument(
            exists=True,
            dir_okay=False,
            help="JSON Lines, gzipped or not: events, or {user_id, history, timestamps?}.",
        ),
    ],
    catalog: CatalogOption = "default",
    as_json: JsonOption = False,
) -> None:
    """Count what users did, from a file; lines that cannot be read are left out and told.

    A file may be fed again within a day: nothing counts twice. Later, what a user has among their
    newest 200 items counts no more, and what is older, but was given no time, counts again.
    """
    found, errors = run(_fed(file, catalog, quiet=as_json))
    rejected = sum(errors.values())
    if as_json:
        print_json({**found, "rejected": rejected, "errors": list(errors)[:_SHOWN]})
        return
    told = ", ".join(f"{count:,} {name.replace('_', ' ')}" for name, count in found.items())
    out.print(f"events: {told or 'none'}; {rejected:,} lines rejected")
    if errors:
        table = Table("line", title="Rejected")
        for where in list(errors)[:_SHOWN]:
            table.add_row(where)
        out.print(table, markup=False)


async def _fed(file: Path, catalog: str, *, quiet: bool) -> tuple[Counter[str], Counter[str]]:
    from app.signals import feed

    found: Counter[str] = Counter()
    errors: Counter[str] = Counter()
    async with opened(catalog) as (_, target):
        tree = await target.store.load()
        if not len(tree):
            raise Failed(f"catalogue {catalog!r} holds no items: import them first")
        with file.open("rb") as raw, _unzipped(raw) as lines, bar(quiet=quiet) as progress:
            task = progress.add_task("feeding", total=file.stat().st_size, unit="bytes")
            for batch in _batches(file, lines, errors):
                found += await feed(target.feedback, tree, batch)
                progress.update(task, completed=raw.tell())
                await asyncio.sleep(0)
    return found, errors


def _batches(file: Path, lines: BinaryIO, errors: Counter[str]) -> Iterator[Sequence["Event"]]:
    batch: list[Event] = []
    now = time.time_ns() // 1_000
    try:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                batch += _events(line, now + number)
            except (ValueError, RecursionError) as error:
                errors[f"{file.name}:{number}: {_reason(error)}"] += 1
            if len(batch) >= _AT_ONCE:
                yield batch
                batch = []
    except (EOFError, gzip.BadGzipFile) as error:
        raise Failed(f"{file}: the compressed file is damaged ({error})") from error
    yield batch


def _events(line: bytes, now: int) -> list["Event"]:
    """The events of a line. Raises ValueError."""
    from app.signals import UserEvent, UserHistory, events_of

    row = json.loads(line)
    if isinstance(row, dict) and "history" in row:
        return list(UserHistory.model_validate_json(line).events(now))
    return events_of([UserEvent.model_validate_json(line)], now)


def _reason(error: Exception) -> str:
    from pydantic import ValidationError

    if isinstance(error, ValidationError):
        flaw = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(map(str, flaw["loc"]))
        return f"{place}: {flaw['msg']}" if place else flaw["msg"]
    return "is not JSON: expected an event, or {user_id, history}"


@contextmanager
def _unzipped(raw: BufferedReader) -> Iterator[BinaryIO]:
    if raw.peek(2)[:2] != _GZIP_MAGIC:
        yield raw
        return
    with gzip.open(raw) as lines:
        yield cast(BinaryIO, lines)

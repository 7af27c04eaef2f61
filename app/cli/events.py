"""`events`: counts events from a file."""

import asyncio
import json
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from app.cli.progress import bar
from app.cli.session import CatalogOption, Failed, JsonOption, opened, out, print_json, run, table

if TYPE_CHECKING:
    from app.storage.feedback import Event

_AT_ONCE = 2_000
_SHOWN = 20


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
    """Count events from a file; lines that cannot be read are skipped and reported.

    A file may be read again within a day: nothing counts twice. Later, events of a user's newest
    200 items do not count again, but older ones without a time do.
    """
    found, errors = run(_count(file, catalog, quiet=as_json))
    rejected = sum(errors.values())
    if as_json:
        print_json({**found, "rejected": rejected, "errors": list(errors)[:_SHOWN]})
        return
    counts = ", ".join(f"{count:,} {name.replace('_', ' ')}" for name, count in found.items())
    out.print(f"events: {counts or 'none'}; {rejected:,} lines rejected")
    if errors:
        rows = table("line", title="Rejected")
        for where in list(errors)[:_SHOWN]:
            rows.add_row(where)
        out.print(rows, markup=False)


async def _count(file: Path, catalog: str, *, quiet: bool) -> tuple[Counter[str], Counter[str]]:
    from app.signals import count_events

    found: Counter[str] = Counter()
    errors: Counter[str] = Counter()
    async with opened(catalog) as (_, target):
        tree = await target.store.load()
        if not len(tree):
            raise Failed(f"catalogue {catalog!r} holds no items: import them first")
        with bar(quiet=quiet) as progress:
            task = progress.add_task("events", total=file.stat().st_size, unit="bytes")
            for batch, position in _batches(file, errors):
                found += await count_events(
                    target.feedback, tree, batch, target.settings.event_rules
                )
                progress.update(task, completed=position)
                await asyncio.sleep(0)
    return found, errors


def _batches(file: Path, errors: Counter[str]) -> Iterator[tuple[Sequence["Event"], int]]:
    """Batches of events, each with the byte up to which the file has been read."""
    from app.curate.imports.file_lines import Unreadable, line_batches

    batch: list[Event] = []
    position = 0
    now = time.time_ns() // 1_000
    try:
        for lines in line_batches(file):
            position = lines.position
            for number, line in lines.lines:
                if line is None:
                    errors[f"{file.name}:{number}: is longer than a megabyte"] += 1
                    continue
                try:
                    batch += _events(line, now + number)
                except (ValueError, RecursionError) as error:
                    errors[f"{file.name}:{number}: {_reason(error)}"] += 1
                if len(batch) >= _AT_ONCE:
                    yield batch, position
                    batch = []
            yield [], position  # progress, also when there are few events
    except Unreadable as error:
        yield batch, position
        raise Failed(f"{file}: the compressed file is damaged ({error})") from error
    yield batch, position


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
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(map(str, first["loc"]))
        return f"{place}: {first['msg']}" if place else first["msg"]
    return "is not JSON: expected an event, or {user_id, history}"

"""`events`: counts events from a file."""

import asyncio
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from app.cli.progress import bar
from app.cli.session import CatalogOption, Failed, JsonOption, opened, out, print_json, run, table

if TYPE_CHECKING:
    from app.data_files import Skipped
    from app.event_types import EventRules
    from app.signals import RowMeaning
    from app.storage.feedback import Event

_AT_ONCE = 2_000
_SHOWN = 20


def events(
    file: Annotated[
        Path,
        typer.Argument(
            exists=True,
            dir_okay=False,
            help="JSON Lines, or CSV or TSV with a header, gzipped or not: an event per line, or "
            "{user_id, history, timestamps?}. Also ratings.dat and behaviors.tsv.",
        ),
    ],
    catalog: CatalogOption = "default",
    usual_type: Annotated[
        str | None,
        typer.Option(
            "--type", help="Type of rows without one; else view, and purchase for histories."
        ),
    ] = None,
    renamed: Annotated[
        list[str] | None,
        typer.Option("--as", help="A type of the file and ours: addtocart=cart; may be repeated."),
    ] = None,
    like_from: Annotated[
        float | None, typer.Option(help="Ratings from here on are of type like.")
    ] = None,
    dislike_to: Annotated[
        float | None, typer.Option(help="Ratings up to here are of type dislike.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Count events from a file; lines that cannot be read are skipped and reported.

    A file may be read again within a day: nothing counts twice. Later, events of a user's newest
    200 items do not count again, but older ones without a time do.
    """
    from app.signals import RowMeaning

    if like_from is not None and dislike_to is not None and dislike_to >= like_from:
        raise typer.BadParameter("--dislike-to must lie below --like-from")
    meaning = RowMeaning(
        usual_type=usual_type,
        renamed=dict(_renaming(each) for each in renamed or ()),
        like_from=like_from,
        dislike_to=dislike_to,
    )
    found, skipped = run(_count(file, catalog, meaning, quiet=as_json))
    rejected = sum(skipped.counts.values())
    errors = [
        f"{skipped.first[reason]}: {reason}" + (f" ({count:,} lines)" if count > 1 else "")
        for reason, count in skipped.counts.items()
    ][:_SHOWN]
    if as_json:
        print_json({**found, "rejected": rejected, "errors": errors})
        return
    counts = ", ".join(f"{count:,} {name.replace('_', ' ')}" for name, count in found.items())
    out.print(f"events: {counts or 'none'}; {rejected:,} lines rejected")
    if errors:
        rows = table("line", title="Rejected")
        for each in errors:
            rows.add_row(each)
        out.print(rows, markup=False)


def _renaming(given: str) -> tuple[str, str]:
    theirs, separator, ours = given.partition("=")
    if not separator or not theirs or not ours:
        raise typer.BadParameter(f"--as {given}: expected a name of the file, =, and one of ours")
    return theirs.casefold(), ours


def _check_types(meaning: "RowMeaning", rules: "EventRules") -> None:
    for name in [meaning.usual_type, *meaning.renamed.values()]:
        if name is not None and name not in rules.types:
            known = ", ".join(rules.types)
            raise Failed(f"there is no type of events {name!r}: this catalogue has {known}")


async def _count(
    path: Path, catalog: str, meaning: "RowMeaning", *, quiet: bool
) -> tuple[Counter[str], "Skipped"]:
    from dataclasses import replace

    from app.data_files import DataError, FileLoad
    from app.data_files.event_rows import EXPECTED_EVENTS
    from app.signals import count_events, events_in

    found: Counter[str] = Counter()
    async with opened(catalog) as (_, target):
        tree = await target.store.load()
        if not len(tree):
            raise Failed(f"catalogue {catalog!r} holds no items: import them first")
        rules = target.settings.event_rules  # without a limit: the file is the owner's
        _check_types(meaning, rules)
        with bar(quiet=quiet) as progress:
            task = progress.add_task("events", total=path.stat().st_size, unit="bytes")

            def show(done: int, total: int) -> None:
                progress.update(task, completed=done, total=total)

            loading = FileLoad([path], show)
            file = loading.open(path, EXPECTED_EVENTS, skip_undecodable=True)
            now = time.time_ns() // 1_000
            try:
                for batch in _batches(events_in(file, replace(meaning, rules=rules), now)):
                    await target.attributor.attribute(batch, rules)
                    found += await count_events(target.feedback, tree, batch, rules)
                    await asyncio.sleep(0)
            except DataError as error:
                before = f" {found.total():,} events before it were read." if found else ""
                raise Failed(f"{error}{before}") from error
    return found, loading.skipped


def _batches(events: Iterator["Event"]) -> Iterator[list["Event"]]:
    """The events in batches; those before an error of the file come before the error."""
    from app.data_files import DataError

    batch: list[Event] = []
    try:
        for event in events:
            batch.append(event)
            if len(batch) == _AT_ONCE:
                yield batch
                batch = []
    except DataError:
        yield batch
        raise
    yield batch

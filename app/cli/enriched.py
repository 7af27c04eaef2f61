"""The check of `doctor` for lines: how many items of a catalogue have one, and what to do."""

import time
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

from app.cli.check import Check
from tree.errors import TreeError

if TYPE_CHECKING:
    from app.catalogs import Catalog


async def line_check(catalog: "Catalog", *, has_model: bool) -> AsyncIterator[Check]:
    """One check; none where there is neither a line nor a model that could write one."""
    try:
        enriched, waiting = (await catalog.store.load()).line_counts(time.time())
    except TreeError:  # another check reports it
        return
    if not enriched and not (has_model and waiting):
        return
    finding = f"{enriched:,} items have a line in plain words"
    if waiting:
        finding += f", {waiting:,} have none"
        by_itself = has_model and catalog.settings.enrichment.enabled
        command = "unillmrec enrich" if has_model else "unillmrec enrich --from FILE"
        finding += (
            ": a running service writes them, as far as its daily budget goes"
            if by_itself
            else f": {command} --catalog {catalog.name}"
        )
    yield Check(name=f"catalogue {catalog.name}, lines", status="ok", finding=finding)

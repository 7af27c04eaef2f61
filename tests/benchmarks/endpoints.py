"""Every kind of endpoint: whether its model answers, and after how many calls at the start."""

import asyncio
import logging
from collections.abc import Iterator
from typing import get_args

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from app.options import EffortName
from tests.benchmarks.figures import Figure
from tests.benchmarks.quality import tree_of
from tests.commands import DEMO
from tests.servers.endpoints import KINDS
from tests.servers.endpoints.kind import Outcome
from tests.servers.endpoints.server import EndpointServer
from tests.servers.endpoints.trial import Trial, tried
from tree.item import Item
from tree.store.memory import MemoryTreeStore

_EFFORTS = get_args(EffortName)
_HISTORY = ["book-dune", "film-solaris", "film-alien", "film-cabaret"]
_RIGHT: dict[Outcome, str] = {
    "model": "answered by the model",
    "outage": "an outage that passes is survived",
    "refused": "the start is refused, and says why",
}


def kinds() -> Iterator[Figure]:
    """A row for each kind, then how many there are of every outcome."""
    logging.disable(logging.WARNING)  # what is wrong stands in the rows
    try:
        trials = asyncio.run(_all_tried())
    finally:
        logging.disable(logging.NOTSET)
    _print(trials)
    for outcome, what in _RIGHT.items():
        of_outcome = [trial for trial in trials if trial.kind.outcome == outcome]
        for effort in _EFFORTS:
            passed = sum(not trial.faults[effort] for trial in of_outcome)
            yield Figure(f"{what}, {effort}", passed, "kinds", "=", len(of_outcome))


async def _all_tried() -> list[Trial]:
    rows = DEMO.read_text(encoding="utf-8").splitlines()
    items = [Item.model_validate_json(row) for row in rows]
    tree = await asyncio.to_thread(tree_of, items)
    store = MemoryTreeStore(space=tree.space, settings=tree.settings)
    await store.stage(items)
    await store.replace(tree, base=0)
    with EndpointServer.opened() as server:
        return [await tried(server, kind, store, _HISTORY, _EFFORTS) for kind in KINDS]


def _print(trials: list[Trial]) -> None:
    table = Table(title="Kinds of endpoints", title_justify="left")
    for name in ("kind", "as", *_EFFORTS, "mode", "calls at the start"):
        table.add_column(name)
    for trial in trials:
        marks = [escape(trial.faults[effort]) or "✓" for effort in _EFFORTS]
        table.add_row(
            trial.kind.name,
            escape(trial.kind.source),
            *marks,
            trial.mode or "",
            str(trial.calls_at_start),
        )
    Console(width=160).print(table)

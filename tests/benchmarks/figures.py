"""A measured figure beside what it should be, and how figures are shown."""

import json
import operator
import sys
from collections.abc import Iterable
from dataclasses import asdict, dataclass

from rich.console import Console
from rich.table import Table

_COMPARISONS = {"≤": operator.le, "≥": operator.ge, "=": operator.eq}


@dataclass(frozen=True, slots=True)
class Figure:
    """One line of the report; `target` is None for a figure that is only shown."""

    what: str
    measured: float
    unit: str = ""
    relation: str = "≤"
    target: float | None = None

    @property
    def reached(self) -> bool | None:
        if self.target is None:
            return None
        return bool(_COMPARISONS[self.relation](self.measured, self.target))


def show(section: str, figures: Iterable[Figure], *, as_json: bool) -> bool:
    """Print one section; whether every target in it was reached."""
    rows = list(figures)
    if as_json:
        for row in rows:
            print(json.dumps({"section": section, **asdict(row), "reached": row.reached}))
        sys.stdout.flush()
    else:
        table = Table(title=section, title_justify="left", min_width=92)
        table.add_column("figure")
        table.add_column("measured", justify="right")
        table.add_column("target", justify="right")
        table.add_column("")
        for row in rows:
            goal = "" if row.target is None else f"{row.relation} {row.target:g} {row.unit}"
            mark = {True: "[green]✓[/green]", False: "[red]missed[/red]", None: ""}[row.reached]
            table.add_row(row.what, f"{row.measured:,.4g} {row.unit}", goal, mark)
        Console(width=110).print(table)
    return all(row.reached is not False for row in rows)

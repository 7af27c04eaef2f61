"""`evaluate wishes`: wishes in words, on one data set or several."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from app.cli.evaluation_options import Common
from app.cli.evaluation_setup import evaluating, loaded
from app.evaluation.choices import LeftOut

if TYPE_CHECKING:
    from app.evaluation.report import ResultRow, Results
    from app.evaluation.report.result_row import Scalar


@dataclass(frozen=True, slots=True)
class Catalogues:
    """The catalogues in which wishes look for items, and what is left out of them."""

    folders: Sequence[Path] = ()
    only_items: Path | None = None
    without: Sequence[LeftOut] = ()

    @property
    def settings(self) -> Mapping[str, "Scalar"]:
        """What a result depends on beside the files."""
        return {"without": ", ".join(sorted(self.without))} if self.without else {}


async def evaluated_wishes(
    common: Common, file: Path, catalogues: Catalogues, *, with_history: bool = False
) -> tuple["Results", list["ResultRow"]]:
    """The results, with one row per system and data set, and of all data sets where there are more.

    Raises Failed.
    """
    from app.evaluation.excerpt import excerpt
    from app.evaluation.formats.wishes import by_data, read_ids, read_wishes
    from app.evaluation.systems import systems
    from app.evaluation.wishes import SYSTEMS, Measured, over_all, trials

    async with evaluating(common) as opened:
        chosen = common.systems(opened.models, usual=SYSTEMS)
        systems(chosen, opened.context)  # wrong names are found before anything is read
        wishes = read_wishes(file)
        only, checksums = None, wishes.checksums
        if catalogues.only_items is not None:
            only, of_ids = read_ids(catalogues.only_items)
            checksums = checksums | of_ids
        parts: dict[str, list[Measured]] = {}
        groups = by_data(wishes, file, catalogues.folders)
        for folder, rows in groups.items():
            lines = _lines_for(folder, groups, common.enrichments or ())
            read = loaded([folder], common.format, None, opened.bar, lines)
            data = excerpt(read, only, catalogues.without)
            data.skipped.include(wishes.skipped)
            data = replace(data, checksums=data.checksums | checksums)
            found = trials(data, rows, chosen, catalogues.settings, with_history=with_history)
            evaluation = opened.evaluation(data, with_lists=False)
            parts[data.name] = [
                Measured(row, evaluation.measured[row.key]) async for row in evaluation.run(found)
            ]
        every = [one.row for part in parts.values() for one in part]
        if len(parts) > 1:
            known = {row.key: row.metrics for row in opened.results.rows()}
            for row in over_all(parts):
                every.append(row)
                if known.get(row.key) != row.metrics:
                    opened.results.append(row)
    return opened.results, every


def _lines_for(folder: Path, folders: Collection[Path], files: Sequence[Path]) -> list[Path]:
    """The files with lines for the data set in a folder: not those in other folders of data."""
    others = {other.resolve() for other in folders} - {folder.resolve()}
    return [file for file in files if file.resolve().parent not in others]

"""`report.html`: one file with tables and plots; it needs no network."""

import os
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from importlib.resources import files
from pathlib import Path
from string import Template
from tempfile import NamedTemporaryFile

from app.evaluation.metrics import PairedComparison
from app.evaluation.report import labels, plots
from app.evaluation.report.figures import figures
from app.evaluation.report.labels import Group
from app.evaluation.report.result_row import ResultRow
from app.evaluation.report.tables import Cell, TableColumn, TableData, tables_of

_SHORT = 15  # rows
_COMPARED = frozenset({"recall", "ndcg", "mrr", "ilad", "gauc"})
_PAIRED = (
    "The figure of each system as a share of the other system's, on the same users (paired "
    "bootstrap); bold where the interval of the difference excludes zero."
)


def html(rows: Sequence[ResultRow], title: str = "Evaluation") -> str:
    """The page. Without matplotlib, it has tables only and says how to get the plots."""
    found = labels.groups(rows)
    drawn = plots.available()
    names = [f"g{place}" for place in range(len(found))]
    places = {system: place for place, system in enumerate(_systems(rows))}
    versions = ", ".join(sorted({row.run.version for row in rows})) or "–"
    template = Template(files(__package__).joinpath("page.html").read_text("utf-8"))
    return template.substitute(
        title=escape(title),
        about=escape(
            f"{labels.several(len(rows), 'run')}, version {versions}. Below each value is "
            "its 95 % interval (bootstrap over users). Tokens are input tokens per user, "
            "calls and rounds are per user too."
        ),
        notice="" if drawn else f'<p class="warn">{escape(plots.MISSING)}</p>',
        links="".join(
            f'<a href="#{name}">{escape(group.title)}</a>'
            for name, group in zip(names, found, strict=True)
        ),
        sections="\n".join(
            _section(group, name, places if drawn else None)
            for name, group in zip(names, found, strict=True)
        ),
    )


def write(path: Path, rows: Sequence[ResultRow], title: str = "Evaluation") -> None:
    """Write the page, completely or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with NamedTemporaryFile("w", dir=path.parent, encoding="utf-8", delete=False) as file:
        try:
            file.write(html(rows, title))
            file.flush()
            os.fchmod(file.fileno(), 0o644)
            Path(file.name).replace(path)
        except BaseException:
            Path(file.name).unlink(missing_ok=True)
            raise


def _systems(rows: Sequence[ResultRow]) -> list[str]:
    return list(dict.fromkeys(row.run.system for row in rows))


def _section(group: Group, name: str, places: Mapping[str, int] | None) -> str:
    data = group.rows[0].run.data
    parts = [
        f'<section id="{name}"><h2>{escape(group.title)}</h2>',
        f"<p>{escape(_sizes(group))}</p>",
    ]
    if places is not None:
        for number, figure in enumerate(figures(group)):
            image = plots.svg(figure, f"{name}-{number}", places)
            parts.append(
                f"<h3>{escape(figure.title)}</h3>"
                f"<figure>{image}<figcaption>{escape(figure.caption)}</figcaption></figure>"
            )
    table = "".join(f'<div class="wide">{_table(each)}</div>' for each in tables_of(group, None))
    opened = " open" if len(group.rows) <= _SHORT else ""
    parts.append(f"<details{opened}><summary>All figures</summary>{table}</details>")
    if any(row.against and row.metrics for row in group.rows):
        parts.append(f"<h3>User by user</h3><p>{escape(_PAIRED)}</p>{_pairs(group.rows)}")
    if data.skipped:
        parts.append(f"<p>Skipped rows of the data: {escape(_counts(data.skipped))}.</p>")
    parts.append(f"<details><summary>How it was run</summary>{_facts(group.rows)}</details>")
    return "\n".join([*parts, "</section>"])


def _sizes(group: Group) -> str:
    data = group.rows[0].run.data
    sizes = [labels.several(data.items, "item"), labels.several(data.users, "user")]
    text = f"{', '.join(sizes)}, {labels.cases_of(group.rows)}"
    models = labels.models_of(group.rows)
    return f"{text}. Model: {models}" if models else text


def _table(table: TableData) -> str:
    head = "".join(map(_heading, table.columns))
    body = "".join(
        f"<tr><td>{escape(label)}</td>"
        + "".join(_cell(column.cells[row]) for column in table.columns)
        + "</tr>"
        for row, label in enumerate(table.labels)
    )
    return (
        f"<table><thead><tr><th>{escape(table.corner)}</th>{head}</tr></thead>"
        f"<tbody>{body}</tbody></table>"
    )


def _heading(column: TableColumn) -> str:
    below = f"<small>{escape(column.below)}</small>" if column.below else ""
    return f"<th>{escape(column.title)}{below}</th>"


def _cell(cell: Cell) -> str:
    value = f"<b>{cell.value}</b>" if cell.best else cell.value
    return f"<td>{value}{f'<small>{cell.interval}</small>' if cell.interval else ''}</td>"


def _pairs(rows: Sequence[ResultRow]) -> str:
    metrics = [metric for metric in labels.metrics_of(rows) if labels.base(metric) in _COMPARED]
    head = "".join(f"<th>{escape(labels.metric_name(metric))}</th>" for metric in metrics)
    body = "".join(
        f"<tr><td>{escape(f'{labels.label(row)} against {name}')}</td>"
        + "".join(_pair(found.get(metric)) for metric in metrics)
        + "</tr>"
        for row in rows
        for name, found in row.against.items()
    )
    return (
        f'<div class="wide"><table><thead><tr><th>systems</th>{head}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )


def _pair(found: PairedComparison | None) -> str:
    if found is None or found.ratio is None:
        return "<td>–</td>"
    ratio = found.ratio
    value, low, high = map(labels.share, (ratio.value, ratio.low, ratio.high))
    return f"<td>{f'<b>{value}</b>' if found.certain else value}<small>{low} – {high}</small></td>"


def _facts(rows: Sequence[ResultRow]) -> str:
    return (
        "<dl>"
        + "".join(
            f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in _facts_of(rows)
        )
        + "</dl>"
    )


def _facts_of(rows: Sequence[ResultRow]) -> Iterator[tuple[str, str]]:
    yield from ((f"SHA-256 of {name}", sum_) for name, sum_ in rows[0].run.data.checksums.items())
    yield "seeds", ", ".join(sorted({str(row.run.seed) for row in rows}))
    for row in rows:
        run = row.run
        details = [f"key {row.key}", f"version {run.version}"]
        details += [f"{name} {labels.scalar(value)}" for name, value in run.settings.items()]
        details += [f"prompt {name} {fingerprint}" for name, fingerprint in run.prompts.items()]
        details += [f"{stage}: {row.tokens(stage):,.0f} tokens" for stage in row.usage]
        details += [f"invalid answers: {_counts(row.flaws)}"] if row.flaws else []
        details += [f"trained {row.fit_s:.1f} s, answered {row.rank_s:.1f} s", row.ended]
        yield labels.label(row), " · ".join(filter(None, details))


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{n:,} {reason}" for reason, n in counts.items())

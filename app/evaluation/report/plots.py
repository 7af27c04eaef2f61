"""Figures as inline SVG, drawn by matplotlib; colours come from the style sheet of the page."""

import io
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from textwrap import wrap
from typing import TYPE_CHECKING

from app.evaluation.metrics import MetricEstimate
from app.evaluation.report.figures import Bars, Figure, Panel
from app.evaluation.report.labels import figure as number

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MISSING = "plots need matplotlib: pip install 'matplotlib>=3.10', or the extra [evaluation]"

# Placeholders that become variables of the style sheet, so that one plot serves light and dark.
_TEXT, _LINES = "#010203", "#010204"
_SERIES = [f"#0102{number:02x}" for number in range(16, 30)]
_VARIABLES = {
    _TEXT: "var(--ink)",
    _LINES: "var(--grid)",
    **{color: f"var(--series-{place})" for place, color in enumerate(_SERIES)},
}
_WIDTH = 9.6  # inches of a figure
_LETTER, _HANDLE, _LINE = 0.085, 0.6, 0.2  # inches of a legend: width, width, height
_LONGEST = 90  # letters of a line of a legend
_MOST_TICKS = 9
_MARKERS = "osD^vPX*<>hpd8"
_STYLE = {
    "svg.fonttype": "none",
    "text.parse_math": False,  # a system may be called "$x$"
    "font.size": 10,
    "text.color": _TEXT,
    "axes.edgecolor": _LINES,
    "axes.labelcolor": _TEXT,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.formatter.useoffset": False,
    "grid.color": _LINES,
    "grid.linewidth": 0.6,
    "xtick.color": _LINES,
    "ytick.color": _LINES,
    "xtick.labelcolor": _TEXT,
    "ytick.labelcolor": _TEXT,
    "legend.frameon": False,
    "lines.linewidth": 1.8,
    "lines.markersize": 5,
}


def available() -> bool:
    """Whether plots can be drawn."""
    from importlib.util import find_spec

    return find_spec("matplotlib") is not None


def svg(figure: Figure, name: str, places: Mapping[str, int]) -> str:
    """The figure as an `<svg>` element. `places` gives each system the same colour in all figures.

    `name` makes the ids of this figure unique on the page.
    """
    from matplotlib import rc_context
    from matplotlib.figure import Figure as Canvas

    with rc_context({**_STYLE, "svg.hashsalt": name}):
        canvas = Canvas(figsize=_size(figure), layout="constrained")
        axes = canvas.subplots(1, len(figure.panels), squeeze=False, sharey=_bars(figure))[0]
        for panel, own in zip(figure.panels, axes, strict=True):
            match panel:
                case Bars():
                    _draw_bars(own, panel, places)
                case Panel():
                    _draw_panel(own, panel, places)
        if not _bars(figure):
            handles, labels = axes[0].get_legend_handles_labels()
            if len(labels) > 1 or len(figure.panels) == 1:
                columns = _columns(labels)
                canvas.legend(handles, labels, loc="outside upper left", ncols=columns)
        buffer = io.StringIO()
        canvas.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    return _inline(buffer.getvalue(), name, figure.title)


def _size(figure: Figure) -> tuple[float, float]:
    if _bars(figure):
        count = max(len(panel.values) for panel in figure.panels if isinstance(panel, Bars))
        return _WIDTH, 0.9 + 0.31 * count
    panels = [panel for panel in figure.panels if isinstance(panel, Panel)]
    labels = [_shown(label) for label in (*panels[0].series, *panels[0].levels)]
    lines = math.ceil(len(labels) / _columns(labels)) * max(
        (label.count("\n") + 1 for label in labels), default=1
    )
    return (_WIDTH, (4.0 if len(panels) > 1 else 4.3) + _LINE * (lines - 1))


def _columns(labels: Sequence[str]) -> int:
    """The number of columns of a legend: as many as the longest label allows, in even rows."""
    longest = max((len(line) for label in labels for line in label.split("\n")), default=0)
    most = max(int(_WIDTH / (_LETTER * longest + _HANDLE)), 1)
    rows = math.ceil(len(labels) / most)
    return math.ceil(len(labels) / max(rows, 1)) or 1


def _bars(figure: Figure) -> bool:
    return all(isinstance(panel, Bars) for panel in figure.panels)


def _draw_bars(axes: "Axes", panel: Bars, places: Mapping[str, int]) -> None:
    furthest = max([estimate.high for estimate in panel.values.values()], default=1.0) or 1.0
    labels = list(panel.values)
    for row, (label, estimate) in enumerate(panel.values.items()):
        color = _color(panel.systems[label], places)
        axes.barh(row, estimate.value, height=0.62, color=color, alpha=0.85, linewidth=0)
        if estimate.low < estimate.high:
            bar = _errors([estimate])
            axes.errorbar(estimate.value, row, xerr=bar, color=_TEXT, linewidth=1.1, capsize=2.5)
        end = max(estimate.high, estimate.value) + furthest * 0.02
        axes.text(end, row, number(estimate.value), va="center", fontsize=9)
    axes.set_yticks(range(len(labels)), labels)
    axes.tick_params(axis="y", length=0)
    axes.grid(visible=False, axis="y")
    axes.set_xlim(min(0.0, *[estimate.low for estimate in panel.values.values()]), furthest * 1.16)
    axes.set_xlabel(panel.x)


def _draw_panel(axes: "Axes", panel: Panel, places: Mapping[str, int]) -> None:
    count = len(panel.series)
    for place, (label, points) in enumerate(panel.series.items()):
        color, marker = _color(label, places), _marker(label, places)
        shift = 0.5 * (place / max(count - 1, 1) - 0.5) if panel.ticks and count > 1 else 0.0
        x = [point.x + shift for point in points]
        y = [point.y.value for point in points]
        axes.plot(x, y, color=color, marker=marker, label=_shown(label))
        if panel.ticks or any(point.x_estimate for point in points):
            wide = [point.x_estimate for point in points if point.x_estimate]
            axes.errorbar(
                x,
                y,
                yerr=_errors([point.y for point in points]),
                xerr=_errors(wide) if len(wide) == len(points) else None,
                color=color,
                alpha=0.55,
                linewidth=0,
                elinewidth=1.1,
            )
        else:
            low, high = [p.y.low for p in points], [p.y.high for p in points]
            axes.fill_between(x, low, high, color=color, alpha=0.15, linewidth=0)
        for point in points:
            if point.note:
                at = (point.x, point.y.value)
                axes.annotate(point.note, at, xytext=(5, 4), textcoords="offset points", fontsize=8)
    for label, level in panel.levels.items():
        color = _color(label, places)
        axes.axhline(level.value, color=color, linestyle="--", label=_shown(label))
        axes.axhspan(level.low, level.high, color=color, alpha=0.1, linewidth=0)
    _scale(axes, panel)


def _scale(axes: "Axes", panel: Panel) -> None:
    if panel.ticks:
        axes.set_xticks(range(len(panel.ticks)), panel.ticks)
        axes.grid(visible=False, axis="x")
    if panel.log_x:
        ticks, *ends = _logarithmic(point.x for own in panel.series.values() for point in own)
        axes.set_xscale("log")
        axes.set_xticks(ticks, map(_short, ticks))
        axes.set_xlim(*ends)
    if panel.log_y:
        ticks, *ends = _logarithmic(p.y.value for own in panel.series.values() for p in own)
        axes.set_yscale("log")
        axes.set_yticks(ticks, map(_short, ticks))
        axes.set_ylim(*ends)
    elif not any(point.x_estimate for points in panel.series.values() for point in points):
        axes.set_ylim(bottom=0)
    axes.minorticks_off()
    axes.set_xlabel(panel.x)
    axes.set_ylabel(panel.y)


def _logarithmic(values: Iterable[float]) -> tuple[list[float], float, float]:
    """Ticks at round numbers, at least two, and the two ends of an axis around the values."""
    found = [value for value in values if value > 0] or [1.0]
    low, high = min(found), max(found)
    powers = range(math.floor(math.log10(low)) - 1, math.ceil(math.log10(high)) + 2)
    round_numbers = [float(f"{step}e{power}") for power in powers for step in (1, 2, 5)]
    start = max(place for place, tick in enumerate(round_numbers) if tick <= low)
    end = min(place for place, tick in enumerate(round_numbers) if tick >= high and place > start)
    ticks = round_numbers[start : end + 1]
    if len(ticks) > _MOST_TICKS:
        ticks = [tick for tick in ticks if round_numbers.index(tick) % 3 == 0]  # powers of ten
        ticks = ticks[:: math.ceil(len(ticks) / _MOST_TICKS)]
    return ticks, round_numbers[start] / 1.1, round_numbers[end] * 1.1


def _short(value: float) -> str:
    """A number as short text: `10k`, `1M`."""
    for size, unit in ((1_000_000, "M"), (1_000, "k")):
        if value >= size:
            return f"{value / size:g}{unit}"
    return f"{value:g}"


def _errors(estimates: Sequence[MetricEstimate]) -> list[list[float]]:
    return [
        [max(estimate.value - estimate.low, 0.0) for estimate in estimates],
        [max(estimate.high - estimate.value, 0.0) for estimate in estimates],
    ]


def _place(label: str, places: Mapping[str, int]) -> int:
    """The place of a label's system: the longest name with which the label begins."""
    fitting = [system for system in places if label.startswith(system)]
    return places[max(fitting, key=len)] if fitting else 0


def _color(label: str, places: Mapping[str, int]) -> str:
    return _SERIES[_place(label, places) % len(_SERIES)]


def _marker(label: str, places: Mapping[str, int]) -> str:
    place = _place(label, places)
    return _MARKERS[(place + place // len(_SERIES)) % len(_MARKERS)]


def _shown(label: str) -> str:
    """The label in lines that fit. Matplotlib omits labels that begin with an underscore."""
    text = "\n".join(wrap(label, _LONGEST))
    return f"\u200b{text}" if text.startswith("_") else text


def _inline(document: str, name: str, title: str) -> str:
    from html import escape

    text = document[document.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r'\bid="', f'id="{name}-', text)
    text = re.sub(r'(href="#|url\(#)', rf"\g<1>{name}-", text)
    text = re.sub(r'(<svg\b[^>]*?) width="[^"]*"', r"\1", text, count=1)
    text = re.sub(r'(<svg\b[^>]*?) height="[^"]*"', r"\1", text, count=1)
    for color, variable in _VARIABLES.items():
        text = text.replace(color, variable)
    return text.replace("<svg", f'<svg role="img" aria-label="{escape(title)}"', 1)

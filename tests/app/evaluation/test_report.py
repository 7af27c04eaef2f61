import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree

import msgspec
import pytest

from app.evaluation.metrics import MetricEstimate, PairedComparison
from app.evaluation.report import Bucket, Data, ResultRow, labels
from app.evaluation.report.figures import Bars, Panel, figures
from app.evaluation.report.page import html, write
from app.evaluation.report.plots import svg
from tests.app.evaluation.rendering import page_of, printed_of
from tests.app.evaluation.sample_rows import COMPARED, GROWN, SYSTEMS, estimate, row

TRAINED = [
    row("SASRec", 0.1 * share, study="training", parameters={"training_share": share})
    for share in (1.0, 0.1, 0.5)
] + [row("beam", 0.06, study="training")]
VARIED = [
    row("beam", study="diversity", parameters={"diversity": value}) for value in (0.0, 0.3, 1.0)
]


def test_other_data_of_the_same_name_is_not_compared() -> None:
    other = Data(name="films", checksums={"items.jsonl": "zz"})
    found = labels.groups([row("beam"), row("beam", data=other), row("flat")])
    assert [[each.run.system for each in group.rows] for group in found] == [
        ["beam", "flat"],
        ["beam"],
    ]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        *[(0.05741, ".0574"), (0.5741, ".574"), (-0.25, "-.250"), (3.214, "3.21"), (0.0, ".0000")],
        *[(45.67, "45.7"), (12_345.6, "12,346"), (1.0, "1.00")],
    ],
)
def test_figures_have_three_significant_digits(value: float, text: str) -> None:
    assert labels.figure(value) == text


def test_bounds_have_the_decimals_of_their_value() -> None:
    assert labels.bounds(MetricEstimate(0.104, 0.0891, 0.1222, 9)) == ".089 – .122"


def test_buckets_are_ordered_by_length_of_history() -> None:
    given = ["50+", "2–4", "0, with a profile", "10–49", "5–9", "1", "books → films"]
    assert labels.bucket_order(given) == [
        *["0, with a profile", "1", "2–4", "5–9", "10–49", "50+", "books → films"]
    ]


def test_the_lowest_gini_is_the_best_and_no_novelty_is() -> None:
    low, high = (
        msgspec.structs.replace(
            row(), metrics={"gini@20": estimate(gini), "novelty@20": estimate(gini)}
        )
        for gini in (0.2, 0.9)
    )
    assert labels.best([low, high], "gini@20") == 0.2
    assert labels.best([low, high], "novelty@20") is None


def _titles(rows: Sequence[ResultRow]) -> list[str]:
    (group,) = labels.groups(rows)
    return [figure.title for figure in figures(group)]


def test_rows_decide_which_plots_are_drawn() -> None:
    assert _titles(COMPARED) == [
        *["Systems side by side", "Cold start", "Diversity against relevance", "Tokens by stage"]
    ]
    assert _titles(TRAINED) == ["Amount of training data"]
    assert _titles(GROWN) == ["Tokens against catalogue size"]
    assert _titles(VARIED) == ["Diversity against relevance"]
    assert _titles([row("paper", study="k", parameters={"k": k}) for k in (1, 5)]) == [
        "Items per leaf"
    ]


def test_zeros_and_small_buckets_are_not_drawn() -> None:
    lost = [
        msgspec.structs.replace(row(name), metrics={"recall@20": _LOST, "ilad@20": _LOST})
        for name in "ab"
    ]
    assert _titles(lost) == ["Cold start"]
    few = {name: Bucket(cases=19, metrics=_PART) for name in ("1", "2–4")}
    assert _titles([msgspec.structs.replace(each, buckets=few) for each in lost]) == []


_TEXT = re.compile(r'<text[^>]*?(?:transform="translate\(| x=")([\d.]+)[^>]*>([^<]*)<')


def test_a_legend_ends_within_its_plot() -> None:
    names = [f"beam:effort=balanced,perspective={n}" for n in range(7)]
    rows = [
        row(name, tokens=900 * size, study="tokens", parameters={"catalogue_size": size})
        for name in names
        for size in (1_000, 9_000)
    ]
    (figure,) = figures(labels.groups(rows)[0])
    image = svg(figure, "f", dict.fromkeys(names, 0))
    box = re.search(r'viewBox="0 0 ([\d.]+)', image)
    assert box
    placed = [(float(x), text) for x, text in _TEXT.findall(image) if text.startswith("beam:")]
    assert len(placed) == len(names)
    assert max(x + 5.5 * len(text) for x, text in placed) <= float(box[1])


@pytest.mark.parametrize("sizes", [(1_000, 1_001), (3_000, 4_900), (900, 9_000), (1, 70_000_000)])
def test_logarithmic_axes_have_ticks(sizes: tuple[int, int]) -> None:
    rows = [row(tokens=size, study="tokens", parameters={"catalogue_size": size}) for size in sizes]
    (figure,) = figures(labels.groups(rows)[0])
    texts = [text for _, text in _TEXT.findall(svg(figure, "f", {"beam": 0}))]
    marks = [text for text in texts if re.fullmatch(r"\d+[kM]?", text)]
    assert 4 <= len(marks) <= 20  # of both axes
    assert all(marks.count(mark) == 2 for mark in marks)


def test_training_shares_are_in_order_and_zero_shot_is_a_level() -> None:
    (figure,) = figures(labels.groups(TRAINED)[0])
    panel = figure.panels[0]
    assert isinstance(panel, Panel)
    assert [(point.x, point.y.value) for point in panel.series["SASRec"]] == [
        *[(10.0, pytest.approx(0.01)), (50.0, pytest.approx(0.05)), (100.0, pytest.approx(0.1))]
    ]
    assert list(panel.levels) == ["beam"]


def test_tokens_are_per_user_with_their_growth() -> None:
    (figure,) = figures(labels.groups(GROWN)[0])
    panel = figure.panels[0]
    assert isinstance(panel, Panel)
    assert list(panel.series) == ["beam (× 1.7)", "flat (× 1000.0)"]
    assert [point.y.value for point in panel.series["beam (× 1.7)"]] == [3_000, 5_100]
    assert (panel.log_x, panel.log_y) == (True, True)


def test_topics_are_the_most_common_of_the_targets() -> None:
    shares = {f"topic {n:02}": n / 100 for n in range(14)}
    topics = {"targets": shares, "answers": {"topic 13": 1.0}}
    rows = [msgspec.structs.replace(row(study=study), topics=topics) for study in ("topics", "k")]
    (figure,), others = (list(figures(group)) for group in labels.groups(rows))
    assert others == []
    targets, answers = figure.panels
    assert isinstance(targets, Bars)
    assert isinstance(answers, Bars)
    assert list(targets.values)[-1] == "topic 13"
    assert len(targets.values) == 10
    assert answers.values["topic 04"].value == 0


_LOST = MetricEstimate(0.0, 0.0, 0.0, 60)
_PART = {name: estimate(0.2) for name in ("recall@20", "ndcg@20")}
_BARE = msgspec.structs.replace(row(), metrics={}, buckets={})
_NDCG_ONLY = msgspec.structs.replace(row("flat"), metrics={"ndcg@20": estimate(0.1)})


@pytest.mark.parametrize(
    "rows",
    [
        [],
        [_BARE],
        [row()],
        [_BARE, _NDCG_ONLY],
        [row(), _NDCG_ONLY, _BARE],
        [msgspec.structs.replace(row(name), metrics={"recall@20": _LOST}) for name in "ab"],
        GROWN[:1],
        TRAINED[:1],
        TRAINED[-1:],
        VARIED[:1],
        [row(study="k", parameters={"k": None}), row("b", study="k", parameters={"k": 3})],
        [row(f"system {n}", n / 50) for n in range(40)],
    ],
    ids=str.split(
        "nothing bare one partial mixed lost one-size one-share zero-shot one-knob odd many"
    ),
)
def test_incomplete_rows_are_shown(rows: list[ResultRow]) -> None:
    _, page = page_of(rows)
    printed = printed_of(rows, 80)
    for each in rows:
        assert each.run.system in page.text
        assert each.run.system in printed


def test_the_page_loads_nothing() -> None:
    content, page = page_of([*COMPARED, *TRAINED, *GROWN, *VARIED])
    for tag, attributes in page.tags:
        assert tag not in {"script", "link", "iframe", "object", "embed", "base", "form"}
        for name in ("src", "href", "xlink:href", "srcset", "action"):
            assert (attributes.get(name) or "#").startswith("#"), (tag, attributes)
    assert not re.search(r"@import|url\((?!#)", content)
    assert sum(tag == "svg" for tag, _ in page.tags) == 7


def test_contents_name_the_protocol() -> None:
    content, _ = page_of([row(protocol="temporal"), row(protocol="impressions")])
    assert '<a href="#g1">compare · films · impressions</a>' in content


def test_ids_are_unique_and_references_resolve() -> None:
    _, page = page_of([*COMPARED, *TRAINED, *GROWN, *VARIED])
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    values = [value or "" for _, attributes in page.tags for value in attributes.values()]
    wanted = {ref for value in values for ref in re.findall(r"url\(#([^)]*)\)", value)}
    wanted |= {value[1:] for value in values if value.startswith("#")}
    assert wanted
    assert wanted <= set(ids)


def test_systems_are_compared_user_by_user() -> None:
    pair = PairedComparison(
        MetricEstimate(0.02, 0.01, 0.03, 60), MetricEstimate(1.25, 1.1, 1.4, 60)
    )
    doubtful = PairedComparison(
        MetricEstimate(0.02, -0.01, 0.03, 60), MetricEstimate(0.97, 0.9, 1.04, 60)
    )
    compared = msgspec.structs.replace(
        row(), against={"flat": {"recall@20": pair, "ndcg@20": doubtful}}
    )
    content, page = page_of([compared])
    assert "beam against flat" in page.text
    assert "<b>125.0 %</b><small>110.0 % – 140.0 %</small>" in content
    assert "<td>97.0 %<small>90.0 % – 104.0 %</small>" in content
    assert "Recall@20 125.0 % (110.0 % – 140.0 %), NDCG@20 97.0 %" in printed_of([compared], 300)


EVIL = '<script>alert("1")</script>&amp;$title {x} _y'


def test_foreign_text_is_escaped() -> None:
    data = Data(name=EVIL, checksums={EVIL: EVIL}, skipped={EVIL: 1})
    rows = [
        msgspec.structs.replace(
            row(name, data=data, study=study, protocol=EVIL, settings={EVIL: EVIL}),
            flaws={EVIL: 2},
            topics={"targets": {EVIL: 0.5}},
        )
        for study in (EVIL, "topics")
        for name in (EVIL, "_beam $a$ </text></svg>")
    ]
    content, page = page_of(rows)
    assert "<script" not in content
    assert all(tag != "script" for tag, _ in page.tags)
    assert page.text.count(EVIL) > 10
    assert "_beam $a$ </text></svg>" in page.text


def test_plots_take_their_colours_from_the_page() -> None:
    (group,) = labels.groups(COMPARED)
    used: set[str] = set()
    for number, figure in enumerate(figures(group)):
        image = svg(figure, f"f{number}", {name: place for place, name in enumerate(SYSTEMS)})
        ElementTree.fromstring(image)
        used.update(re.findall(r"var\(--([a-z0-9-]+)\)", image))
        assert not re.search(r"#[0-9a-f]{6}\b", image.replace("#ffffff", ""))
    assert used == {"ink", "grid", "series-0", "series-1", "series-2", "series-3"}
    styles = html([])
    for variable in used:
        assert styles.count(f"--{variable}:") == 2  # light and dark


def test_the_same_rows_give_the_same_page() -> None:
    assert html(COMPARED) == html(COMPARED)


def test_a_page_is_written_completely_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "reports" / "report.html"
    write(path, COMPARED)
    write(path, [])
    assert path.read_text().startswith("<!doctype html>")
    assert [found.name for found in path.parent.iterdir()] == ["report.html"]


_WITHOUT = """
import sys
sys.modules["matplotlib"] = None
from app.evaluation.report.page import html
from tests.app.evaluation.sample_rows import row
page = html([row("beam"), row("flat")])
assert "<svg" not in page and "pip install" in page and "flat" in page, page
"""

_LAZY = """
import sys
import app.evaluation.report, app.evaluation.metrics, app.evaluation.report.page
print(sorted({"matplotlib", "scipy", "sklearn"} & set(sys.modules)))
"""


def test_without_matplotlib_the_page_has_its_tables_and_says_how_to_get_plots() -> None:
    subprocess.run([sys.executable, "-c", _WITHOUT], check=True, cwd=Path.cwd())


def test_heavy_libraries_are_loaded_where_they_are_used() -> None:
    done = subprocess.run([sys.executable, "-c", _LAZY], check=True, capture_output=True, text=True)
    assert done.stdout == "[]\n"

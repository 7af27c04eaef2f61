"""Tables: the same on every terminal and on the page."""

import re

import msgspec
import pytest

from app.evaluation.report import Bucket, Data, ModelUsage, as_json, labels
from app.evaluation.report.figures import Panel, figures
from tests.app.evaluation.rendering import page_of, printed_of
from tests.app.evaluation.sample_rows import COMPARED, GROWN, SYSTEMS, estimate, row

_PART = {name: estimate(0.2) for name in ("recall@20", "ndcg@20")}
_LENGTHS = {"0, with a profile": 140, "1": 120, "2–4": 90, "5–9": 30, "10–49": 1}
_BY_BUCKET = [
    msgspec.structs.replace(
        row(name, study="coldstart"),
        metrics={},
        buckets={
            bucket: Bucket(
                cases=cases, metrics={m: estimate(0.01 * cases + len(name)) for m in _PART}
            )
            for bucket, cases in _LENGTHS.items()
        },
    )
    for name in SYSTEMS
]


@pytest.mark.parametrize("width", [36, 60, 80, 120, 200])
def test_no_value_is_cut_on_any_terminal(width: int) -> None:
    printed = printed_of(COMPARED, width)
    assert max(map(len, printed.splitlines()[1:])) <= width
    for name in SYSTEMS:
        assert name in printed
    for each in COMPARED:
        for metric in ("recall@20", "ndcg@20", "x_random@20", "ilad@20"):
            found = each.metrics[metric]
            assert labels.figure(found.value) in printed
            assert labels.bounds(found) in printed
    assert "2,700" in printed  # tokens
    assert "120" in printed  # users/s


@pytest.mark.parametrize("width", [40, 60, 80, 200])
def test_buckets_are_not_cut_without_overall_figures(width: int) -> None:
    printed = printed_of(_BY_BUCKET, width)
    assert max(map(len, printed.splitlines()[1:])) <= width
    for each in _BY_BUCKET:
        assert each.run.system in printed
        for bucket in each.buckets.values():
            assert labels.bounds(bucket.metrics["recall@20"]) in printed
    assert re.search(r"\b1 case\b(?!s)", printed)
    assert not re.search(r"–\s*│", printed)  # no empty cell
    assert "MRR" not in printed


def test_rows_measured_by_bucket_only_have_their_tables_and_plot_on_the_page() -> None:
    _, page = page_of(_BY_BUCKET)
    for rows in (_BY_BUCKET, _BY_BUCKET[:1]):
        (group,) = labels.groups(rows)
        assert [figure.title for figure in figures(group)] == ["Cold start"]
    assert page.text.count("0, with a profile") >= 2  # of recall and of NDCG
    bounds = labels.bounds(_BY_BUCKET[0].buckets["10–49"].metrics["recall@20"])
    assert page.text.count(bounds) == 2


_ASKED = [
    msgspec.structs.replace(
        row(
            "beam",
            study="tokens",
            parameters={"catalogue_size": 1_000},
            settings={"llm_model": "word-overlap (stand-in)", "llm_rerank_model": "large"},
        ),
        metrics={},
        buckets={},
        usage={
            "rerank": ModelUsage(calls=60, rounds=60, input_tokens=60 * 815),
            "recall": ModelUsage(calls=120, rounds=60, input_tokens=60 * 2_097),
        },
    )
]


def test_tables_of_tokens_have_costs_by_stage() -> None:
    printed = printed_of(_ASKED, 100)
    head = next(line for line in printed.splitlines() if "calls" in line)
    values = next(line for line in printed.splitlines() if "1,000" in line)
    assert re.search(r"system.*tokens.*tokens.*tokens.*calls.*rounds", head)
    assert re.search(r"recall.*rerank.*total", printed)
    assert re.findall(r"[\d.,]+", values)[1:] == ["2,097", "815", "2,912", "3.0", "2.0"]
    assert "interval" not in printed
    _, page = page_of(_ASKED)
    assert re.search(r"2,097\s*815\s*2,912\s*3.0\s*2.0", page.text)
    assert "Recall" not in printed + page.text
    (stored,) = msgspec.json.decode(msgspec.json.encode(as_json(_ASKED)))["rows"]
    assert (stored["metrics"], stored["usage"]["recall"]["calls"]) == ({}, 120)


def test_measured_rows_of_tokens_have_costs_too() -> None:
    assert "Recall" not in printed_of(GROWN, 120)
    assert "10–49" not in printed_of(GROWN, 120)


def test_the_models_are_named() -> None:
    models = "word-overlap (stand-in), rerank by large"
    assert f"model: {models}" in printed_of(_ASKED, 100)
    assert f"Model: {models}" in page_of(_ASKED)[1].text
    other = row("flat", study="tokens", settings={"llm_model": "small"})
    assert f"model: {models} (beam); small (flat)" in printed_of([*_ASKED, other], 100)
    assert "model:" not in printed_of(COMPARED, 100)


def test_a_wide_terminal_has_one_line_per_system() -> None:
    printed = printed_of(COMPARED, 200)
    line = next(line for line in printed.splitlines() if "item-kNN" in line)
    assert ".0600 .0480 – .0750" in line
    assert "1,800" in line


def test_chosen_metrics_are_the_columns_and_the_largest_k_counts() -> None:
    printed = printed_of(COMPARED, 120, metrics=["ilad", "recall@10", "unheard-of"])
    header = printed.splitlines()[2]
    assert re.search(r"ILAD@20.*Recall@10", header)
    assert "Recall@20" not in header
    assert "unheard" not in printed


def test_names_are_text_and_not_markup() -> None:
    assert "[red]beam[/red] $x$" in printed_of([row("[red]beam[/red] $x$")], 200)


def test_skipped_rows_and_invalid_items_are_reported() -> None:
    data = Data(name="films", checksums={}, skipped={"without a title": 12})
    flawed = msgspec.structs.replace(row("beam", data=data), flaws={"repeated": 3})
    printed = printed_of([flawed], 120)
    assert "12 without a title" in printed
    assert "beam gave invalid items: 3 repeated" in printed


def test_lengths_of_few_cases_are_not_drawn() -> None:
    (figure,) = figures(labels.groups(_BY_BUCKET)[0])
    panel = figure.panels[0]
    assert isinstance(panel, Panel)
    assert list(panel.ticks) == ["0, with a profile", "1", "2–4", "5–9"]
    assert "fewer than 20" in figure.caption

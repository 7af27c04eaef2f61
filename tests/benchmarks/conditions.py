"""What becomes of the answers under bias, several interests, exclusions and other settings."""

import asyncio
import random

import numpy as np

from tests.benchmarks.figures import Figure
from tests.benchmarks.judge import top
from tests.benchmarks.judged import Flaws
from tests.benchmarks.quality import tree_of
from tests.benchmarks.readers import Catalogue, Means, Reader, ask_all, covered, of_three_interests

_BIASES = (0.0, 0.1, 0.2, 0.4)
_BIAS_READERS = 40
_INTERESTED = 60
_MOST_EXCLUDED = 10_000
_SETTING_READERS = 40
_EXCLUSION_READERS = 150  # a difference of .03 is lost in the noise of fewer
_WEIGHTS = (0.5, 0.7, 0.85, 1.0)


async def biases(catalogue: Catalogue) -> list[Figure]:
    """Slates off by more and more: with anchors to put them on one scale, and without."""
    figures = []
    readers = catalogue.readers[:_BIAS_READERS]
    for effort in ("quality", "balanced"):
        for anchors in (None, 0):
            settings = {} if anchors is None else {"llm_anchors": anchors}
            how = f"{catalogue.name}, {effort}, {'no anchors' if anchors == 0 else 'anchors'}"
            shares = []
            for bias in _BIASES:
                bench = await catalogue.bench(Flaws(bias=bias), settings=settings)
                shares.append(Means.of(await ask_all(bench, readers, effort=effort)).share)
                figures.append(Figure(f"{how}: share at a slate bias of ± {bias:g}", shares[-1]))
            target = 0.95 if anchors is None and effort == "quality" else None
            figures.append(
                Figure(f"{how}: share at ± {_BIASES[-1]:g} over share at 0",
                       shares[-1] / shares[0], "", "≥", target)
            )  # fmt: skip
    return figures


async def interests(catalogue: Catalogue) -> list[Figure]:
    """How many of three interests an answer serves."""
    readers = of_three_interests(catalogue.tree, _INTERESTED)
    bench = await catalogue.bench()
    figures = []
    for way, request, target in (
        ("balanced", {}, 0.9),
        ("quality", {"effort": "quality"}, None),
        ("economy", {"effort": "economy"}, None),
        ("embedded", {"strategy": "embedded"}, None),
        ("the paper's search", {"strategy": "paper"}, None),
    ):
        asked = await ask_all(bench, readers, **request)
        share = np.mean(
            [
                covered(catalogue.tree, reader, [item.item_id for item in one.answer.items])
                for reader, one in zip(readers, asked, strict=True)
            ]
        )
        what = f"{catalogue.name}, {way}: interests covered of three"
        figures.append(Figure(what, float(share), "", "≥", target))
    own = np.mean([covered(catalogue.tree, reader, _own(catalogue, reader)) for reader in readers])
    what = f"{catalogue.name}, the judge's own top 20: interests covered of three"
    return [*figures, Figure(what, float(own))]


def _own(catalogue: Catalogue, reader: Reader) -> list[str]:
    best = top(catalogue.judge.relevance(reader.history))
    return [catalogue.items[at].id for at in best]


async def exclusions(catalogue: Catalogue) -> list[Figure]:
    """Half of the catalogue excluded by the request, against a tree that never held it.

    Readers have read in the other half only.
    """
    ids = [item.id for item in catalogue.items]
    gone = random.Random(11).sample(ids, min(len(ids) // 2, _MOST_EXCLUDED))
    out = set(gone)
    left = [item for item in catalogue.items if item.id not in out]
    histories = ([i for i in reader.history if i not in out] for reader in catalogue.readers)
    readers = [Reader(history) for history in histories if len(history) >= 2]
    readers = readers[:_EXCLUSION_READERS]
    tree = await asyncio.to_thread(tree_of, left)
    rebuilt = await catalogue.bench(tree=tree, without=gone)
    excluded = await catalogue.bench(without=gone)
    without = Means.of(await ask_all(rebuilt, readers))
    by_request = Means.of(await ask_all(excluded, readers, exclude_items=gone))
    what = f"{catalogue.name}, {len(gone):,} of {len(ids):,} excluded"
    return [
        Figure(f"{what}: share of the judge's top 20", by_request.share),
        Figure(f"{what}: share by a tree without them", without.share),
        Figure(f"{what}: how much lower", without.share - by_request.share, "", "≤", 0.03),
    ]


async def settings(catalogue: Catalogue) -> list[Figure]:
    """Who chooses branches, and how much the model's order counts."""
    figures = []
    readers = catalogue.readers[:_SETTING_READERS]
    for name, values in (
        ("llm_branches", ("model", "embedded", "union")),
        ("llm_weight", _WEIGHTS),
    ):
        for value in values:
            bench = await catalogue.bench(settings={name: value})
            means = Means.of(await ask_all(bench, readers))
            what = f"{catalogue.name}, {name}={value}: share ({means.tokens:,.0f} tokens)"
            figures.append(Figure(what, means.share))
    return figures

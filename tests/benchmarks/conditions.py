"""Quality of answers with bias, several interests, exclusions and other settings."""

import asyncio
import random

import numpy as np

from tests.benchmarks.figures import Figure
from tests.benchmarks.judge import top
from tests.benchmarks.judged_chain import Flaws
from tests.benchmarks.quality import tree_of
from tests.benchmarks.users import BenchUser, Catalogue, Means, ask_all, covered, of_three_interests

_BIASES = (0.0, 0.1, 0.2, 0.4)
_BIAS_USERS = 40
_INTEREST_USERS = 60
_MOST_EXCLUDED = 10_000
_SETTING_USERS = 40
_EXCLUSION_USERS = 150  # with fewer, a difference of .03 is within the noise
_WEIGHTS = (0.5, 0.7, 0.85, 1.0)


async def biases(catalogue: Catalogue) -> list[Figure]:
    """Quality by offset per slate, with anchors that put slates on one scale, and without."""
    figures = []
    users = catalogue.users[:_BIAS_USERS]
    for anchors in (None, 0):
        settings = {} if anchors is None else {"llm_anchors": anchors}
        how = f"{catalogue.name}, walk, {'no anchors' if anchors == 0 else 'anchors'}"
        shares = []
        for bias in _BIASES:
            bench = await catalogue.bench(Flaws(bias=bias), settings=settings)
            shares.append(Means.of(await ask_all(bench, users, strategy="walk")).share)
            figures.append(Figure(f"{how}: share at a slate bias of ± {bias:g}", shares[-1]))
        target = 0.95 if anchors is None else None
        figures.append(
            Figure(f"{how}: share at ± {_BIASES[-1]:g} over share at 0",
                   shares[-1] / shares[0], "", "≥", target)
        )  # fmt: skip
    return figures


async def interests(catalogue: Catalogue) -> list[Figure]:
    """The share of three interests that an answer covers."""
    users = of_three_interests(catalogue.tree, _INTEREST_USERS)
    bench = await catalogue.bench()
    figures = []
    for way, request, target in (
        ("economy", {"effort": "economy"}, 0.9),
        ("walk", {"strategy": "walk"}, None),
        ("embedded", {"strategy": "embedded"}, None),
        ("the paper's search", {"strategy": "paper"}, None),
    ):
        asked = await ask_all(bench, users, **request)
        share = np.mean(
            [
                covered(catalogue.tree, user, [item.item_id for item in one.answer.items])
                for user, one in zip(users, asked, strict=True)
            ]
        )
        what = f"{catalogue.name}, {way}: interests covered of three"
        figures.append(Figure(what, float(share), "", "≥", target))
    own = np.mean([covered(catalogue.tree, user, _own(catalogue, user)) for user in users])
    what = f"{catalogue.name}, the judge's own top 20: interests covered of three"
    return [*figures, Figure(what, float(own))]


def _own(catalogue: Catalogue, user: BenchUser) -> list[str]:
    best = top(catalogue.judge.relevance(user.history))
    return [catalogue.items[at].id for at in best]


async def exclusions(catalogue: Catalogue) -> list[Figure]:
    """Half of the catalogue excluded by the request, compared with a tree without that half.

    Histories have items of the other half only.
    """
    ids = [item.id for item in catalogue.items]
    excluded_ids = random.Random(11).sample(ids, min(len(ids) // 2, _MOST_EXCLUDED))
    excluded_set = set(excluded_ids)
    left = [item for item in catalogue.items if item.id not in excluded_set]
    histories = ([i for i in user.history if i not in excluded_set] for user in catalogue.users)
    users = [BenchUser(history) for history in histories if len(history) >= 2]
    users = users[:_EXCLUSION_USERS]
    tree = await asyncio.to_thread(tree_of, left)
    rebuilt = await catalogue.bench(tree=tree, without=excluded_ids)
    excluded = await catalogue.bench(without=excluded_ids)
    without = Means.of(await ask_all(rebuilt, users))
    by_request = Means.of(await ask_all(excluded, users, exclude_items=excluded_ids))
    what = f"{catalogue.name}, {len(excluded_ids):,} of {len(ids):,} excluded"
    return [
        Figure(f"{what}: share of the judge's top 20", by_request.share),
        Figure(f"{what}: share by a tree without them", without.share),
        Figure(f"{what}: loss", without.share - by_request.share, "", "≤", 0.03),
    ]


async def settings(catalogue: Catalogue) -> list[Figure]:
    """Quality by how branches are chosen, and by the weight of the model."""
    figures = []
    users = catalogue.users[:_SETTING_USERS]
    for name, values in (
        ("llm_branches", ("model", "embedded", "union")),
        ("llm_weight", _WEIGHTS),
    ):
        for value in values:
            bench = await catalogue.bench(settings={name: value})
            means = Means.of(await ask_all(bench, users, strategy="walk"))
            what = f"{catalogue.name}, {name}={value}: share ({means.tokens:,.0f} tokens)"
            figures.append(Figure(what, means.share))
    return figures

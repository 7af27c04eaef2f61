"""Cost and quality of the chain with a model, compared with the paper's search.

A scripted judge replaces the model, see `judge`. Its scores have a noise of .1 and an offset of up
to ± .1 per slate. Profiles are cached unless a figure says otherwise.
"""

import asyncio
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context

import numpy as np

from app.llm.tokens import vocabulary
from tests.benchmarks import calls, conditions, data
from tests.benchmarks.figures import Figure
from tests.benchmarks.judge import Judge
from tests.benchmarks.judged_chain import Flaws
from tests.benchmarks.quality import tree_of
from tests.benchmarks.users import Catalogue, Means, ask_all, of_themes

_USERS = 60  # per catalogue, unless a figure needs more
_MOST_USERS = 200
_SMALLER = 6_000
_SIZE = 1_000_000
_SIZE_USERS = 20

Limits = tuple[float | None, float | None, float | None]  # input tokens, calls, rounds

_UNLIMITED: Limits = (None, None, None)
_WALK: dict[str, Limits] = {
    "mind": (4_000, 5, 3),
    "amazon_games, 6,000 items": (5_500, 5, 4),
    "amazon_cds": (7_000, 7, 5),
    "synthetic": (7_500, 9, 5),
}
_ECONOMY: Limits = (2_000, 1, 1)
_WAYS: dict[str, dict[str, object]] = {
    "economy": {"effort": "economy"},
    "walk": {"strategy": "walk"},
    "embedded": {"strategy": "embedded"},
    "paper": {"strategy": "paper"},
}
_OURS = ("economy", "walk")
_LATENCY = Flaws(latency_s=0.3, latency_per_token_s=0.0001)
_CONCURRENT = 6
_TIMED = ("mind", "amazon_cds")
_BIASED = ("amazon_games", "ml_latest_small")
_VARIED = ("amazon_games", "amazon_cds")


def real() -> Iterator[Figure]:
    """The real catalogues, each in its own process; then timed figures, one at a time."""
    yield _token_counting(_USERS)
    names = data.available()
    jobs = [partial(_smaller, "amazon_games")] if "amazon_games" in names else []
    jobs = [*(partial(_whole, name) for name in names), *jobs]
    with ProcessPoolExecutor(max_workers=4, mp_context=get_context("spawn")) as pool:
        for figures in [pool.submit(job) for job in jobs]:
            yield from figures.result()
    for name in (name for name in ("mind", "amazon_games") if name in names):
        catalogue = Catalogue.real(name, _MOST_USERS)
        yield from asyncio.run(calls.overhead(catalogue))
        if name == "mind":
            yield from asyncio.run(calls.faults(catalogue))
        else:
            yield from asyncio.run(calls.cpu_per_call(catalogue))
            yield from asyncio.run(calls.decisions(catalogue))


def million() -> Iterator[Figure]:
    """The cost of a walk over a million made-up items."""
    yield _token_counting(_SIZE_USERS)
    items = list(data.synthetic_items(_SIZE))
    tree = tree_of(items)
    users = of_themes(items, _SIZE_USERS)
    catalogue = Catalogue("synthetic", items, tree, Judge(items), users)

    async def ask() -> Means:
        return Means.of(await ask_all(await catalogue.bench(), users))

    means = asyncio.run(ask())
    yield from _costs(f"{_SIZE:,} made-up items", "walk", means, _WALK["synthetic"])
    yield _share(f"{_SIZE:,} made-up items", "walk", means, None)


def _token_counting(users: int) -> Figure:
    how = "counted by tiktoken" if vocabulary.ready(10) else "estimated: no vocabulary is available"
    return Figure(f"input tokens are {how}", users, "users")


def _whole(name: str) -> list[Figure]:
    vocabulary.ready(10)
    catalogue = Catalogue.real(name, _MOST_USERS)

    async def ask() -> list[Figure]:
        figures = [*await _compared(catalogue)]
        if name in _TIMED:
            figures += await _waiting(catalogue)
        figures += await conditions.interests(catalogue)
        figures += await calls.shared_prefix(catalogue)
        if name in _BIASED:
            figures += await conditions.biases(catalogue)
            figures += await conditions.exclusions(catalogue)
        if name in _VARIED:
            figures += await conditions.settings(catalogue)
        return figures

    return asyncio.run(ask())


def _smaller(name: str) -> list[Figure]:
    vocabulary.ready(10)
    return list(asyncio.run(_compared(Catalogue.real(name, _USERS, first=_SMALLER))))


async def _compared(catalogue: Catalogue) -> Iterable[Figure]:
    """All efforts and strategies, for the same users."""
    bench = await catalogue.bench()
    means = {
        way: Means.of(await ask_all(bench, catalogue.users[:_USERS], **request))
        for way, request in _WAYS.items()
    }
    name, paper = catalogue.name, means["paper"]
    figures = [
        *_costs(name, "walk", means["walk"], _WALK.get(name, _UNLIMITED)),
        *_costs(name, "economy", means["economy"], _ECONOMY),
        *_costs(name, "the paper's search", paper, _UNLIMITED),
        Figure(f"{name}: tokens saved against the paper's search",
               100 * (1 - means["walk"].tokens / paper.tokens), "%", "≥", 60),
        Figure(f"{name}: rounds of the paper's search, over ours",
               paper.rounds / means["walk"].rounds, "×", "≥", 3),
    ]  # fmt: skip
    targets = {"walk": 0.55}
    figures += [_share(name, way, means[way], targets.get(way)) for way in _WAYS]
    cheap = [means[way] for way in _OURS if means[way].tokens <= 0.4 * paper.tokens]
    best = max((way.share for way in cheap), default=0.0)
    figures.append(
        Figure(f"{name}: our best share within 40 % of the paper's tokens, over its share",
               best / paper.share, "×", "≥", 2)
    )  # fmt: skip
    return figures


def _costs(name: str, way: str, means: Means, limits: Limits) -> list[Figure]:
    return [
        Figure(f"{name}, {way}: {what}", measured, "", "≤", limit)
        for what, measured, limit in zip(
            ("input tokens", "calls", "rounds"),
            (means.input_tokens, means.calls, means.rounds),
            limits,
            strict=True,
        )
    ]


def _share(name: str, way: str, means: Means, target: float | None) -> Figure:
    what = f"{name}: share of the judge's top 20, {way} ({means.tokens:,.0f} tokens)"
    return Figure(what, means.share, "", "≥", target)


async def _waiting(catalogue: Catalogue) -> list[Figure]:
    """The waiting time of users with a model that takes 300 ms and 1 ms per 10 input tokens."""
    bench = await catalogue.bench(_LATENCY)
    users = catalogue.users[:_CONCURRENT]
    waits: dict[str, float] = {}
    for way in ("walk", "paper"):
        together = (ask_all(bench, [user], **_WAYS[way]) for user in users)
        asked = [one for part in await asyncio.gather(*together) for one in part]
        waits[way] = float(np.mean([one.answer.timing_ms["total"] for one in asked])) / 1000
    return [
        Figure(f"{catalogue.name}: wait for a model of 300 ms + .1 ms/token", waits["walk"],
               "s"),
        Figure(f"{catalogue.name}: the same by the paper's search", waits["paper"], "s"),
        Figure(f"{catalogue.name}: wait of the paper's search, over ours",
               waits["paper"] / waits["walk"], "×", "≥", 3),
    ]  # fmt: skip

"""The real data sets, where there are any, through the loaders and protocols."""

import math
from collections import Counter
from functools import cache
from pathlib import Path

import pytest

from app.evaluation.case import Case
from app.evaluation.dataset import DataError, Dataset
from app.evaluation.formats import load
from app.evaluation.protocols import (
    DomainBy,
    Split,
    coldstart,
    crossdomain,
    exclusion,
    impressions,
    leave_last_out,
    paper,
    temporal,
)

DATA = Path(__file__).parents[4] / "shared" / "data"


@cache
def real(name: str) -> Dataset:
    if not (DATA / name).exists():
        pytest.skip(f"needs the real data in {DATA / name}, which may not be shipped")
    return load(DATA / name)


def popular(data: Dataset, split: Split) -> tuple[float, float]:
    """R@20 and NDCG@20 of the most popular items that were not seen, for one target each.

    The published figures know only users with 5 events.
    """
    training, cases = split
    busy = {user.id for user in data.users if len(user.history) >= 5}
    known = [user.history for user in training.users if user.id in busy]
    counts = Counter(each for history in known for each in history)
    ranked = [name for name, _ in counts.most_common()]
    ranks = [_rank(case, ranked) for case in cases]
    found = [rank for rank in ranks if rank is not None]
    return len(found) / len(cases), sum(1 / math.log2(rank + 2) for rank in found) / len(cases)


def _rank(case: Case, ranked: list[str]) -> int | None:
    seen = set(case.query.history)
    unseen = [each for each in ranked[:3_000] if each not in seen][:20]
    (target,) = case.targets
    return unseen.index(target) if target in unseen else None


@pytest.mark.parametrize(
    ("name", "items", "users", "events"),
    [
        ("mind", 2_000, 2_455, 5_446),
        ("ml_latest_small", 9_125, 671, 100_004),
        ("amazon_cds", 64_031, 200, 1_600),
        ("amazon_games", 16_859, 50_546, 440_264),
    ],
)
def test_whole_data_sets_load(name: str, items: int, users: int, events: int) -> None:
    data = real(name)
    assert data.name == name
    assert (len(data.items), len(data.users)) == (items, users)
    assert sum(len(user.history) for user in data.users) == events
    # Rows of mind whose user never read one of the 2,000 articles; nothing else is left out.
    assert list(data.skipped.counts.values()) == ([999] if name == "mind" else [])


def test_published_popularity_is_reproduced_exactly_on_films() -> None:
    films = real("ml_latest_small")
    split = leave_last_out(films)
    assert len(split[1]) == 671
    assert popular(films, split) == pytest.approx((0.064, 0.025), abs=0.0005)


@pytest.mark.parametrize(
    ("name", "users", "asked", "published"),
    [("amazon_games", 1_000, 1_000, (0.028, 0.011)), ("mind", None, 222, (0.153, 0.048))],
)
def test_published_popularity_is_reproduced_within_its_interval(
    name: str, users: int | None, asked: int, published: tuple[float, float]
) -> None:
    split = leave_last_out(real(name), users=users)
    assert len(split[1]) == asked
    recall, gain = popular(real(name), split)
    assert recall == pytest.approx(published[0], abs=2 * (published[0] / asked) ** 0.5)
    assert gain == pytest.approx(published[1], abs=2 * published[1] / asked**0.5 + 0.005)


def test_given_candidates_of_music_contain_few_targets() -> None:
    cases = leave_last_out(real("amazon_cds"), given_candidates=True)[1]
    held = [case for case in cases if case.targets & set(case.query.candidates or ())]
    assert (len(cases), len(held)) == (200, 42)


def test_times_and_impressions() -> None:
    _, films = temporal(real("ml_latest_small"))
    assert len(films) > 5
    _, news = impressions(real("mind"))
    assert len(news) > 20
    assert all(case.targets < set(case.query.candidates or ()) for case in news)
    with pytest.raises(DataError, match="amazon_games: a temporal split needs"):
        temporal(real("amazon_games"))


def test_the_other_protocols() -> None:
    films = real("ml_latest_small")
    leaves = {item.id: "/".join(item.categories[:2]) for item in films.items}
    _, cases = paper(films, leaves)
    most = Counter(leaves[each] for each in cases[0].query.candidates or ())
    assert len(cases) == 500
    assert max(most.values()) == 50
    assert max(len(case.query.history) for case in cases) == 50
    _, cases = coldstart(films, users=100)
    assert Counter(case.bucket for case in cases) == dict.fromkeys(
        ("0", "1", "2–4", "5–9", "10–49", "50+"), 100
    )
    _, cases = exclusion(films, users=200)
    assert len(cases) == 200
    _, cases = crossdomain(films, by=DomainBy.CATEGORY, users=200)
    assert len(cases) == 200

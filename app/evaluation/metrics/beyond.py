"""Metrics beyond accuracy: diversity, novelty, popularity, coverage and topics of answers."""

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from app.evaluation.metrics.answers import (
    Answers,
    CatalogStatistics,
    Floats,
    Ints,
    incidence,
    item_pairs,
)

if TYPE_CHECKING:
    from scipy.sparse import csr_array

_HEAD = 5  # one item of so many is among the most popular ones


def ilad(answers: Answers, statistics: CatalogStatistics, k: int) -> Floats:
    """Intra-list average distance: the mean of 1 − cos(i, j) over all pairs of the first k.

    nan for fewer than two items, or without vectors. An item whose vector is zero is at distance
    1 from all. Zhang and Hurley, "Avoiding monotony", 2008, as used by the paper (§3.1.2).
    """
    vectors = statistics.vectors
    if vectors is None:
        return np.full(len(answers), np.nan)
    pairs = item_pairs(answers.top(k))
    counts = np.bincount(pairs[:, 0], minlength=len(answers))
    lists = incidence(pairs, np.ones(len(pairs), np.float32), (len(answers), len(vectors)))
    # Σ over i≠j of cos(i, j) = |Σ v|² − Σ |v|²: linear in k instead of quadratic.
    summed: npt.NDArray[np.float32] = lists @ vectors
    squared_norms = lists @ np.einsum("ij,ij->i", vectors, vectors)
    similarities = np.einsum("ij,ij->i", summed, summed) - squared_norms
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(counts > 1, 1 - similarities / (counts * (counts - 1.0)), np.nan)


def novelty(answers: Answers, statistics: CatalogStatistics, k: int) -> Floats:
    """The mean self-information of the first k, in bits: −log2((1 + users of i) / (1 + users)).

    Adding one user per item keeps the value of unused items finite. nan for an empty answer.
    Zhou et al., "Solving the apparent diversity-accuracy dilemma of recommender systems", 2010;
    Vargas and Castells, 2011. `novelty` of recommenders takes the share of all events instead of
    the share of all users, which adds a constant (smoothing aside).
    """
    surprise = -np.log2((1 + statistics.users_with) / (1 + statistics.users))
    return _mean_of(surprise, item_pairs(answers.top(k)), len(answers))


def popularity(answers: Answers, statistics: CatalogStatistics, k: int) -> tuple[Floats, Floats]:
    """The mean popularity of the first k and of the history: two values per case.

    Popularity of an item is the share of the training users who had it. The popularity shift of a
    group of users is mean(answers) / mean(histories) − 1, over the cases that have both: 0 means
    as popular as the histories, 1 twice as popular. Abdollahpouri et al., "The
    connection between popularity bias, calibration, and fairness in recommendation", 2020
    (popularity lift).
    """
    share = statistics.users_with / max(statistics.users, 1)
    answered = _mean_of(share, item_pairs(answers.top(k)), len(answers))
    known = _mean_of(share, answers.history_pairs, len(answers))
    both = np.isfinite(answered) & np.isfinite(known)
    return np.where(both, answered, np.nan), np.where(both, known, np.nan)


def long_tail(answers: Answers, statistics: CatalogStatistics, k: int) -> Floats:
    """The share of the first k outside the most popular fifth of the catalogue.

    That fifth holds the items that most training users had; of equals, the earlier ones in the
    catalogue, and no item that nobody had. nan for an empty answer. `APLT` of Abdollahpouri et
    al., "Managing popularity bias in recommender systems with personalized re-ranking", 2019.
    """
    order = np.argsort(-statistics.users_with, kind="stable")
    head = order[: round(len(order) / _HEAD)]
    outside = np.ones(len(order))
    outside[head[statistics.users_with[head] > 0]] = 0
    return _mean_of(outside, item_pairs(answers.top(k)), len(answers))


def coverage(exposure: npt.NDArray[np.float32]) -> Floats:
    """Catalogue coverage: the share of the catalogue's items that were shown to any user.

    `exposure` counts how often each item was shown; the last axis is the catalogue. Ge et al.,
    "Beyond accuracy", 2010; `catalog_coverage` of recommenders.
    """
    return np.asarray((exposure > 0).mean(axis=-1), np.float64)


def gini(exposure: npt.NDArray[np.float32]) -> Floats:
    """Gini of exposure: 0 where all items are shown equally often, 1 where only one is shown.

    Σ (2i − n − 1) x_i / (n Σ x) over the sorted exposures x_1 ≤ … ≤ x_n; items never shown count.
    nan where nothing was shown. The last axis is the catalogue. Gini, 1912; as in lenskit
    (`ListGini`).
    """
    count = exposure.shape[-1]
    ordered = np.sort(exposure, axis=-1)
    ranks = 2.0 * np.arange(1, count + 1) - count - 1
    total = count * ordered.sum(axis=-1, dtype=np.float64)
    return np.where(total > 0, ordered @ ranks / np.where(total > 0, total, 1), np.nan)


def exposures(answers: Answers, statistics: CatalogStatistics, k: int) -> "csr_array":
    """The items that each case was shown: cases × catalogue."""
    pairs = item_pairs(answers.top(k))
    shape = (len(answers), len(statistics.index))
    return incidence(pairs, np.ones(len(pairs), np.float32), shape)


def topic_counts(pairs: Ints, cases: int, topics: Ints) -> "csr_array":
    """The number of items of each topic in each case: cases × topics."""
    topic = topics[pairs[:, 1]]
    known = topic >= 0
    shape = (cases, int(topics.max(initial=0)) + 1)
    counted = np.column_stack([pairs[known, 0], topic[known]])
    return incidence(counted, np.ones(len(counted), np.float32), shape)


def similarity(first: npt.ArrayLike, second: npt.ArrayLike) -> Floats:
    """The similarity of two topic distributions: the cosine of their counts, along the last axis.

    The distributions are summed over all users, as in figure 9 of the paper (§3.6), which gives
    .8091 (MIND) and .8524 (Amazon) for targets against histories, and .6239 and .6157 for targets
    against its answers; it does not name the measure, and cosine is the usual one. nan where
    either is empty.
    """
    one, other = np.asarray(first, np.float64), np.asarray(second, np.float64)
    norms = np.linalg.norm(one, axis=-1) * np.linalg.norm(other, axis=-1)
    product = np.einsum("...i,...i->...", one, other)
    return np.where(norms > 0, np.minimum(product / np.where(norms > 0, norms, 1), 1), np.nan)


def _mean_of(values: Floats, pairs: Ints, cases: int) -> Floats:
    counts = np.bincount(pairs[:, 0], minlength=cases)
    sums = np.bincount(pairs[:, 0], weights=values[pairs[:, 1]], minlength=cases)
    return np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)

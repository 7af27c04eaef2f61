"""`SystemMetrics`: all metrics of one system, per case and over all cases."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from app.evaluation.case import Case
from app.evaluation.metrics import accuracy, beyond
from app.evaluation.metrics.answers import Answers, CatalogStatistics, Floats, Ints, item_pairs
from app.evaluation.metrics.bootstrap import (
    RESAMPLES,
    Mean,
    MetricEstimate,
    PairedComparison,
    Stack,
    Weights,
    compare,
    interval,
    resamples_of,
)
from tree.blas import use_one_blas_thread

if TYPE_CHECKING:
    from scipy.sparse import csr_array

_WORK = 200_000_000  # list items over all resamples: about half a second
_FEWEST_RESAMPLES, _MOST_RESAMPLES = 200, 400  # of metrics over whole lists
_PLACES = 5


@dataclass(frozen=True, slots=True)
class Summary:
    """The figures of one system: over all cases, and by bucket. Undefined ones are left out."""

    metrics: dict[str, MetricEstimate]
    buckets: dict[str, dict[str, MetricEstimate]]
    cases: dict[str, int]  # by bucket


@dataclass(frozen=True, slots=True)
class SystemMetrics:
    """The metrics of the answers of one system."""

    table: Mapping[str, Floats]  # one value per case and metric; nan where it is undefined
    means: Mapping[str, Mean]
    k: int
    bucket: tuple[str, ...]
    flaws: Mapping[str, int]
    _user: Ints  # number of the user of each case: users are resampled
    _shown: "csr_array"  # cases × catalogue
    _place: Floats  # of the first target among the candidates
    _topics: Mapping[str, "csr_array"]  # cases × topics, of targets, histories and answers
    _topic_names: tuple[str, ...]

    @classmethod
    def of(
        cls,
        cases: Sequence[Case],
        answers: Sequence[Sequence[str]],
        statistics: CatalogStatistics,
        cutoffs: Sequence[int] = (10, 20),
        limit: int | None = None,
    ) -> "SystemMetrics":
        """The metrics of one answer per case. Metrics of whole lists use the largest cutoff.

        Answers may be longer than the cutoffs: GAUC ranks all candidates. `limit` is the number of
        items that was requested, None for all.
        """
        given = Answers.of(cases, answers, statistics.index)
        k = max(cutoffs)
        table: dict[str, Floats] = {}
        for cutoff in sorted(cutoffs):
            table[f"recall@{cutoff}"] = accuracy.recall(given, cutoff)
            table[f"ndcg@{cutoff}"] = accuracy.ndcg(given, cutoff)
            table[f"mrr@{cutoff}"] = accuracy.reciprocal_rank(given, cutoff)
            table[f"hit_rate@{cutoff}"] = accuracy.hit_rate(given, cutoff)
        table[f"ilad@{k}"] = beyond.ilad(given, statistics, k)
        table[f"novelty@{k}"] = beyond.novelty(given, statistics, k)
        table[f"long_tail@{k}"] = beyond.long_tail(given, statistics, k)
        means = {name: Mean.of(values) for name, values in table.items()}

        table["auc"] = accuracy.auc(given, limit)
        means["gauc"] = Mean.of(table["auc"], accuracy.pairs_of(given))
        for cutoff in sorted(cutoffs):
            by_chance = table[f"random_recall@{cutoff}"] = accuracy.random_recall(given, cutoff)
            means[f"x_random@{cutoff}"] = Mean.ratio(table[f"recall@{cutoff}"], by_chance)
        answered, known = beyond.popularity(given, statistics, k)
        table[f"popularity@{k}"], table["popularity_of_history"] = answered, known
        means[f"popularity_shift@{k}"] = Mean.ratio(answered, known, offset=1.0)

        topics: dict[str, csr_array] = {}
        if statistics.topics is not None:
            parts = {
                "targets": given.target_pairs,
                "histories": given.history_pairs,
                "answers": item_pairs(given.top(k)),
            }
            topics = {
                part: beyond.topic_counts(pairs, len(given), statistics.topics)
                for part, pairs in parts.items()
            }
        return cls(
            table=table,
            means=means,
            k=k,
            bucket=given.bucket,
            flaws=given.flaws,
            _user=given.users,
            _shown=beyond.exposures(given, statistics, k),
            _place=given.target_position,
            _topics=topics,
            _topic_names=statistics.topic_names,
        )

    @classmethod
    def pooled(cls, parts: Mapping[str, "SystemMetrics"]) -> "SystemMetrics":
        """The metrics of one system over the cases of several data sets, by their names.

        Each data set is one bucket. Their catalogues and users are different ones. Topics are left
        out.
        """
        from scipy.sparse import block_diag

        given = list(parts.values())
        names = [name for name in given[0].means if all(name in one.means for one in given)]
        users = np.cumsum([0, *(int(one._user.max(initial=-1)) + 1 for one in given)])
        flaws: Counter[str] = Counter()
        for one in given:
            flaws.update(one.flaws)
        return cls(
            table={
                name: np.concatenate([one.table[name] for one in given])
                for name in given[0].table
                if all(name in one.table for one in given)
            },
            means={name: Mean.joined([one.means[name] for one in given]) for name in names},
            k=given[0].k,
            bucket=tuple(name for name, one in parts.items() for _ in one.bucket),
            flaws=flaws,
            _user=np.concatenate(
                [one._user + first for one, first in zip(given, users, strict=False)]
            ),
            _shown=block_diag([one._shown for one in given], format="csr"),
            _place=np.concatenate([one._place for one in given]),
            _topics={},
            _topic_names=(),
        )

    def summary(self, *, seed: int, count: int = RESAMPLES) -> Summary:
        """All figures with their intervals; the same seed gives the same intervals.

        Users are resampled, each with all of their cases, because cases of one user are not
        independent: each bucket of a cold start has the same users.

        For the position spread, cases are grouped by the fifth of the candidate list where the
        first target stands; it is the highest minus the lowest NDCG of these groups. It is above 0
        by chance alone: compare it with that of a system which does not see positions. Hou et al.,
        "Large language models are zero-shot rankers for recommender systems", 2024 (position bias).
        """
        if not len(self.bucket):
            return Summary({}, {}, {})
        order, parts = _parted(self.bucket)
        use_one_blas_thread()
        return self._summed(order, parts, seed, count)

    def _summed(self, order: Ints, parts: Mapping[str, slice], seed: int, count: int) -> Summary:
        stack = Stack([mean.of_rows(order) for mean in self.means.values()])
        drawn: list[Floats] = []
        per_bucket: dict[str, list[Floats]] = {bucket: [] for bucket in parts}
        whole: dict[str, list[Floats]] = {}
        fewer = min(
            count, _MOST_RESAMPLES, max(_FEWEST_RESAMPLES, _WORK // max(self._shown.nnz, 1))
        )
        done = 0
        user = self._user[order]
        for weights in resamples_of(user, seed, count):
            overall, by_bucket = stack.by_part(weights, list(parts.values()))
            drawn.append(overall)
            for bucket, replicates in zip(parts, by_bucket, strict=True):
                per_bucket[bucket].append(replicates)
            if done < fewer:
                for name, of_lists in self._of_lists(weights).items():
                    whole.setdefault(name, []).append(of_lists)
            done += len(weights)

        metrics = _estimates(self.means, np.concatenate(drawn))
        buckets = {
            bucket: _estimates(
                {name: mean.of_rows(order[part]) for name, mean in self.means.items()},
                np.concatenate(per_bucket[bucket]),
            )
            for bucket, part in parts.items()
            if bucket
        }
        for name, value in self._of_lists(np.ones((1, len(order)), np.float32)).items():
            if np.isfinite(value[0]):
                replicates = np.concatenate(whole[name])
                metrics[name] = interval(float(value[0]), replicates, len(order), within=(0.0, 1.0))
        cases = {bucket: part.stop - part.start for bucket, part in parts.items() if bucket}
        return Summary(metrics, buckets, cases)

    def against(self, other: "SystemMetrics", *, seed: int) -> dict[str, PairedComparison]:
        """This system minus the other, user by user. See compare."""
        return compare(self.means, other.means, seed=seed, users=self._user)

    def topic_shares(self, count: int = 10) -> dict[str, dict[str, float]]:
        """Shares of the most common topics of targets, histories and answers, highest first.

        As in figure 9 of the paper: each topic that is among the first `count` of one of the three.
        """
        sums = {part: np.asarray(counts.sum(axis=0)) for part, counts in self._topics.items()}
        shown = {
            topic
            for counts in sums.values()
            for topic in np.argsort(-counts, kind="stable")[:count]
        }
        return {
            part: {
                self._topic_names[topic]: float(counts[topic] / counts.sum())
                for topic in sorted(shown, key=lambda topic: -counts[topic])
                if counts[topic] > 0
            }
            for part, counts in sums.items()
            if counts.sum() > 0
        }

    def _of_lists(self, weights: Weights) -> dict[str, Floats]:
        """Metrics of all lists together, for each resample."""
        exposure = np.ascontiguousarray((self._shown.T @ weights.T).T)
        found = {
            f"coverage@{self.k}": beyond.coverage(exposure),
            f"gini@{self.k}": beyond.gini(exposure),
        }
        if self._topics:
            targets, histories, answers = (
                (self._topics[part].T @ weights.T).T for part in ("targets", "histories", "answers")
            )
            found[f"topic_similarity@{self.k}"] = beyond.similarity(answers, histories)
            found[f"topic_similarity_targets@{self.k}"] = beyond.similarity(answers, targets)
            found["topic_level"] = beyond.similarity(targets, histories)
        if np.isfinite(self._place).any():
            found[f"position_spread@{self.k}"] = self._spread(weights)
        return found

    def _spread(self, weights: Weights) -> Floats:
        fifth = np.floor(np.minimum(self._place * _PLACES, _PLACES - 1))
        values = self.table[f"ndcg@{self.k}"]
        parts = [Mean.of(np.where(fifth == part, values, np.nan)) for part in range(_PLACES)]
        means = Stack(parts).replicates(weights)
        defined = np.isfinite(means)
        highest = np.where(defined, means, -np.inf).max(axis=1)
        lowest = np.where(defined, means, np.inf).min(axis=1)
        return np.where(defined.any(axis=1), highest - lowest, np.nan)


def _parted(bucket: Sequence[str]) -> tuple[Ints, dict[str, slice]]:
    """The cases ordered by bucket, and the slice of each bucket in that order."""
    names = list(dict.fromkeys(bucket))
    numbers = np.array([names.index(name) for name in bucket], np.int64)
    ends = np.cumsum(np.bincount(numbers, minlength=len(names))).tolist()
    starts = [0, *ends[:-1]]
    slices = [slice(start, end) for start, end in zip(starts, ends, strict=True)]
    return np.argsort(numbers, kind="stable"), dict(zip(names, slices, strict=True))


def _estimates(means: Mapping[str, Mean], replicates: Floats) -> dict[str, MetricEstimate]:
    return {
        name: interval(mean.value, replicates[:, column], mean.cases)
        for column, (name, mean) in enumerate(means.items())
        if np.isfinite(mean.value)
    }

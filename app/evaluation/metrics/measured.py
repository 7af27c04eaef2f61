"""`Measured`: every metric of one system, case by case, and what the cases together say."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from app.evaluation.blas import one_thread
from app.evaluation.case import Case
from app.evaluation.metrics import accuracy, beyond
from app.evaluation.metrics.answers import Answers, Background, Floats, Ints, listed
from app.evaluation.metrics.bootstrap import (
    RESAMPLES,
    Comparison,
    Estimate,
    Mean,
    Stack,
    Weights,
    compare,
    interval,
    resamples_of,
)

if TYPE_CHECKING:
    from scipy.sparse import csr_array

_WORK = 200_000_000  # items counted over all resamples of lists: about half a second
_FEWEST, _FEWER = 200, 400
_PLACES = 5


@dataclass(frozen=True, slots=True)
class Summary:
    """The figures of one system: over all cases, and by bucket. What is undefined is left out."""

    metrics: dict[str, Estimate]
    buckets: dict[str, dict[str, Estimate]]
    cases: dict[str, int]  # by bucket


@dataclass(frozen=True, slots=True)
class Measured:
    """What one system's answers are worth."""

    table: Mapping[str, Floats]  # one value per case and metric; nan where it is undefined
    means: Mapping[str, Mean]
    k: int
    bucket: tuple[str, ...]
    flaws: Mapping[str, int]
    _reader: Ints  # of every case: who is drawn in a resample
    _shown: "csr_array"  # cases × catalogue
    _place: Floats  # of the first target in the slate
    _topics: Mapping[str, "csr_array"]  # cases × topics, by whose they are; none without topics
    _topic_names: tuple[str, ...]

    @classmethod
    def of(
        cls,
        cases: Sequence[Case],
        answers: Sequence[Sequence[str]],
        background: Background,
        cutoffs: Sequence[int] = (10, 20),
        asked: int | None = None,
    ) -> "Measured":
        """Measure one answer per case. What looks at whole lists is taken at the last cutoff.

        Answers may be longer: GAUC looks at whole slates. `asked` is how many items were asked for
        at most, None for all that are allowed.
        """
        given = Answers.of(cases, answers, background.index)
        k = max(cutoffs)
        table: dict[str, Floats] = {}
        for cutoff in sorted(cutoffs):
            table[f"recall@{cutoff}"] = accuracy.recall(given, cutoff)
            table[f"ndcg@{cutoff}"] = accuracy.ndcg(given, cutoff)
            table[f"mrr@{cutoff}"] = accuracy.reciprocal_rank(given, cutoff)
            table[f"hit_rate@{cutoff}"] = accuracy.hit_rate(given, cutoff)
        table[f"ilad@{k}"] = beyond.ilad(given, background, k)
        table[f"novelty@{k}"] = beyond.novelty(given, background, k)
        means = {name: Mean.of(values) for name, values in table.items()}

        table["auc"] = accuracy.auc(given, asked)
        means["gauc"] = Mean.of(table["auc"], accuracy.pairs_of(given))
        for cutoff in sorted(cutoffs):
            by_chance = table[f"random_recall@{cutoff}"] = accuracy.random_recall(given, cutoff)
            means[f"x_random@{cutoff}"] = Mean.ratio(table[f"recall@{cutoff}"], by_chance)
        answered, known = beyond.popularity(given, background, k)
        table[f"popularity@{k}"], table["popularity_of_history"] = answered, known
        means[f"popularity_shift@{k}"] = Mean.ratio(answered, known, offset=1.0)

        topics: dict[str, csr_array] = {}
        if background.topics is not None:
            parts = {
                "targets": given.wanted,
                "histories": given.histories,
                "answers": listed(given.top(k)),
            }
            topics = {
                whose: beyond.topic_counts(pairs, len(given), background.topics)
                for whose, pairs in parts.items()
            }
        return cls(
            table=table,
            means=means,
            k=k,
            bucket=given.bucket,
            flaws=given.flaws,
            _reader=given.readers,
            _shown=beyond.exposures(given, background, k),
            _place=given.position,
            _topics=topics,
            _topic_names=background.topic_names,
        )

    def summary(self, *, seed: int, count: int = RESAMPLES) -> Summary:
        """All figures with their intervals; the same seed gives the same intervals.

        Readers are resampled, each with all of their cases: the buckets of a cold start ask the
        same ones again, and cases of one reader are no independent evidence.

        Position spread is the difference of NDCG between the fifths of the slate where the first
        target stood: highest less lowest. Chance alone keeps it above 0: read it beside that of a
        system which sees no positions. Hou et al., "Large language models are zero-shot rankers
        for recommender systems", 2024 (position bias).
        """
        if not len(self.bucket):
            return Summary({}, {}, {})
        order, parts = _parted(self.bucket)
        with one_thread():
            return self._summed(order, parts, seed, count)

    def _summed(self, order: Ints, parts: Mapping[str, slice], seed: int, count: int) -> Summary:
        stack = Stack([mean.of_rows(order) for mean in self.means.values()])
        drawn: list[Floats] = []
        apart: dict[str, list[Floats]] = {bucket: [] for bucket in parts}
        whole: dict[str, list[Floats]] = {}
        fewer = min(count, _FEWER, max(_FEWEST, _WORK // max(self._shown.nnz, 1)))
        done = 0
        reader = self._reader[order]
        for weights in resamples_of(reader, seed, count):
            everyone, own = stack.by_part(weights, list(parts.values()))
            drawn.append(everyone)
            for bucket, replicates in zip(parts, own, strict=True):
                apart[bucket].append(replicates)
            if done < fewer:
                for name, of_lists in self._of_lists(weights).items():
                    whole.setdefault(name, []).append(of_lists)
            done += len(weights)

        metrics = _estimates(self.means, np.concatenate(drawn))
        buckets = {
            bucket: _estimates(
                {name: mean.of_rows(order[part]) for name, mean in self.means.items()},
                np.concatenate(apart[bucket]),
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

    def against(self, other: "Measured", *, seed: int) -> dict[str, Comparison]:
        """This system less the other, reader by reader. See compare."""
        return compare(self.means, other.means, seed=seed, readers=self._reader)

    def topic_shares(self, count: int = 10) -> dict[str, dict[str, float]]:
        """Shares of the commonest topics of targets, histories and answers, commonest first.

        As in figure 9 of the paper: every topic that is among the first `count` of one of them.
        """
        sums = {whose: np.asarray(counts.sum(axis=0)) for whose, counts in self._topics.items()}
        kept = {topic for own in sums.values() for topic in np.argsort(-own, kind="stable")[:count]}
        return {
            whose: {
                self._topic_names[topic]: float(own[topic] / own.sum())
                for topic in sorted(kept, key=lambda topic: -own[topic])
                if own[topic] > 0
            }
            for whose, own in sums.items()
            if own.sum() > 0
        }

    def _of_lists(self, weights: Weights) -> dict[str, Floats]:
        """What no single case has, in every resample."""
        exposure = np.ascontiguousarray((self._shown.T @ weights.T).T)
        found = {
            f"coverage@{self.k}": beyond.coverage(exposure),
            f"gini@{self.k}": beyond.gini(exposure),
        }
        if self._topics:
            targets, histories, answers = (
                (self._topics[whose].T @ weights.T).T
                for whose in ("targets", "histories", "answers")
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
    """The cases ordered by bucket, and where each bucket lies in that order."""
    names = list(dict.fromkeys(bucket))
    numbers = np.array([names.index(own) for own in bucket], np.int64)
    ends = np.cumsum(np.bincount(numbers, minlength=len(names))).tolist()
    starts = [0, *ends[:-1]]
    slices = [slice(start, end) for start, end in zip(starts, ends, strict=True)]
    return np.argsort(numbers, kind="stable"), dict(zip(names, slices, strict=True))


def _estimates(means: Mapping[str, Mean], replicates: Floats) -> dict[str, Estimate]:
    return {
        name: interval(mean.value, replicates[:, column], mean.cases)
        for column, (name, mean) in enumerate(means.items())
        if np.isfinite(mean.value)
    }

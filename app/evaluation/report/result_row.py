"""`ResultRow`: the result of one run of one system, with all that is needed to repeat it."""

import hashlib
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TypeAlias

import msgspec

from app import __version__
from app.evaluation.dataset import Dataset
from app.evaluation.metrics import MetricEstimate, PairedComparison, SystemMetrics

Scalar: TypeAlias = str | int | float | bool | None
Metrics: TypeAlias = dict[str, MetricEstimate]


class Data(msgspec.Struct, frozen=True, kw_only=True, rename={"users": "readers"}):
    """The data set of a run. In the file, `users` is called `readers`."""

    name: str
    checksums: dict[str, str]  # SHA-256 by file name
    items: int = 0
    users: int = 0
    skipped: dict[str, int] = {}  # number of rows left out, by reason

    @classmethod
    def of(cls, dataset: Dataset) -> "Data":
        """A description of the data set."""
        return cls(
            name=dataset.name,
            checksums=dict(dataset.checksums),
            items=len(dataset.items),
            users=len(dataset.users),
            skipped=dict(dataset.skipped.counts),
        )


class ModelUsage(msgspec.Struct, frozen=True, kw_only=True):
    """The use of a model by one stage, over all cases."""

    calls: int = 0
    rounds: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    cost_usd: float = 0.0
    fallbacks: int = 0

    def plus(self, other: object) -> "ModelUsage":
        """The sum with something that has the same fields."""
        return ModelUsage(
            **{
                name: getattr(self, name) + getattr(other, name)
                for name in ModelUsage.__struct_fields__
            }
        )


class Bucket(msgspec.Struct, frozen=True, kw_only=True):
    """The metrics of the cases in one bucket."""

    cases: int
    metrics: Metrics


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """What identifies a run, known before it starts."""

    study: str
    data: Data
    protocol: str
    seed: int
    system: str
    settings: dict[str, Scalar] = {}  # of the protocol and of the system
    parameters: dict[str, Scalar] = {}  # varied by the study: the axes of its plots
    prompts: dict[str, str] = {}  # fingerprints by template
    version: str = __version__

    @property
    def key(self) -> str:
        """A hash, equal for runs with equal results; it includes checksums, not file names."""
        content = msgspec.structs.asdict(self) | {"data": sorted(self.data.checksums.values())}
        return hashlib.sha256(msgspec.json.encode(content, order="deterministic")).hexdigest()[:32]


class ResultRow(msgspec.Struct, frozen=True, kw_only=True):
    """A run and its results: one line of `results.jsonl`."""

    run: Run
    cases: int
    metrics: Metrics = {}  # empty where only buckets or costs were measured
    buckets: dict[str, Bucket] = {}
    flaws: dict[str, int] = {}  # ranks with an unknown, excluded or repeated item
    usage: dict[str, ModelUsage] = {}  # by stage
    degraded: int = 0  # answers by the embedded ranker because a model failed
    topics: dict[str, dict[str, float]] = {}  # shares of the most common topics
    against: dict[str, dict[str, PairedComparison]] = {}  # other systems, on the same users
    fit_s: float = 0.0
    rank_s: float = 0.0
    ended: str = ""  # ISO 8601, UTC
    key: str = ""

    @classmethod
    def of(
        cls,
        run: Run,
        measured: SystemMetrics,
        *,
        usage: Mapping[str, ModelUsage] | None = None,
        degraded: int = 0,
        against: Mapping[str, SystemMetrics] | None = None,
        fit_s: float = 0.0,
        rank_s: float = 0.0,
    ) -> "ResultRow":
        """The row of a run that has just ended. The seed of the run is that of the intervals.

        `against` holds the metrics of other systems on the same cases, by name.
        """
        summary = measured.summary(seed=run.seed)
        return cls(
            run=run,
            cases=len(measured.bucket),
            metrics=summary.metrics,
            buckets={
                bucket: Bucket(cases=summary.cases[bucket], metrics=metrics)
                for bucket, metrics in summary.buckets.items()
            },
            flaws=dict(measured.flaws),
            usage=dict(usage or {}),
            degraded=degraded,
            topics=measured.topic_shares(),
            against={
                name: measured.against(other, seed=run.seed)
                for name, other in (against or {}).items()
            },
            fit_s=fit_s,
            rank_s=rank_s,
            ended=datetime.now(UTC).isoformat(timespec="seconds"),
        )

    def __post_init__(self) -> None:
        msgspec.structs.force_setattr(self, "key", self.run.key)

    @property
    def users_per_s(self) -> float | None:
        """Answered users per second, without training; None where no time was measured."""
        return self.cases / self.rank_s if self.rank_s > 0 else None

    def tokens(self, stage: str | None = None) -> float:
        """Input tokens per user: of one stage, or of all."""
        spent = (usage for name, usage in self.usage.items() if stage in (None, name))
        return sum(usage.input_tokens for usage in spent) / max(self.cases, 1)

    @property
    def calls(self) -> float:
        """Calls of a model per user."""
        return sum(usage.calls for usage in self.usage.values()) / max(self.cases, 1)

    @property
    def rounds(self) -> float:
        """Consecutive calls of a model per user; concurrent calls count as one."""
        return sum(usage.rounds for usage in self.usage.values()) / max(self.cases, 1)

    @property
    def model(self) -> str:
        """The models that were used, with those of single stages; empty for none."""
        settings = self.run.settings
        main = str(settings.get("llm_model") or "")
        others = [
            f"{stage} by {name}"
            for stage in ("profile", "search", "recall", "rerank")
            if (name := settings.get(f"llm_{stage}_model")) and name != main
        ]
        return ", ".join(filter(None, [main, *others]))

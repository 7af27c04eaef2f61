"""`Row`: one run of one system, with all that one needs to believe it and to repeat it."""

import hashlib
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TypeAlias

import msgspec

from app import __version__
from app.evaluation.dataset import Dataset
from app.evaluation.metrics import Comparison, Estimate, Measured

Scalar: TypeAlias = str | int | float | bool | None
Metrics: TypeAlias = dict[str, Estimate]


class Data(msgspec.Struct, frozen=True, kw_only=True):
    """What was evaluated on."""

    name: str
    checksums: dict[str, str]  # SHA-256 by file name
    items: int = 0
    readers: int = 0
    skipped: dict[str, int] = {}  # rows that were left out, by reason

    @classmethod
    def of(cls, dataset: Dataset) -> "Data":
        """The data set as a report names it."""
        return cls(
            name=dataset.name,
            checksums=dict(dataset.checksums),
            items=len(dataset.items),
            readers=len(dataset.readers),
            skipped=dict(dataset.skipped.counts),
        )


class Spent(msgspec.Struct, frozen=True, kw_only=True):
    """What one stage asked of a model, over all cases."""

    calls: int = 0
    rounds: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    cost_usd: float = 0.0
    fallbacks: int = 0


class Bucket(msgspec.Struct, frozen=True, kw_only=True):
    """The figures of some of the cases."""

    cases: int
    metrics: Metrics


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """What is known before the first question: who is asked what."""

    study: str
    data: Data
    protocol: str
    seed: int
    system: str
    settings: dict[str, Scalar] = {}  # of the protocol and of the system
    parameters: dict[str, Scalar] = {}  # what the study varies: the axes of its plots
    prompts: dict[str, str] = {}  # fingerprints by template
    version: str = __version__

    @property
    def key(self) -> str:
        """The same for runs that would give the same figures; a rename of the data changes nothing.

        Files count by what they hold, not by where they lie.
        """
        content = msgspec.structs.asdict(self) | {"data": sorted(self.data.checksums.values())}
        return hashlib.sha256(msgspec.json.encode(content, order="deterministic")).hexdigest()[:32]


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """A run and what came of it: one line of `results.jsonl`."""

    run: Run
    cases: int
    metrics: Metrics = {}  # none where only buckets or only costs were measured
    buckets: dict[str, Bucket] = {}
    flaws: dict[str, int] = {}  # answers that named an unknown, closed or repeated item
    usage: dict[str, Spent] = {}  # by stage
    degraded: int = 0  # answers for which a model failed and the embedded ranker stood in
    topics: dict[str, dict[str, float]] = {}  # shares of the commonest topics, by whose they are
    against: dict[str, dict[str, Comparison]] = {}  # other systems, on the same readers
    fit_s: float = 0.0
    rank_s: float = 0.0
    ended: str = ""  # ISO 8601, UTC
    key: str = ""

    @classmethod
    def of(
        cls,
        run: Run,
        measured: Measured,
        *,
        usage: Mapping[str, Spent] | None = None,
        degraded: int = 0,
        against: Mapping[str, Measured] | None = None,
        fit_s: float = 0.0,
        rank_s: float = 0.0,
    ) -> "Row":
        """The row of a run that has just ended. Intervals are drawn with the seed of the run.

        `against` names what other systems answered to the same cases.
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
        """How many readers were served a second, training aside; None where it was not timed."""
        return self.cases / self.rank_s if self.rank_s > 0 else None

    def tokens(self, stage: str | None = None) -> float:
        """Input tokens per reader: of one stage, or of all."""
        spent = (own for name, own in self.usage.items() if stage in (None, name))
        return sum(own.input_tokens for own in spent) / max(self.cases, 1)

    @property
    def calls(self) -> float:
        """Calls of a model per reader."""
        return sum(own.calls for own in self.usage.values()) / max(self.cases, 1)

    @property
    def rounds(self) -> float:
        """Calls of a model per reader that wait for one another; those at once count as one."""
        return sum(own.rounds for own in self.usage.values()) / max(self.cases, 1)

    @property
    def model(self) -> str:
        """Who was asked, with the models of single stages; empty where none was."""
        settings = self.run.settings
        main = str(settings.get("llm_model") or "")
        others = [
            f"{stage} by {name}"
            for stage in ("profile", "search", "recall", "rerank")
            if (name := settings.get(f"llm_{stage}_model")) and name != main
        ]
        return ", ".join(filter(None, [main, *others]))

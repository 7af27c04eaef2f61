"""Rows as a study would write them."""

from typing import Any

import msgspec

from app.evaluation.metrics import MetricEstimate
from app.evaluation.report import Bucket, Data, ModelUsage, ResultRow, Run

DATA = Data(
    name="films", checksums={"items.jsonl": "a1", "histories.jsonl": "b2"}, items=900, users=70
)


def estimate(value: float) -> MetricEstimate:
    return MetricEstimate(value, value * 0.8, value * 1.25, 60)


def run(system: str = "beam", **changes: Any) -> Run:
    known: dict[str, object] = {
        "study": "compare",
        "data": DATA,
        "protocol": "leave-last-out",
        "seed": 0,
        "system": system,
        "settings": {"limit": 20},
    }
    return msgspec.convert({**known, **changes}, Run)


def row(system: str = "beam", recall: float = 0.1, *, tokens: int = 0, **changes: Any) -> ResultRow:
    metrics = {
        "recall@20": estimate(recall),
        "recall@10": estimate(recall * 0.7),
        "ndcg@20": estimate(recall / 2),
        "x_random@20": estimate(recall * 450),
        "ilad@20": estimate(0.7),
    }
    part = {name: metrics[name] for name in ("recall@20", "ndcg@20")}
    return ResultRow(
        run=run(system, **changes),
        cases=60,
        metrics=metrics,
        buckets={bucket: Bucket(cases=20, metrics=part) for bucket in ("10–49", "1", "2–4")},
        usage={"search": ModelUsage(calls=60, input_tokens=60 * tokens)} if tokens else {},
        rank_s=0.5,
    )


SYSTEMS = ["beam", "flat semantic", "item-kNN", "random"]
COMPARED = [row(name, 0.02 * (n + 1), tokens=n * 900) for n, name in enumerate(SYSTEMS)]
GROWN = [
    row(name, tokens=tokens, study="tokens", parameters={"catalogue_size": size})
    for name, tokens, size in (
        ("beam", 3_000, 1_000),
        ("beam", 5_100, 1_000_000),
        ("flat", 14_000, 1_000),
        ("flat", 14_000_000, 1_000_000),
    )
]

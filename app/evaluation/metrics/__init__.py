"""Quality metrics, named as in lenskit and recommenders.

`SystemMetrics.of(cases, answers, CatalogStatistics.of(…)).summary(seed=0)` gives every figure with
a bootstrap 95 % interval, over all cases and by `Case.bucket`. Each metric's docstring has its
formula and source:

| name | definition |
|---|---|
| `recall@k`, `ndcg@k`, `mrr@k`, `hit_rate@k` | `accuracy`: means over the cases |
| `x_random@k` | recall over `accuracy.random_recall` |
| `gauc` | `accuracy.auc` of whole slates weighted by `accuracy.pairs_of`; by bucket: by history |
| `ilad@k`, `novelty@k`, `long_tail@k` | `beyond`: means over the cases |
| `popularity_shift@k` | from `beyond.popularity` |
| `coverage@k`, `gini@k` | `beyond`: over all items shown to any user |
| `topic_similarity@k` | `beyond.similarity` of answers and histories |
| `topic_similarity_targets@k` | `beyond.similarity` of answers and targets (the paper's text) |
| `topic_level` | `beyond.similarity` of targets and histories: a reference from the data |
| `position_spread@k` | see `SystemMetrics.summary` |
"""

from app.evaluation.metrics.answers import Answers, CatalogStatistics, topics_of
from app.evaluation.metrics.bootstrap import Mean, MetricEstimate, PairedComparison, compare
from app.evaluation.metrics.system_metrics import Summary, SystemMetrics

__all__ = [
    "Answers",
    "CatalogStatistics",
    "Mean",
    "MetricEstimate",
    "PairedComparison",
    "Summary",
    "SystemMetrics",
    "compare",
    "topics_of",
]

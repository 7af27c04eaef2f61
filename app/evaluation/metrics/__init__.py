"""What answers are worth: metrics by the names that lenskit and recommenders use.

`Measured.of(cases, answers, Background.of(…)).summary(seed=0)` gives every figure with a bootstrap
95 % interval, over all cases and by `Case.bucket`. Formula and source stand at each metric:

| name | what |
|---|---|
| `recall@k`, `ndcg@k`, `mrr@k`, `hit_rate@k` | `accuracy`: means over the cases |
| `x_random@k` | recall over `accuracy.random_recall` |
| `gauc` | `accuracy.auc` of whole slates weighted by `accuracy.pairs_of`; by bucket: by history |
| `ilad@k`, `novelty@k` | `beyond`: means over the cases |
| `popularity_shift@k` | `beyond.popularity` |
| `coverage@k`, `gini@k` | `beyond`: over the items that all readers were shown |
| `topic_similarity@k` | `beyond.similarity` of answers and histories |
| `topic_similarity_targets@k` | … of answers and targets, as the paper's text has it |
| `topic_level` | … of targets and histories: what the data itself reaches |
| `position_spread@k` | `Measured.summary` |
"""

from app.evaluation.metrics.answers import Answers, Background, topics_of
from app.evaluation.metrics.bootstrap import Comparison, Estimate, Mean, compare
from app.evaluation.metrics.measured import Measured, Summary

__all__ = [
    "Answers",
    "Background",
    "Comparison",
    "Estimate",
    "Mean",
    "Measured",
    "Summary",
    "compare",
    "topics_of",
]

"""The metrics once more, one case at a time and without arrays, straight from their formulas."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence

from app.evaluation.case import Case
from tree.item import Item


def allowed(case: Case, catalogue: Sequence[str]) -> list[str]:
    query = case.query
    pool = catalogue if query.candidates is None else query.candidates
    excluded = {*query.history, *query.excluded}
    return sorted({item for item in pool if item in set(catalogue)} - excluded)


def clean(case: Case, answer: Sequence[str], catalogue: Sequence[str]) -> list[str | None]:
    """The answer, with None where a rank holds nothing."""
    allowed_items = set(allowed(case, catalogue))
    valid: list[str | None] = []
    for item in answer:
        valid.append(item if item in allowed_items and item not in valid else None)
    return valid


def recall(case: Case, answer: Sequence[str | None], k: int) -> float:
    return len(set(answer[:k]) & case.targets) / len(case.targets)


def reciprocal_rank(case: Case, answer: Sequence[str | None], k: int) -> float:
    for rank, item in enumerate(answer[:k], 1):
        if item in case.targets:
            return 1 / rank
    return 0.0


def auc(case: Case, answer: Sequence[str | None], catalogue: Sequence[str]) -> float | None:
    pool = allowed(case, catalogue)
    worst = len(answer) + 1
    place = {item: answer.index(item) if item in answer else worst for item in pool}
    pairs = [(t, o) for t in pool if t in case.targets for o in pool if o not in case.targets]
    if not pairs:
        return None
    won = sum((place[t] < place[o]) + (place[t] == place[o]) / 2 for t, o in pairs)
    return won / len(pairs)


def ilad(answer: Sequence[str | None], vectors: Mapping[str, Sequence[float]]) -> float | None:
    items = [item for item in answer if item is not None]
    pairs = [(a, b) for place, a in enumerate(items) for b in items[place + 1 :]]
    if not pairs:
        return None
    return sum(1 - _cosine(vectors[a], vectors[b]) for a, b in pairs) / len(pairs)


def gini(exposure: Sequence[float]) -> float:
    """Half the mean difference of any two, over the mean."""
    n, mean = len(exposure), sum(exposure) / len(exposure)
    return sum(abs(a - b) for a in exposure for b in exposure) / (2 * n * n * mean)


def topic_similarity(first: Sequence[str], second: Sequence[str], items: Sequence[Item]) -> float:
    topic = {item.id: item.categories[:2] for item in items}
    one, other = (Counter(topic[item] for item in ids if topic[item]) for ids in (first, second))
    topics = sorted({*one, *other})
    return _cosine([one[t] for t in topics], [other[t] for t in topics])


def _cosine(a: Sequence[float], b: Sequence[float]) -> float:
    norms = math.hypot(*a) * math.hypot(*b)
    return sum(x * y for x, y in zip(a, b, strict=True)) / norms if norms else 0.0

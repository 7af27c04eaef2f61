"""Whether answers contain the targets. One value per case."""

import numpy as np

from app.evaluation.metrics.answers import Answers, Floats


def recall(answers: Answers, k: int) -> Floats:
    """The share of the targets that are among the first k: |answer@k ∩ targets| / |targets|.

    nan without targets. As `recall_at_k` of recommenders; lenskit (`Recall`) divides by
    min(k, |targets|), which is the same unless a case has more than k targets.
    """
    return _ratio(answers.hits[:, :k].sum(axis=1), answers.targets)


def hit_rate(answers: Answers, k: int) -> Floats:
    """Whether at least one target is among the first k: 1 or 0.

    nan without targets. As in lenskit (`Hit`). Equals recall where there is one target.
    """
    found = answers.hits[:, :k].any(axis=1)
    return np.where(answers.targets > 0, found, np.nan).astype(np.float64)


def reciprocal_rank(answers: Answers, k: int) -> Floats:
    """1 / rank of the first target, 0 where none is among the first k; its mean is the MRR.

    nan without targets. Voorhees, "The TREC-8 question answering track report", 1999; as in
    lenskit (`RecipRank`).
    """
    hits = answers.hits[:, :k]
    found = np.where(hits.any(axis=1), 1 / (1 + hits.argmax(axis=1)), 0.0)
    return np.where(answers.targets > 0, found, np.nan)


def ndcg(answers: Answers, k: int) -> Floats:
    """DCG@k over the highest possible DCG@k; DCG = Σ hit(r) / log2(1 + r) over ranks r from 1.

    The highest has min(k, |targets|) hits on top. nan without targets. Järvelin and Kekäläinen,
    "Cumulated gain-based evaluation of IR techniques", 2002, with binary gain and the discount of
    scikit-learn (`ndcg_score`) and recommenders (`ndcg_at_k`); lenskit (`NDCG`) takes the original
    one, max(1, log2(r)), which gives the first two ranks the same weight.
    """
    hits = answers.hits[:, :k]
    gains = 1 / np.log2(np.arange(2, max(k, hits.shape[1]) + 2))
    ideal = np.concatenate([[0.0], np.cumsum(gains[:k])])
    return _ratio(hits @ gains[: hits.shape[1]], ideal[np.minimum(answers.targets, k)])


def random_recall(answers: Answers, k: int) -> Floats:
    """The expected recall@k of k different items, drawn at random from the allowed ones.

    Each of the m allowed items is drawn with probability min(1, k/m), so the expectation is
    min(1, k/m) · |allowed targets| / |targets|: the mean of a hypergeometric distribution.
    Allowed are the candidates, or the catalogue, without history and excluded items.
    Mean recall over the mean of this is "× random", as in LLMTreeRec (COLING 2025), table 2.
    """
    drawn = np.minimum(1.0, k / np.maximum(answers.pool, 1))
    return drawn * _ratio(answers.reachable, answers.targets)


def auc(answers: Answers, limit: int | None = None) -> Floats:
    """The probability that a target ranks above another candidate: the area under the ROC curve.

    Σ over (target, other) of [above] + ½ [tied], over the number of such pairs; candidates that are
    not in the answer tie at the end. nan without candidates, or where all or none are targets. nan
    also where fewer items were requested (`limit`) than there are candidates: the value would
    depend on the length of the list. Fawcett, "An introduction to ROC analysis", 2006.
    """
    answered = answers.items >= 0
    targets, others = answers.reachable, answers.pool - answers.reachable
    missed_targets = targets - answers.hits.sum(axis=1)
    missed_others = others - (answered & ~answers.hits).sum(axis=1)
    above = np.cumsum(answered & ~answers.hits, axis=1)
    won = np.where(answers.hits, others[:, None] - above, 0).sum(axis=1)
    values = _ratio(won + missed_targets * missed_others / 2, targets * others)
    whole = answers.pool <= (limit if limit is not None else np.inf)
    return np.where(answers.bounded & whole, values, np.nan)


def pairs_of(answers: Answers) -> Floats:
    """The weight of each case in GAUC: its number of candidates.

    GAUC = Σ candidates · AUC / Σ candidates over the users' impressions. Zhu et al., "Optimized
    cost per click in Taobao display advertising", 2017; Zhou et al., "Deep interest network",
    2018. By history length, it shows for how long a history a ranker helps; gorse compares LLM
    rerankers with factorization machines in this way.
    """
    return answers.pool.astype(np.float64)


def _ratio(above: Floats | np.ndarray, below: Floats | np.ndarray) -> Floats:
    return np.where(below > 0, above / np.where(below > 0, below, 1), np.nan)

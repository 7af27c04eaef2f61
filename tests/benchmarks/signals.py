"""What users' events add to the quality: recorded in a real store, then measured.

Leave-last-out over the full catalogue: the last event of the first thousand users is the target,
all other events are recorded. Weight, shrinkage and bounds were chosen on other events: games on
the second thousand users, films on the last event but one of all users.
"""

import asyncio
import random
import tempfile
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from redis.asyncio import Redis
from scipy.sparse import csr_matrix, diags

from app.embedders import EmbedderCache
from app.recommend import RecommendConfig, Recommender, RecommendRequest
from app.settings import Settings
from app.signals import Signals
from app.storage.documents import MemoryDocuments
from app.storage.feedback import Event, Feedback
from app.storage.keys import FeedbackKeys, classify
from app.storage.memory_feedback import MemoryFeedback
from app.storage.redis_feedback import RedisFeedback
from tests.benchmarks import data
from tests.benchmarks.figures import Figure
from tests.benchmarks.quality import tree_of
from tree.redis.connection import connect
from tree.redis.embedded_server import EmbeddedServer
from tree.snapshot import SemanticTree
from tree.store.memory import MemoryTreeStore

NAMES = ("amazon_games", "ml_latest_small")
SHARES = (0.1, 0.25, 0.5, 1.0)
_USERS = 1_000
_TOP = 20
_BATCH = 1_000
_BUCKETS = ((4, 4), (5, 9), (10, 49), (50, 10_000))
_SHORT = (1, 3)
_BETTER = 1.15

UserMetrics = npt.NDArray[np.float64]  # [users, 2]: recall and NDCG at 20


@dataclass(frozen=True)
class LeaveLastOut:
    """Histories with their targets, and the training events."""

    histories: list[list[str]]
    targets: list[str]
    training: list[tuple[str, list[str]]]  # in random order


def leave_last_out(name: str) -> LeaveLastOut:
    """All users of a data set; the last event of the first thousand is the target."""
    evaluated = data.histories(name, _USERS)
    all_users = data.histories(name, 10**9, least=1)
    evaluated_histories = {tuple(history) for history in evaluated}
    training = [
        (str(number), history[:-1] if tuple(history) in evaluated_histories else history)
        for number, history in enumerate(all_users)
    ]
    random.Random(1).shuffle(training)
    return LeaveLastOut([h[:-1] for h in evaluated], [h[-1] for h in evaluated], training)


def interleaved(training: Sequence[tuple[str, list[str]]]) -> Iterator[Event]:
    """The events of users in random order; the events of one user keep their order."""
    turns = [number for number, (_, history) in enumerate(training) for _ in history]
    random.Random(2).shuffle(turns)
    place = [0] * len(training)
    for at, number in enumerate(turns):
        user, history = training[number]
        yield Event(f"{user}/{place[number]}", user, history[place[number]], at)
        place[number] += 1


def metrics_of(answers: Sequence[Sequence[str]], targets: Sequence[str]) -> UserMetrics:
    found = np.zeros((len(targets), 2))
    for row, (answer, target) in enumerate(zip(answers, targets, strict=True)):
        if target in answer:
            found[row] = 1, 1 / np.log2(answer.index(target) + 2)
    return found


class Baselines:
    """Most popular items and item-kNN over all training events, by plain matrices."""

    def __init__(self, training: Sequence[tuple[str, list[str]]]) -> None:
        self._ids = sorted({item for _, history in training for item in history})
        self._at = {item: at for at, item in enumerate(self._ids)}
        had = self._matrix([history for _, history in training])
        self.counts = np.asarray(had.sum(0)).ravel()
        self._together = (had.T @ had).tocsr()
        self._together.setdiag(0)
        scale = diags(1 / np.sqrt(np.maximum(self.counts, 1)))
        self._cosine = (scale @ self._together @ scale).tocsr()

    def answers(self, histories: Sequence[Sequence[str]]) -> dict[str, list[list[str]]]:
        asked = self._matrix(histories)
        popular = np.tile(self.counts, (len(histories), 1))
        return {
            "popular": self._best(popular, asked),
            "item-kNN, cosine": self._best((asked @ self._cosine).toarray(), asked),
            "item-kNN, counts": self._best((asked @ self._together).toarray(), asked),
        }

    def _matrix(self, histories: Sequence[Sequence[str]]) -> csr_matrix:
        rows = [{self._at[item] for item in history if item in self._at} for history in histories]
        ends = np.cumsum([0, *map(len, rows)])
        columns = np.array([at for row in rows for at in row], np.int32)
        shape = (len(rows), len(self._ids))
        return csr_matrix((np.ones(len(columns), np.float32), columns, ends), shape=shape)

    def _best(self, scores: npt.NDArray[np.floating], seen: csr_matrix) -> list[list[str]]:
        scores = np.where(seen.toarray() > 0, -np.inf, scores)
        order = np.argsort(-scores, axis=1, kind="stable")[:, :_TOP]
        return [[self._ids[at] for at in row] for row in order.tolist()]


@asynccontextmanager
async def real_feedback(catalog: str) -> AsyncIterator[tuple[RedisFeedback, Redis]]:
    """Feedback on its own store, as in the service."""
    with tempfile.TemporaryDirectory() as folder:
        server = await EmbeddedServer.start(Path(folder))
        try:
            async with connect(server.connect_url) as client:
                yield RedisFeedback(client, catalog), client
        finally:
            await server.stop()


async def fed(feedback: Feedback, training: Sequence[tuple[str, list[str]]]) -> float:
    """Records the events; returns the seconds that it took."""
    events = list(interleaved(training))
    began = time.perf_counter()
    for start in range(0, len(events), _BATCH):
        await feedback.record(events[start : start + _BATCH])
    return time.perf_counter() - began


async def answered(
    recommender: Recommender, histories: Sequence[Sequence[str]], diversity: float
) -> list[list[str]]:
    found = []
    for history in histories:
        request = RecommendRequest.model_validate(
            {
                "history": [{"item_id": item} for item in history],
                "limit": _TOP,
                "diversity": diversity,
                "explain": "none",
            }
        )
        found.append([item.item_id for item in (await recommender.recommend(request)).items])
    return found


async def bytes_by_role(client: Redis) -> dict[str, int]:
    """The memory of the keys of each kind, as the server counts it."""
    total: dict[str, int] = {}
    keys = [key async for key in client.scan_iter(match="*", count=1_000)]
    for start in range(0, len(keys), 1_000):
        pipeline = client.pipeline(transaction=False)
        for key in keys[start : start + 1_000]:
            pipeline.memory_usage(key, samples=0)
        for key, size in zip(keys[start : start + 1_000], await pipeline.execute(), strict=True):
            role = key.decode().split("}:")[1].split(":")[0]
            classify(key.decode())
            total[role] = total.get(role, 0) + size
    return total


async def evaluated(name: str) -> list[Figure]:
    items = data.real_items(name)
    case = leave_last_out(name)
    tree = await asyncio.to_thread(tree_of, items)
    store = MemoryTreeStore(space=tree.space, settings=tree.settings)
    await store.stage(items)
    await store.replace(tree, base=0)
    embedders, settings = EmbedderCache(), Settings()

    def recommender(feedback: Feedback) -> Recommender:
        parts = (store, MemoryDocuments(), embedders, RecommendConfig.of(settings))
        return Recommender(name, *parts, feedback=feedback)

    def metrics(found: Sequence[Sequence[str]]) -> UserMetrics:
        return metrics_of(found, case.targets)

    figures: list[Figure] = []
    zero = recommender(MemoryFeedback())
    baselines = Baselines(case.training)
    others = {"semantic": metrics(await answered(zero, case.histories, 0))}
    others |= {who: metrics(found) for who, found in baselines.answers(case.histories).items()}
    for who, found in others.items():
        figures += _pair(f"{name}: {who}", found)

    async with real_feedback(name) as (feedback, client):
        known = 0
        for share in SHARES:
            upto = round(share * len(case.training))
            took = await fed(feedback, case.training[known:upto])
            events = sum(len(history) for _, history in case.training[known:upto])
            known = upto
            ours = metrics(await answered(recommender(feedback), case.histories, 0))
            figures += _pair(f"{name}: hybrid, events of {share:.0%} of the users", ours)
        figures += _against(name, ours, others)
        varied = metrics(await answered(recommender(feedback), case.histories, settings.diversity))
        figures += _pair(f"{name}: hybrid at the default diversity", varied)
        figures += _by_length(name, ours, others, [len(h) for h in case.histories])
        for length in _SHORT:
            short = [history[-length:] for history in case.histories]
            again = {"semantic": metrics(await answered(zero, short, 0))}
            again |= {who: metrics(found) for who, found in baselines.answers(short).items()}
            mine = metrics(await answered(recommender(feedback), short, 0))
            figures += _worst(f"{name}: of {length} event{'s'[: length - 1]}", mine, again)
        figures.append(Figure(f"{name}: events fed", events / took, "a second"))
        sizes = await bytes_by_role(client)
        counted = len(baselines.counts)
        fed_in_all = sum(len(history) for _, history in case.training)
        for role, what, per in (
            ("near", "item", counted), ("count", "item", counted), ("visited", "user", known),
            ("event", "event", fed_in_all),
        ):  # fmt: skip
            figures.append(Figure(f"{name}: {role}", sizes[role] / per, f"B per {what}"))
        most = [
            await client.memory_usage(FeedbackKeys(name).neighbours(item), samples=0) or 0
            for item in _most_popular(case)
        ]
        figures.append(
            Figure(f"{name}: neighbours of the most popular", max(most), "B", "≤", 4_096)
        )
        figures.append(await _latency(feedback, tree, case, settings))
    return figures


def _most_popular(case: LeaveLastOut) -> list[str]:
    counts: dict[str, int] = {}
    for _, history in case.training:
        for item in history:
            counts[item] = counts.get(item, 0) + 1
    return sorted(counts, key=lambda item: -counts[item])[:20]


async def _latency(
    feedback: Feedback, tree: SemanticTree, case: LeaveLastOut, settings: Settings
) -> Figure:
    signals = Signals(feedback, RecommendConfig.of(settings).signals)
    times = []
    for history in case.histories[:300]:
        began = time.perf_counter()
        await signals.of(tree, history[::-1], settings.rank_weights)
        times.append(time.perf_counter() - began)
    await signals.aclose()
    return Figure("time of event scores per request, median", float(np.median(times)) * 1000, "ms",
                  "≤", 2)  # fmt: skip


def _pair(what: str, found: UserMetrics) -> list[Figure]:
    recall, ndcg = found.mean(0)
    return [Figure(f"{what}: R@20", recall), Figure(f"{what}: NDCG@20", ndcg)]


def _against(name: str, ours: UserMetrics, others: dict[str, UserMetrics]) -> list[Figure]:
    best = np.max([found.mean(0) for found in others.values()], axis=0)
    ratios = ours.mean(0) / best
    return [
        Figure(f"{name}: R@20 against the best of them", ratios[0], "×", "≥", _BETTER),
        Figure(f"{name}: NDCG@20 against the best of them", ratios[1], "×", "≥", _BETTER),
    ]


def _by_length(
    name: str, ours: UserMetrics, others: dict[str, UserMetrics], lengths: Sequence[int]
) -> list[Figure]:
    figures = []
    for least, most in _BUCKETS:
        here = np.array([least <= length <= most for length in lengths])
        if here.any():
            label = f"{name}: histories of {least} to {most} ({here.sum()})"
            figures += _worst(label, ours[here], {who: m[here] for who, m in others.items()})
    return figures


def _worst(what: str, ours: UserMetrics, others: dict[str, UserMetrics]) -> list[Figure]:
    """Both metrics, and the lead of the best other system in standard errors of the difference."""
    ahead = -np.inf
    for found in others.values():
        gap = found - ours
        error = np.maximum(gap.std(0) / np.sqrt(len(gap)), 1e-9)
        ahead = max(ahead, float((gap.mean(0) / error).max()))
    best = np.max([found.mean(0) for found in others.values()], axis=0)
    recall, ndcg = ours.mean(0)
    return [
        Figure(f"{what}: R@20 (best other {best[0]:.3f})", recall),
        Figure(f"{what}: NDCG@20 (best other {best[1]:.3f})", ndcg),
        Figure(f"{what}: lead of the best other", ahead, "s.e.", "≤", 1.96),
    ]


def real() -> Iterator[Figure]:
    """All figures of this module."""
    for name in NAMES:
        if name in data.available():
            yield from asyncio.run(evaluated(name))

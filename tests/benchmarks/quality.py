"""Shape of the tree and quality of its answers, on real catalogues."""

import asyncio
from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from app.curate.building import ListSource, build
from app.embedders import EmbedderCache
from app.jobs import JobReport
from app.recommend import RecommendConfig, Recommender, RecommendRequest
from app.settings import Settings
from app.storage.documents import MemoryDocuments
from tests.arrays import equal
from tests.benchmarks import data
from tests.benchmarks.figures import Figure
from tree import inspect
from tree.beam_search import SimilarityScorer, search
from tree.item import Item
from tree.node import TreeSettings
from tree.snapshot import SemanticTree
from tree.store.memory import MemoryTreeStore

BEAMS = (6, 20, 40, 80, 160)
_BEAM_TARGETS = {20: 0.75, 80: 0.92}
_BEAM_CATALOGUES = ("amazon_games", "ml_latest_small", "amazon_cds")
_RECALL_TARGETS = {"amazon_games": 0.054, "ml_latest_small": 0.036, "mind": 0.045}
_USERS = 1_000
_SEARCHES = 200
_TOP = 20


def tree_of(items: Sequence[Item], settings: TreeSettings = TreeSettings()) -> SemanticTree:  # noqa: B008
    """The tree that a rebuild makes of these items."""
    return asyncio.run(build(ListSource(items), settings, JobReport.unwatched()))


def shape(name: str, tree: SemanticTree, again: SemanticTree) -> Iterator[Figure]:
    figures = inspect.statistics(tree)
    yield Figure(f"{name}: largest leaf", figures.largest_leaf, "items", "≤", 20)
    yield Figure(f"{name}: leaf Gini", round(figures.gini, 4), "", "≤", 0.30)
    yield Figure(f"{name}: depth", figures.depth, "levels", "≤", figures.depth_limit)
    yield Figure(f"{name}: violations (items not reachable, …)", len(inspect.violations(tree)),
                 "", "=", 0)  # fmt: skip
    yield Figure(f"{name}: leaves", figures.leaves)
    yield Figure(f"{name}: second build differs in", _differences(tree, again), "parts", "=", 0)


def _differences(one: SemanticTree, other: SemanticTree) -> int:
    mine, theirs = one.parts(), other.parts()
    return sum(
        (
            mine[0] != theirs[0],
            mine[1].ids != theirs[1].ids,
            not np.array_equal(mine[1].vectors, theirs[1].vectors),
            mine[2] != theirs[2],
            not equal(mine[3], theirs[3]),
            one.space != other.space,
        )
    )


class Oracle:
    """The scores of the embedded ranker, computed in float arithmetic over all items."""

    def __init__(self, tree: SemanticTree, settings: Settings) -> None:
        vectors = tree.rows.vectors[: tree.size].astype(np.float32)
        lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
        self._tree = tree
        self._unit = np.divide(vectors, lengths, out=vectors, where=lengths > 0)
        self._settings = settings

    def need(self, history: Sequence[str]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
        """Rows of the newest items that count, newest first, and their weights."""
        newest = list(dict.fromkeys(reversed(history)))
        rows = [row for row in map(self._tree.row, newest) if row is not None]
        rows = rows[: self._settings.history_items]
        weights = self._settings.history_decay ** np.arange(len(rows))
        return np.array(rows, np.int64), (weights / weights.sum()).astype(np.float32)

    def scores(self, history: Sequence[str]) -> npt.NDArray[np.float32]:
        """Every item's score; what the user has seen gets -inf."""
        rows, weights = self.need(history)
        sharpness = self._settings.sharpness
        near = self._unit @ self._unit[rows].T
        scores = np.log(np.exp(sharpness * near) @ weights) / sharpness
        scores[[row for row in map(self._tree.row, history) if row is not None]] = -np.inf
        return scores

    def top(self, history: Sequence[str]) -> npt.NDArray[np.int64]:
        scores = self.scores(history)
        return np.argsort(-scores, kind="stable")[:_TOP]


def answers(
    name: str, items: Sequence[Item], tree: SemanticTree, users: Sequence[Sequence[str]],
    *, share_target: float, recall_target: float | None = None, leave_last: bool = True,
) -> Iterator[Figure]:  # fmt: skip
    """What the service answers against the flat oracle, and against what users did next."""
    settings = Settings(popularity_weight=0)
    oracle = Oracle(tree, settings)
    shares: dict[str, list[float]] = {"0": [], "default": []}
    hits: list[float] = []
    gains: list[float] = []

    async def ask() -> None:
        store = MemoryTreeStore(space=tree.space, settings=tree.settings)
        await store.stage(items)
        await store.replace(tree, base=0)
        recommender = Recommender(
            name, store, MemoryDocuments(), EmbedderCache(), RecommendConfig.of(settings)
        )
        for history in users:
            shown = list(history[:-1] if leave_last else history)
            if not any(item in tree for item in shown):
                continue
            best = {tree.rows.id(int(row)) for row in oracle.top(shown)}
            for label, share in shares.items():
                request = RecommendRequest.model_validate(
                    {
                        "history": [{"item_id": item} for item in shown],
                        "limit": _TOP,
                        **({"diversity": 0.0} if label == "0" else {}),
                    }
                )
                answer = [item.item_id for item in (await recommender.recommend(request)).items]
                share.append(len(best & set(answer)) / len(best))
                if label == "0" and leave_last and history[-1] in tree:
                    hit = history[-1] in answer
                    hits.append(hit)
                    gains.append(1 / np.log2(answer.index(history[-1]) + 2) if hit else 0.0)

    asyncio.run(ask())
    yield Figure(f"{name}: share of the oracle's top 20, diversity 0", float(np.mean(shares["0"])),
                 "", "≥", share_target)  # fmt: skip
    yield Figure(f"{name}: the same at the default diversity", float(np.mean(shares["default"])))
    if leave_last:
        yield Figure(f"{name}: R@20 ({len(hits)} users)", float(np.mean(hits)), "", "≥",
                     recall_target)  # fmt: skip
        yield Figure(f"{name}: NDCG@20", float(np.mean(gains)))


def beams(name: str, tree: SemanticTree, users: Sequence[Sequence[str]]) -> Iterator[Figure]:
    """Share of the oracle's top 20 in the leaves that the tree search reaches, by beam width."""
    settings = Settings()
    oracle = Oracle(tree, settings)
    found: dict[int, list[float]] = {width: [] for width in BEAMS}

    async def reach() -> None:
        for history in users[:_SEARCHES]:
            rows, weights = oracle.need(history[:-1])
            if not len(rows):
                continue
            scorer = SimilarityScorer(
                tree.rows.vectors[rows], weights, np.arange(len(rows)), settings.sharpness
            )
            top_leaves = tree.rows.leaf[oracle.top(history[:-1])].tolist()
            for width in BEAMS:
                result = await search(tree, scorer, leaves=width, breadth=64)
                reached = {leaf.id for leaf in result.leaves}
                found[width].append(
                    sum(leaf_id in reached for leaf_id in top_leaves) / len(top_leaves)
                )

    asyncio.run(reach())
    for width in BEAMS:
        target = _BEAM_TARGETS.get(width) if name in _BEAM_CATALOGUES else None
        yield Figure(f"{name}: {width} leaves hold of the oracle's top 20",
                     float(np.mean(found[width])), "", "≥", target)  # fmt: skip


def real() -> Iterator[Figure]:
    """All figures of this module on the real catalogues."""
    for name in data.available():
        items = data.real_items(name)
        tree = tree_of(items)
        yield from shape(name, tree, tree_of(items))
        users = data.histories(name, _USERS)
        yield from answers(
            name, items, tree, users,
            share_target=0.98, recall_target=_RECALL_TARGETS.get(name),
        )  # fmt: skip
        yield from beams(name, tree, users)

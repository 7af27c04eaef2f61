"""`Recommender`: the chain for one catalogue."""

import asyncio
import json
import secrets
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from app.ranking import EmbeddedRanker, Need, Ranking, diversified, strongest
from app.recommend.answer import Recommendation, RecommendedItem, SimilarItems, Usage
from app.recommend.need import Known, disliked, path_name, understand
from app.recommend.request import Filter, RecommendRequest, field_of
from app.settings import Settings
from tree.embedders import EmbedderCache
from tree.item import Item, normalise
from tree.rows import IntArray
from tree.snapshot import SemanticTree
from tree.store.documents import Documents
from tree.store.protocol import TreeStore

_POOL = 5  # candidates per wanted item, from which the re-rank chooses
_SPARE = 4  # records read beyond the limit, in case an item has just left
_TRACED_LEAVES = 20


class DeadlineExceeded(Exception):
    """The request's `timeout_ms` ran out."""


@dataclass(slots=True)
class _Clock:
    """Milliseconds per stage."""

    began: float = field(default_factory=time.perf_counter)
    stages: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        try:
            yield
        finally:
            spent = (time.perf_counter() - start) * 1000
            self.stages[name] = round(self.stages.get(name, 0.0) + spent, 3)

    def timing(self) -> dict[str, float]:
        return {**self.stages, "total": round((time.perf_counter() - self.began) * 1000, 3)}


@dataclass(frozen=True, slots=True)
class _Candidates:
    """Allowed rows that pass the filter, best first, and the ranking that they come from."""

    ranking: Ranking
    rows: IntArray
    scores: npt.NDArray[np.float32]


class Recommender:
    """Answers readers of one catalogue. Holds no state of theirs."""

    def __init__(
        self,
        catalog: str,
        store: TreeStore,
        documents: Documents,
        embedders: EmbedderCache,
        settings: Settings,
    ) -> None:
        self._catalog = catalog
        self._store = store
        self._documents = documents
        self._embedders = embedders
        self._settings = settings
        self._ranker = EmbeddedRanker(
            settings.sharpness,
            settings.popularity_weight,
            settings.exact_scan_items,
            settings.beam_leaves,
            settings.beam_breadth,
        )

    async def recommend(self, request: RecommendRequest) -> Recommendation:
        """The chain, on one version of the tree.

        Raises DeadlineExceeded, StoreUnavailable.
        """
        try:
            async with asyncio.timeout(request.timeout_ms / 1000):
                return await self._recommend(request)
        except TimeoutError as error:
            raise DeadlineExceeded(
                f"no answer within {request.timeout_ms} ms: raise timeout_ms, or ask for less"
            ) from error

    async def similar(self, item_id: str, limit: int) -> SimilarItems | None:
        """The nearest neighbours of an item; None when the tree does not hold it."""
        tree = await self._store.load()
        row = tree.row(item_id)
        if row is None:
            return None
        label = path_name(tree.path(int(tree.rows.leaf[row])))
        need = Need(
            (),
            tree.rows.vectors[row : row + 1],
            np.ones(1, np.float32),
            np.zeros(1, np.int64),
            (label,),
        )
        found = await self._recall(tree, need, _allowed(tree, (row,), (), None), limit, None)
        chosen = await self._live(tree, found, list(range(len(found.rows))), limit, None)
        items = [
            self._item(tree, found, at, item, rank, ["title"], None)
            for rank, (at, item) in enumerate(chosen, 1)
        ]
        return SimilarItems(
            catalog=self._catalog, tree_version=tree.version, item_id=item_id, items=items
        )

    async def trace(self, recommendation_id: str) -> dict[str, object] | None:
        """How an answer came about; None when it is not kept (any more)."""
        data = await self._documents.get("trace", f"{self._catalog}/{recommendation_id}")
        return None if data is None else json.loads(data)

    # -- the stages

    async def _recommend(self, request: RecommendRequest) -> Recommendation:
        clock = _Clock()
        tree = await self._store.load()
        with clock.stage("profile"):
            embedder = self._embedders.of(tree.space)
            known = understand(tree, request, embedder, self._settings)
        diversity = self._settings.diversity if request.diversity is None else request.diversity
        pool = request.limit + _SPARE if not diversity else max(50, _POOL * request.limit)
        with clock.stage("search"):
            allowed = _allowed(tree, known.seen, request.exclude_items, request.domains)
            if unwanted := disliked(tree, known.need.dislikes):
                allowed &= ~np.isin(tree.rows.leaf[: tree.size], unwanted)
            found = await self._recall(tree, known.need, allowed, pool, request.filter)
        with clock.stage("rerank"):
            first = diversified(tree, found.rows, found.scores, diversity, request.limit + _SPARE)
            order = list(dict.fromkeys([*first, *range(len(found.rows))]))
        with clock.stage("recall"):
            chosen = await self._live(tree, found, order, request.limit, request.filter)
            rows = [int(found.rows[at]) for at, _ in chosen]
            reasons = await self._reasons(tree, request, known, rows)
        answer = Recommendation(
            recommendation_id=f"rec_{secrets.token_urlsafe(12)}",
            catalog=self._catalog,
            tree_version=tree.version,
            items=[
                self._item(tree, found, at, item, rank, request.fields, reason)
                for rank, ((at, item), reason) in enumerate(zip(chosen, reasons, strict=True), 1)
            ],
            absent_items=list(known.absent),
            usage=Usage(),
            timing_ms=clock.timing(),
        )
        await self._keep_trace(tree, request, known, found.ranking, answer)
        return answer

    async def _recall(
        self,
        tree: SemanticTree,
        need: Need,
        allowed: npt.NDArray[np.bool_],
        wanted: int,
        passes: Filter | None,
    ) -> _Candidates:
        """The best `wanted` rows that pass the filter, or all there are.

        A filter tests records, which the tree does not hold: they are read in the order of the
        ranking, in growing batches, until enough have passed.
        """
        ranking = await self._ranker.rank(tree, need, allowed, wanted)
        if passes is None:
            return _Candidates(ranking, ranking.rows, ranking.scores)
        verdicts: dict[int, bool] = {}  # by row: a wider beam may find better ones in between
        asked = wanted
        while True:
            untested = [row for row in ranking.rows.tolist() if row not in verdicts]
            ids = [tree.rows.id(row) for row in untested]
            records = await self._store.items(ids)
            for row, item_id in zip(untested, ids, strict=True):
                item = records.get(item_id)
                verdicts[row] = item is not None and passes.holds(item)
            kept = [at for at, row in enumerate(ranking.rows.tolist()) if verdicts[row]]
            if len(kept) >= wanted or len(ranking.rows) < asked:
                break
            asked *= 4
            ranking = await self._ranker.rank(tree, need, allowed, asked)
        chosen = np.array(kept[:wanted], np.int64)
        return _Candidates(ranking, ranking.rows[chosen], ranking.scores[chosen])

    async def _live(
        self,
        tree: SemanticTree,
        found: _Candidates,
        order: Sequence[int],
        limit: int,
        passes: Filter | None,
    ) -> list[tuple[int, Item]]:
        """The last gate: the first `limit` of `order` whose record says that they may be shown."""
        now = time.time()
        chosen: list[tuple[int, Item]] = []
        start = 0
        while len(chosen) < limit and start < len(order):
            batch = order[start : start + limit + _SPARE]
            start += len(batch)
            ids = [tree.rows.id(int(found.rows[at])) for at in batch]
            records = await self._store.items(ids)
            for at, item_id in zip(batch, ids, strict=True):
                item = records.get(item_id)
                if item and _shown(item, now) and (passes is None or passes.holds(item)):
                    chosen.append((at, item))
        return chosen[:limit]

    async def _reasons(
        self,
        tree: SemanticTree,
        request: RecommendRequest,
        known: Known,
        rows: Sequence[int],
    ) -> list[str | None]:
        if request.explain == "none" or not rows:
            return [None] * len(rows)
        need = known.need
        if need.is_empty:
            return ["a first suggestion from this catalogue"] * len(rows)
        nearest = strongest(tree, need, np.array(rows, np.int32), self._settings.sharpness)
        titles: dict[str, Item] = {}
        if request.explain == "full":
            titles = await self._store.items({need.sources[i] for i in nearest.tolist()})
        reasons: list[str | None] = []
        for direction in nearest.tolist():
            interest = need.interests[int(need.owner[direction])]
            source = need.sources[direction]
            if interest.said == "wish":
                reason = f"matches what you said: “{_cut(interest.name)}”"
            elif interest.said == "title":
                reason = f"because you mentioned “{_cut(interest.name)}”"
            else:
                reason = f"because of your interest in {interest.name}"
                if request.explain == "full":
                    title = titles[source].title if source in titles else source
                    reason += f"; closest to “{_cut(title)}” in your history"
            reasons.append(reason)
        return reasons

    def _item(
        self,
        tree: SemanticTree,
        found: _Candidates,
        at: int,
        item: Item,
        rank: int,
        fields: Sequence[str],
        reason: str | None,
    ) -> RecommendedItem:
        leaf = int(tree.rows.leaf[found.rows[at]])
        values = {name: field_of(item, name) for name in fields}
        return RecommendedItem(
            item_id=item.id,
            rank=rank,
            score=round(float(found.scores[at]), 4),
            fields={name: value for name, value in values.items() if value is not None},
            path=[node.label for node in tree.path(leaf)],
            reason=reason,
        )

    async def _keep_trace(
        self,
        tree: SemanticTree,
        request: RecommendRequest,
        known: Known,
        ranking: Ranking,
        answer: Recommendation,
    ) -> None:
        trace = {
            "recommendation_id": answer.recommendation_id,
            "catalog": self._catalog,
            "tree_version": tree.version,
            "user_id": request.user_id,
            "scenario": request.scenario,
            "strategy": "embedded",
            "interests": [
                {"name": interest.name, "weight": interest.weight, "said": interest.said}
                for interest in known.need.interests
            ],
            "search": {
                "scan": not ranking.leaves,
                "nodes_offered": ranking.scored_nodes,
                "levels": ranking.levels,
                "leaves_reached": len(ranking.leaves),
                "best_leaves": [leaf.id for leaf in ranking.leaves[:_TRACED_LEAVES]],
                "items_scored": ranking.scored_items,
            },
            "items": [{"item_id": item.item_id, "score": item.score} for item in answer.items],
            "usage": answer.usage.model_dump(),
            "timing_ms": answer.timing_ms,
        }
        await self._documents.put(
            "trace",
            f"{self._catalog}/{answer.recommendation_id}",
            json.dumps(trace).encode(),
            self._settings.trace_ttl_s,
        )


def _allowed(
    tree: SemanticTree,
    seen: Sequence[int],
    excluded: Sequence[str],
    domains: Sequence[str] | None,
) -> npt.NDArray[np.bool_]:
    """bool[tree.size]: the rows that this request may be answered with, by what the tree knows."""
    mask = tree.allowed(time.time())
    mask[list(seen)] = False
    for item_id in excluded:
        row = tree.row(item_id)
        if row is not None:
            mask[row] = False
    if domains is not None:
        wanted = {normalise(name) for name in domains}
        codes = [code for code, name in enumerate(tree.rows.domains) if normalise(name) in wanted]
        mask &= np.isin(tree.rows.domain[: tree.size], codes)
    return mask


def _shown(item: Item, now: float) -> bool:
    return not item.hidden and (item.expires_at is None or item.expires_at.timestamp() > now)


def _cut(text: str, length: int = 80) -> str:
    text = " ".join(text.split())
    return text if len(text) <= length else text[: length - 1] + "…"

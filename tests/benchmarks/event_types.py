"""What the types of events do to lists: films, whose ratings make likes, views and dislikes.

The first four fifths of each user's ratings are the history; of the rest, ratings of at least 4 are
what a list should find, and of at most 2 what it should not show. Rule and weights were chosen on
one half of the users; the figures are of the other half.
"""

import asyncio
import gzip
import json
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from app.embedders import EmbedderCache
from app.event_types import EventRules
from app.recommend import RecommendConfig, Recommender, RecommendRequest
from app.settings import Settings
from app.signals import UserHistory, count_events
from app.storage.documents import MemoryDocuments
from app.storage.memory_feedback import MemoryFeedback
from tests.benchmarks import data
from tests.benchmarks.figures import Figure
from tests.benchmarks.quality import tree_of
from tree.item import Item
from tree.snapshot import SemanticTree
from tree.store.memory import MemoryTreeStore

_NAME = "ml_latest_small"
_LIKED, _DISLIKED = 4.0, 2.0
_SHARE = 0.8
_TOP = 20
_NOW = 1_700_000_000_000_000
_ROUNDS = 1_000

_Metrics = npt.NDArray[np.float64]  # [users, 3]: recall, NDCG, share of disliked items, at 20


@dataclass(frozen=True)
class _User:
    name: str
    history: list[str]
    types: list[str]
    liked: frozenset[str]
    disliked: frozenset[str]


def real() -> Iterator[Figure]:
    """Lists by history alone and by types, with and without events of all users."""
    items, users = data.real_items(_NAME), _users()
    tree = tree_of(items)
    asked = [
        one
        for one in users
        if one.liked and "dislike" in one.types and zlib.crc32(one.name.encode()) % 2
    ]
    yield Figure("users who like and dislike films", len(asked))
    for words, events in (("", False), (", with events of all users", True)):
        plain, by_type = asyncio.run(_measured(items, tree, users, asked, events=events))
        for at, name in enumerate(("R@20", "NDCG@20", "disliked among the first 20")):
            yield Figure(f"{name} without types{words}", round(float(plain[:, at].mean()), 4))
            yield Figure(f"{name} with types{words}", round(float(by_type[:, at].mean()), 4))
            low, high = _interval(by_type[:, at] - plain[:, at])
            yield Figure("  the difference is at least", round(low, 4))
            yield Figure("  and at most", round(high, 4))


def _users() -> list[_User]:
    found = []
    with gzip.open(data.FOLDER / _NAME / "histories.jsonl.gz", "rt", encoding="utf-8") as lines:
        for line in lines:
            row = json.loads(line)
            rated = sorted(
                zip(row["timestamps"], row["history"], row["ratings"], strict=True),
                key=lambda one: one[0],
            )
            rest = rated[int(_SHARE * len(rated)) :]
            past = rated[: int(_SHARE * len(rated))]
            found.append(
                _User(
                    str(row["user_id"]),
                    [item for _, item, _ in past],
                    [_type(rating) for *_, rating in past],
                    frozenset(item for _, item, rating in rest if rating >= _LIKED),
                    frozenset(item for _, item, rating in rest if rating <= _DISLIKED),
                )
            )
    return found


def _type(rating: float) -> str:
    if rating >= _LIKED:
        return "like"
    return "dislike" if rating <= _DISLIKED else "view"


async def _measured(
    items: Sequence[Item],
    tree: SemanticTree,
    users: Sequence[_User],
    asked: Sequence[_User],
    *,
    events: bool,
) -> tuple[_Metrics, _Metrics]:
    """Metrics of lists without types, and with them."""
    store = MemoryTreeStore(space=tree.space, settings=tree.settings)
    await store.stage(items)
    await store.replace(tree, base=0)
    found = []
    for typed in (False, True):
        feedback = MemoryFeedback()
        for user in users if events else ():
            types = user.types if typed else None
            history = UserHistory(user_id=user.name, history=user.history, types=types)
            await count_events(feedback, tree, list(history.events(_NOW)), EventRules())
        config = RecommendConfig.of(Settings())
        documents = MemoryDocuments()
        recommender = Recommender(
            "films", store, documents, EmbedderCache(), config, feedback=feedback
        )
        found.append(np.array([await _metrics(recommender, user, typed=typed) for user in asked]))
        await recommender.aclose()
    return found[0], found[1]


async def _metrics(
    recommender: Recommender, user: _User, *, typed: bool
) -> tuple[float, float, float]:
    entries: list[Mapping[str, str]] = [
        {"item_id": item, "type": kind} if typed else {"item_id": item}
        for item, kind in zip(user.history, user.types, strict=True)
    ]
    # What was seen is left out either way, so that only the order is compared.
    fields = {"limit": _TOP, "exclude_history": True, "diversity": 0, "timeout_ms": 600_000}
    request = RecommendRequest.model_validate({"history": entries, **fields})
    answer = [one.item_id for one in (await recommender.recommend(request)).items]
    hits = np.array([item in user.liked for item in answer])
    gains = 1 / np.log2(np.arange(2, _TOP + 2))
    best = min(_TOP, len(user.liked))
    return (
        float(hits.sum() / best),
        float((hits * gains[: len(hits)]).sum() / gains[:best].sum()),
        sum(item in user.disliked for item in answer) / _TOP,
    )


def _interval(differences: npt.NDArray[np.float64]) -> tuple[float, float]:
    """Of the mean difference, by a paired bootstrap: 95 %."""
    rng = np.random.default_rng(0)
    picks = rng.integers(0, len(differences), (_ROUNDS, len(differences)))
    low, high = np.quantile(differences[picks].mean(axis=1), (0.025, 0.975))
    return float(low), float(high)

"""What made-up accounts gain: places of an item in other people's lists, before and after.

Honest users of a real catalogue are recorded, then false ones with 20 events each, who want one
item in the lists of others. Each is tried with several items that few users have, and measured on
honest users who are not recorded. Plots of all figures lie in `build/attacks`.
"""

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from app.embedders import EmbedderCache
from app.recommend import RecommendConfig, Recommender, RecommendRequest
from app.settings import Settings
from app.storage.documents import MemoryDocuments
from app.storage.feedback import NEIGHBOURS, Count, Event, Feedback, NeighbourLists
from app.storage.memory_feedback import MemoryFeedback
from tests.benchmarks import data
from tests.benchmarks.figures import Figure
from tests.benchmarks.quality import tree_of
from tree.store.memory import MemoryTreeStore

NAME = "amazon_games"
HONEST = (100, 1_000, 50_000)
FALSE = (1, 50)
PLOTS = Path("build/attacks")
_EVENTS = 20
_VICTIMS = 30
_ITEMS = 4
_TARGETED = 10  # victims of an attack on one user each
_SEEN = 100  # places that count
_TOP = 20
_DAY_US = 86_400 * 1_000_000

History = list[str]


@dataclass(frozen=True)
class Attack:
    """What the false users do for an item: one history for each of them."""

    name: str
    histories: Callable[[str, int, random.Random, "Honest", History], list[History]]
    is_targeted: bool = False  # at the history of one victim


@dataclass(frozen=True)
class Honest:
    """The honest users that are recorded, and what they had."""

    feedback: MemoryFeedback
    histories: list[History]
    popular: list[str]  # most popular first
    ids: list[str]


@dataclass
class Outcome:
    """Places of the pushed items in the lists of victims, from 1; more than 100 are 101."""

    before: list[int] = field(default_factory=list)
    after: list[int] = field(default_factory=list)

    def pushed(self, top: int) -> float:
        """The share of lists whose top got the item by the attack, of those that had it below."""
        moved = [(b > top, a <= top) for b, a in zip(self.before, self.after, strict=True)]
        return float(np.mean([after for outside, after in moved if outside] or [False]))

    @property
    def best(self) -> int:
        """The best place that an item gained where it was outside the top before."""
        gained = zip(self.before, self.after, strict=True)
        return min((after for before, after in gained if before > _TOP), default=_SEEN + 1)

    def gained(self, events: int) -> float:
        """Places gained in a list, per false event."""
        return float(np.mean(np.subtract(self.before, self.after))) / events


def _beside_popular(
    item: str, users: int, _: random.Random, honest: Honest, __: History
) -> list[History]:
    around = [one for one in honest.popular if one != item][: _EVENTS - 1]
    middle = len(around) // 2
    return [[*around[middle:], item, *around[:middle]] for _ in range(users)]


def _popularity(
    item: str, users: int, rng: random.Random, honest: Honest, _: History
) -> list[History]:
    return [[*rng.sample(honest.ids, _EVENTS - 1), item] for _ in range(users)]


def _camouflage(
    item: str, users: int, rng: random.Random, honest: Honest, _: History
) -> list[History]:
    """Histories of honest users, with the item in the middle."""
    found = []
    for _each in range(users):
        copied = rng.choice(honest.histories)[-_EVENTS + 1 :]
        found.append([*copied[: len(copied) // 2], item, *copied[len(copied) // 2 :]])
    return found


def _copied(item: str, users: int, _: random.Random, __: Honest, victim: History) -> list[History]:
    """The newest item of a victim, then the pushed one."""
    return [[victim[-1], item] for _ in range(users)]


def _cloned(item: str, users: int, _: random.Random, __: Honest, victim: History) -> list[History]:
    """All that a victim had, then the pushed item."""
    return [[*victim[-_EVENTS + 1 :], item] for _ in range(users)]


ATTACKS = (
    Attack("beside the most popular items", _beside_popular),
    Attack("for its popularity alone", _popularity),
    Attack("in copies of honest histories", _camouflage),
    Attack("after a victim's newest item", _copied, is_targeted=True),
    Attack("after copies of a victim's history", _cloned, is_targeted=True),
)


class Attacked:
    """Feedback of honest and of false users: they are different users, so counts and pairs add."""

    def __init__(self, honest: MemoryFeedback, false: MemoryFeedback) -> None:
        self._parts = honest, false

    def __getattr__(self, name: str) -> object:
        return getattr(self._parts[0], name)

    async def neighbours(self, ids: Sequence[str]) -> NeighbourLists:
        """See Feedback."""
        found = [await part.neighbours(ids) for part in self._parts]
        lists = []
        for near in zip(*(one.neighbours for one in found), strict=True):
            both = Counter(near[0])
            both.update(near[1])
            lists.append(dict(both.most_common(NEIGHBOURS)))
        return NeighbourLists(sum(one.changes for one in found), lists)

    async def counts(self) -> AsyncIterator[Mapping[str, Count]]:
        """See Feedback."""
        total: Counter[str] = Counter()
        for part in self._parts:
            async for page in part.counts():
                total.update({item: count.users for item, count in page.items()})
        yield {item: Count(users) for item, users in total.items()}


def _events(user: str, history: Sequence[str], *, days: int = 1) -> Iterator[Event]:
    """One event for each item, again on each day."""
    for day in range(days):
        for at, item in enumerate(history):
            yield Event(f"{user}/{day}/{at}", user, item, day * _DAY_US + at)


async def recorded(histories: Sequence[History], prefix: str, days: int = 1) -> MemoryFeedback:
    """Feedback that has these users' events."""
    feedback = MemoryFeedback()
    for number, history in enumerate(histories):
        user = f"{prefix}{number}"
        await feedback.record(list(_events(user, history, days=days)))
    return feedback


class Simulation:
    """One catalogue with some honest users."""

    def __init__(self, store: MemoryTreeStore, honest: Honest, victims: Sequence[History]) -> None:
        self._store = store
        self._config = RecommendConfig.of(Settings())
        self._embedders = EmbedderCache()
        self._victims = victims
        self.honest = honest

    async def run(self, attack: Attack, users: int, items: Sequence[str], days: int = 1) -> Outcome:
        """What an attack by so many users with each of `items` reaches."""
        outcome, rng = Outcome(), random.Random(users)
        before = await self._places(self.honest.feedback, items, self._victims)
        victims = [[one] for one in self._victims] if attack.is_targeted else [self._victims]
        for number, some in enumerate(victims[:_TARGETED]):
            for at, item in enumerate(items[:2] if attack.is_targeted else items):
                histories = attack.histories(item, users, rng, self.honest, list(some[0]))
                false = await recorded(histories, "false", days)
                both: Any = Attacked(self.honest.feedback, false)
                places = await self._places(both, [item], some)
                outcome.after += places[0]
                same = [before[at][number]] if attack.is_targeted else before[at]
                outcome.before += same
        return outcome

    async def _places(
        self,
        feedback: Feedback,
        items: Sequence[str],
        victims: Sequence[History],
    ) -> list[list[int]]:
        """For each item its place in the list of each victim."""
        parts = (self._store, MemoryDocuments(), self._embedders, self._config)
        recommender = Recommender(NAME, *parts, feedback=feedback)
        found: list[list[int]] = [[] for _ in items]
        for history in victims:
            request = RecommendRequest.model_validate(
                {
                    "history": [{"item_id": item} for item in history],
                    "limit": _SEEN,
                    "diversity": 0.0,
                    "explain": "none",
                    "fold": False,
                    "timeout_ms": 600_000,
                }
            )
            answer = await recommender.recommend(request)
            places = {one.item_id: at for at, one in enumerate(answer.items, 1)}
            for at, item in enumerate(items):
                found[at].append(places.get(item, _SEEN + 1))
        await recommender.aclose()
        return found


async def simulated() -> list[Figure]:
    """All figures; the plots are written on the way."""
    items = data.real_items(NAME)
    tree = await asyncio.to_thread(tree_of, items)
    store = MemoryTreeStore(space=tree.space, settings=tree.settings)
    await store.stage(items)
    await store.replace(tree, base=0)
    users = data.histories(NAME, 10**9)
    victims, others = users[:_VICTIMS], users[_VICTIMS:]
    rng = random.Random(0)
    figures, plotted = [], []
    for honest_users in HONEST:
        histories = others[:honest_users]
        counts = Counter(item for history in histories for item in history)
        popular = [item for item, _ in counts.most_common(_EVENTS)]
        feedback = await recorded(histories, "honest")
        honest = Honest(feedback, histories, popular, [item.id for item in items])
        simulation = Simulation(store, honest, victims)
        had = {item for history in victims for item in history}
        rare = [item.id for item in items if counts[item.id] <= 5 and item.id not in had]
        pushed = rng.sample(rare, _ITEMS)
        for attack in ATTACKS:
            for users_ in FALSE:
                outcome = await simulation.run(attack, users_, pushed)
                plotted.append((honest_users, attack.name, users_, outcome))
                figures += _figures(honest_users, attack, users_, outcome)
        again = await simulation.run(ATTACKS[3], 1, pushed, days=30)
        label = f"{honest_users:,} honest, 1 false user, the same two events on 30 days"
        figures.append(
            Figure(f"{label}: lists with it in the top 10", again.pushed(10), "", "≤", 0)
        )
    _plot(plotted)
    return figures


def _figures(honest: int, attack: Attack, users: int, outcome: Outcome) -> list[Figure]:
    label = f"{honest:,} honest, {users} false, {attack.name}"
    top10 = Figure(f"{label}: top 10 reached", outcome.pushed(10))
    if users == 1:
        top10 = Figure(top10.what, top10.measured, "", "≤", 0)
    best = Figure(f"{label}: best place gained", outcome.best)
    if honest == max(HONEST) and users == max(FALSE) and not attack.is_targeted:
        best = Figure(best.what, best.measured, "", "≥", _TOP + 1)
    events = users * (2 if attack.name == ATTACKS[3].name else _EVENTS)
    return [
        top10,
        Figure(f"{label}: top {_TOP} reached", outcome.pushed(_TOP)),
        best,
        Figure(f"{label}: places gained per event", outcome.gained(events)),
    ]


def _plot(rows: Sequence[tuple[int, str, int, Outcome]]) -> None:
    """Files with the share of lists that each attack reaches, by honest and false users."""
    from matplotlib.figure import Figure as Plot

    PLOTS.mkdir(parents=True, exist_ok=True)
    for honest in HONEST:
        plot = Plot(figsize=(7, 4), layout="constrained")
        axes = plot.subplots()
        for attack in ATTACKS:
            mine = [(users, o) for h, name, users, o in rows if h == honest and name == attack.name]
            shares = [outcome.pushed(_TOP) for _, outcome in mine]
            axes.plot([users for users, _ in mine], shares, marker="o", label=attack.name)
        axes.set(
            xscale="log",
            ylim=(-0.02, 1.02),
            xlabel="false users",
            ylabel=f"share of lists with the item in the top {_TOP}",
            title=f"{honest:,} honest users",
        )
        axes.legend(fontsize="small")
        plot.savefig(PLOTS / f"attacks_{honest}.svg")


def real() -> Iterator[Figure]:
    """All figures of this module."""
    if NAME in data.available():
        yield from asyncio.run(simulated())

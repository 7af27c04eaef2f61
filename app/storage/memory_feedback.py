"""`MemoryFeedback`: what users did, in the memory of one process."""

import time
from collections import defaultdict
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice

import msgspec

from app.event_types import DEFAULT_RULES, EventRules, EventType
from app.storage.feedback import (
    BACKWARD,
    FORGOTTEN,
    FORWARD,
    HISTORY,
    NEIGHBOURS,
    REACH,
    WHOLE,
    Count,
    Event,
    FeedbackEntry,
    ForgottenItem,
    ItemCount,
    ItemNeighbours,
    NeighbourLists,
    Outcome,
    User,
    UserEntry,
    Visit,
    had_by,
    in_wholes,
    inheritance,
    weight_of,
)

_DAY_S = 86_400


@dataclass(slots=True)
class _UserState:
    visits: dict[str, Visit] = field(default_factory=dict)
    facts: User | None = None
    owned: dict[str, None] = field(default_factory=dict)
    counted: tuple[int, int] = (0, 0)  # a day, and the events that counted on it

    def history(self) -> list[str]:
        return sorted(self.visits, key=lambda item: (self.visits[item].at, item.encode()))

    def forget_oldest(self) -> str | None:
        """Forget the oldest visit of a history that is too long."""
        if len(self.visits) <= HISTORY:
            return None
        oldest = self.history()[0]
        del self.visits[oldest]
        return oldest

    def may_count(self, most: int | None) -> bool:
        """Whether one more event may count today."""
        day = int(time.time() // _DAY_S)
        today = self.counted[1] if self.counted[0] == day else 0
        if most is not None and today >= most:
            return False
        self.counted = (day, today + 1)
        return True


class MemoryFeedback:
    """See Feedback. Gone with the process; event ids and users stay as long as it does."""

    def __init__(self) -> None:
        self._changes = 0
        self._counts: dict[str, Count] = {}
        self._near: dict[str, dict[str, float]] = defaultdict(dict)
        self._users: dict[str, _UserState] = defaultdict(_UserState)
        self._seen: set[str] = set()
        self._gone: dict[str, int] = {}

    async def record(
        self, events: Sequence[Event], rules: EventRules = DEFAULT_RULES
    ) -> list[Outcome]:
        """See Feedback."""
        return [self._recorded(event, rules) for event in events]

    def _recorded(self, event: Event, rules: EventRules) -> Outcome:
        kind = rules.of(event.type)
        weight = in_wholes(kind)
        if not weight and not kind.hides:
            return "noted"
        if event.event_id in self._seen:
            return "duplicate"
        self._seen.add(event.event_id)
        state, item = self._users[event.user_id], event.item_id
        before, gone = state.visits.get(item), self._gone.get(item, -1)
        is_known = before is not None and not before.at <= gone < event.at
        counted = before.weight if before is not None and is_known else 0
        state.visits[item] = _visited(event, before, counted, rules)
        if state.forget_oldest() == item:
            return "too_old"
        if weight <= counted:
            return "repeated" if is_known and weight > 0 else "noted"
        if not state.may_count(rules.most_per_day):
            return "over_limit"
        self._count(state, item, counted, weight)
        known = self._counts.get(item, Count(0))
        users, at_s = (weight - counted) / WHOLE, event.at // 1_000_000
        self._counts[item] = known.added(users, at_s, rules.half_life_s)
        self._changes += 1
        return "counted"

    def _count(self, state: _UserState, item: str, before: int, now: int) -> None:
        """Raise what a user counts for an item, and for its pairs."""
        state.visits[item] = msgspec.structs.replace(state.visits[item], weight=now)
        history = state.history()
        place = history.index(item)
        for at in range(max(0, place - REACH), min(len(history), place + REACH + 1)):
            if at != place:
                other = state.visits[history[at]]
                more = min(now, other.weight) - min(before, other.weight)
                first, then = (other.item_id, item) if at < place else (item, other.item_id)
                self._pair(first, then, abs(at - place) - 1, more)

    def _pair(self, first: str, then: str, distance: int, share: int) -> None:
        for of, other, weight in ((first, then, FORWARD), (then, first, BACKWARD)):
            more = (2 * share * weight[distance] + WHOLE) // (2 * WHOLE)
            if not more:
                continue
            near = self._near[of]
            near[other] = near.get(other, 0) + more
            if len(near) > NEIGHBOURS:
                rest = (one for one in near if one != other)
                least = min(rest, key=lambda one: (near[one], one.encode()))
                near[other] += inheritance(near.pop(least))

    async def neighbours(self, ids: Sequence[str]) -> NeighbourLists:
        """See Feedback."""
        lists = [self._near.get(item_id, {}) for item_id in ids]
        weights = [{item: weight_of(score) for item, score in near.items()} for near in lists]
        return NeighbourLists(self._changes, weights)

    async def counts(self) -> AsyncIterator[Mapping[str, Count]]:
        """See Feedback."""
        yield dict(self._counts)

    async def forget_items(self, ids: Collection[str]) -> None:
        """See Feedback."""
        for item_id in ids:
            for other in self._near.pop(item_id, {}):
                self._near.get(other, {}).pop(item_id, None)
            if self._counts.pop(item_id, None):
                self._changes += 1
                self._gone.pop(item_id, None)
                self._gone[item_id] = time.time_ns() // 1_000
                if len(self._gone) > FORGOTTEN:
                    del self._gone[next(iter(self._gone))]

    async def sweep(self, item_id: str, gone: Collection[str]) -> None:
        """See Feedback."""
        for other in gone:
            if other not in self._counts:
                self._near.get(item_id, {}).pop(other, None)

    async def user(self, user_id: str) -> User | None:
        """See Feedback."""
        state = self._users.get(user_id)
        if state is None or (state.facts is None and not state.visits):
            return None
        history = tuple(state.visits[item] for item in state.history())
        return msgspec.structs.replace(state.facts or User(), history=history)

    async def known(self, user_ids: Sequence[str]) -> set[str]:
        """See Feedback."""
        return {user_id for user_id in user_ids if await self.user(user_id) is not None}

    async def histories(self, most: int) -> list[list[str]]:
        """See Feedback."""
        users = [await self.user(user_id) for user_id in list(self._users)]
        return list(islice(filter(None, (had_by(user) for user in users if user)), most))

    async def put_user(self, user_id: str, user: User) -> None:
        """See Feedback."""
        state = self._users[user_id]
        state.facts = msgspec.structs.replace(user, history=())
        state.visits = {visit.item_id: visit for visit in user.history[-HISTORY:]}

    async def add_document(self, user_id: str, name: str, ttl_s: float) -> None:  # noqa: ARG002
        """See Feedback."""
        self._users[user_id].owned[name] = None

    async def documents_of(self, user_id: str) -> list[str]:
        """See Feedback."""
        state = self._users.get(user_id)
        return list(state.owned) if state else []

    async def has_document(self, user_id: str, name: str) -> bool:
        """See Feedback."""
        state = self._users.get(user_id)
        return state is not None and name in state.owned

    async def erase(self, user_id: str, names: Collection[str]) -> None:
        """See Feedback."""
        state = self._users.pop(user_id, None)
        if state and (since := [name for name in state.owned if name not in names]):
            self._users[user_id].owned = dict.fromkeys(since)

    async def entries(self) -> AsyncIterator[Sequence[FeedbackEntry]]:
        """See Feedback."""
        yield [ItemCount(item, *count) for item, count in self._counts.items()]
        yield [ItemNeighbours(item, dict(near)) for item, near in self._near.items() if near]
        yield [ForgottenItem(item, at) for item, at in self._gone.items()]
        async for users in self.users():
            yield users

    async def users(self) -> AsyncIterator[Sequence[UserEntry]]:
        """See Feedback."""
        users = [(user_id, await self.user(user_id)) for user_id in list(self._users)]
        yield [UserEntry(user_id, user) for user_id, user in users if user]

    async def restore(self, entries: Sequence[FeedbackEntry]) -> None:
        """See Feedback."""
        self._changes += 1
        for entry in entries:
            match entry:
                case ItemCount():
                    self._counts[entry.item_id] = Count(entry.users, entry.at, entry.ever)
                case ItemNeighbours():
                    self._near[entry.item_id] = dict(entry.weights)
                case ForgottenItem():
                    self._gone[entry.item_id] = entry.at
                case UserEntry():
                    await self.put_user(entry.user_id, entry.user)


def _visited(event: Event, before: Visit | None, counted: int, rules: EventRules) -> Visit:
    """The visit after one more event, which is not counted yet."""
    if before is None:
        return Visit(event.item_id, event.at, event.type, counted)
    new, old = _strength(rules.of(event.type)), _strength(rules.of(before.type))
    is_kept = new < old or (new == old and event.at < before.at)
    kind = before.type if is_kept else event.type
    return Visit(event.item_id, max(event.at, before.at), kind, counted)


def _strength(kind: EventType) -> tuple[bool, int]:
    """Of two events the stronger one is kept: one that hides, then the larger weight."""
    return kind.hides, abs(in_wholes(kind))

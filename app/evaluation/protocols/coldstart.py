"""`coldstart`: quality by length of the history."""

from collections import Counter
from collections.abc import Mapping, Sequence
from random import Random

from app.evaluation.case import Case, Query, Training
from app.evaluation.dataset import DataError, Dataset, DatasetUser
from app.evaluation.protocols.last_out import leave_last_out
from app.evaluation.protocols.sampling import BUCKETS, Split, non_empty, sample, training_before
from tree.item import Item

_MOST_INTERESTS = 3


def coldstart(
    data: Dataset,
    *,
    seed: int = 0,
    users: int | None = None,
    natural: bool = False,
    min_users: int = 100,
) -> Split:
    """The target is the last event, by length of history: 0 with a profile, 1, 2–4, …, 50+.

    All buckets have the same users, with the history cut to its newest events, so that buckets are
    comparable; the events cut off are excluded from the answer. The longest bucket is the last one
    for which at least `min_users` users (or all, where there are fewer) have enough events. The
    training data contain nothing of these users, so sample only a part of all users.

    With `natural`, each bucket has `users` other users with their whole history, of that length.
    Bucket 0 then has only users with a profile in the data.

    Where the data have no profiles, bucket 0 gets sentences that name the categories of the
    history before the target.
    """
    return _natural(data, seed, users) if natural else _cut(data, seed, users, min_users)


def interests(items: Sequence[Item]) -> str:
    """A sentence with the most frequent categories of the items; empty if they have none."""
    counts = Counter(" › ".join(item.categories[:2]) for item in items if item.categories)
    ranked = sorted(counts.items(), key=lambda entry: (-entry[1], entry[0]))
    names = [name for name, _ in ranked[:_MOST_INTERESTS]]
    return f"Interested in: {'; '.join(names)}." if names else ""


def _cut(data: Dataset, seed: int, count: int | None, min_users: int) -> Split:
    items = {item.id: item for item in data.items}
    sentences = {
        user.id: user.profile or interests([items[each] for each in user.history[:-1]])
        for user in data.users
    }
    described = any(sentences.values())
    eligible = [r for r in data.users if len(r.history) > 1 and (sentences[r.id] or not described)]
    if not eligible:
        raise DataError(f"{data.name}: no case is left: no user has two events.")
    longest = _longest(eligible, min_users)
    least = BUCKETS[longest][1]
    chosen = sample([r for r in eligible if len(r.history) > least], count, seed)
    cases = [
        _shortened(user, bucket, sentences, seed)
        for bucket in range(0 if described else 1, longest + 1)
        for user in chosen
    ]
    ends = {user.id: 0 for user in chosen}
    return training_before(data, ends), non_empty(cases, data, "no user has two events")


def _longest(users: Sequence[DatasetUser], min_users: int) -> int:
    """The longest bucket for which enough users have enough events."""
    enough = min(min_users, len(users))
    return max(
        position
        for position, (_, fewest, _) in enumerate(BUCKETS)
        if sum(len(user.history) > fewest for user in users) >= enough
    )


def _shortened(user: DatasetUser, bucket: int, sentences: Mapping[str, str], seed: int) -> Case:
    name, fewest, most = BUCKETS[bucket]
    known = user.history[:-1]
    length = len(known)
    if most is not None:
        length = Random(f"{seed}/{name}/{user.id}").randint(fewest, min(most, len(known)))
    start = len(known) - length
    query = Query(
        user.id,
        known[start:],
        user.profile if length else sentences[user.id],
        excluded=frozenset(known[:start]),
    )
    return Case(query, frozenset(user.history[-1:]), name)


def _natural(data: Dataset, seed: int, count: int | None) -> Split:
    training, cases = leave_last_out(data, seed=seed, min_events=2)
    buckets: dict[str, list[Case]] = {name: [] for name, _, _ in BUCKETS}
    single = [user for user in data.users if len(user.history) == 1 and user.profile]
    for user in sample(single, count, seed):
        query = Query(user.id, (), user.profile)
        buckets["0"].append(Case(query, frozenset(user.history), "0"))
    for case in cases:
        buckets[case.bucket].append(case)
    hidden = {user.id for user in single}
    visible = [user for user in training.users if user.id not in hidden]
    return Training(training.items, visible), [
        case for bucket in buckets.values() for case in bucket[:count]
    ]

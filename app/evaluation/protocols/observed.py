"""Protocols that need the times of events, or what was shown to users."""

from bisect import bisect_right
from random import Random

import numpy as np

from app.evaluation.case import Case, Query
from app.evaluation.dataset import DataError, Dataset, DatasetUser, Impression
from app.evaluation.protocols.sampling import Split, bucket_of, non_empty, sample, training_before


def temporal(
    data: Dataset,
    *,
    seed: int = 0,
    users: int | None = None,
    quantile: float = 0.8,
    min_history: int = 1,
    only_next: bool = False,
) -> Split:
    """Targets are events after a point in time; training data are all events up to it.

    Up to that time, a share `quantile` of all events happened. Targets are all later events of a
    user, or only the next one. Users whose events have no times are left out. A user has each item
    once, at its last event: an item used before and after that time is a target and not part of
    the history.

    Raises DataError where there are no times.
    """
    timed = [user for user in data.users if user.times]
    if not timed:
        raise DataError(
            f"{data.name}: a temporal split needs the time of each event; expected timestamps in "
            f"the data, or another protocol."
        )
    split_time = float(
        np.quantile(np.concatenate([user.times for user in timed]), quantile, method="inverted_cdf")
    )
    ends = {user.id: bisect_right(user.times, split_time) for user in timed}
    eligible = [r for r in timed if min_history <= ends[r.id] < len(r.history)]
    cases = [
        _case(user, ends[user.id], ends[user.id] + 1 if only_next else None)
        for user in sample(eligible, users, seed)
    ]
    untimed = {user.id: 0 for user in data.users if not user.times}
    lacking = f"no user has {min_history} events up to that time, and one after it"
    return training_before(data, ends | untimed), non_empty(cases, data, lacking)


def impressions(
    data: Dataset, *, seed: int = 0, users: int | None = None, min_history: int = 1
) -> Split:
    """Targets are the items that a user chose of those shown, in the last impression with a choice.

    Candidates are the items shown that are not in the history. They are shuffled, because their
    order in the files may reveal the choice. The training data contain no event of an eligible user
    from that impression on.

    Raises DataError where the data have no impressions.
    """
    if not any(user.impressions for user in data.users):
        raise DataError(
            f"{data.name}: the data do not say what was shown; expected impressions, or another "
            f"protocol."
        )
    last = {user.id: shown for user in data.users if (shown := _last_choice(user))}
    eligible = [r for r in data.users if r.id in last and last[r.id].seen_before >= min_history]
    cases = [_choice(user, last[user.id], seed) for user in sample(eligible, users, seed)]
    ends = {name: shown.seen_before for name, shown in last.items()}
    lacking = f"no user with {min_history} events chose something new among others"
    return training_before(data, ends), non_empty(cases, data, lacking)


def _case(user: DatasetUser, end: int, until: int | None) -> Case:
    query = Query(user.id, user.history[:end], user.profile)
    return Case(query, frozenset(user.history[end:until]), bucket_of(end))


def _last_choice(user: DatasetUser) -> Impression | None:
    """The last impression with a new item that was chosen and a new one that was not."""
    for each in sorted(user.impressions, key=lambda shown: -shown.seen_before):
        new = frozenset(each.shown).difference(user.history[: each.seen_before])
        if new & each.chosen and new - each.chosen:
            return each
    return None


def _choice(user: DatasetUser, last: Impression, seed: int) -> Case:
    history = user.history[: last.seen_before]
    candidates = sorted(frozenset(last.shown).difference(history))
    Random(f"{seed}/{user.id}").shuffle(candidates)
    query = Query(user.id, history, user.profile, tuple(candidates))
    return Case(query, last.chosen.intersection(candidates), bucket_of(len(history)))

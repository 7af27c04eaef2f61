"""Protocols whose target is the last event of each user."""

from collections.abc import Mapping, Sequence
from random import Random

from app.evaluation.case import Case, Query
from app.evaluation.dataset import Dataset, DatasetUser
from app.evaluation.protocols.sampling import Split, bucket_of, non_empty, sample, training_before


def leave_last_out(
    data: Dataset,
    *,
    seed: int = 0,
    users: int | None = None,
    min_events: int = 5,
    given_candidates: bool = False,
) -> Split:
    """The target is the last event of each user, among the whole catalogue.

    The training data contain no last event of any eligible user, so they do not depend on the
    number of `users`. With `given_candidates`, the candidates are those of the data set, and users
    without candidates are left out; a target that is not among them counts as missed.
    """
    eligible = _eligible(data, min_events)
    chosen = [user for user in eligible if user.candidates or not given_candidates]
    cases = [
        _case(user, candidates=user.candidates if given_candidates else None)
        for user in sample(chosen, users, seed)
    ]
    lacking = f"no user has {min_events} events" + (" and candidates" * given_candidates)
    return training_before(data, _ends(eligible)), non_empty(cases, data, lacking)


def paper(
    data: Dataset,
    leaves: Mapping[str, str],
    *,
    seed: int = 0,
    users: int | None = 500,
    history_limit: int = 50,
    leaf_limit: int = 50,
    min_events: int = 5,
) -> Split:
    """The paper's protocol (§4.1), without its leak.

    `leaves` gives the leaf of each item. From a leaf with more than `leaf_limit` items, that many
    are drawn without knowledge of the targets: a target that is not drawn counts as missed. (The
    released code takes the targets first, which leaks them.) Events older than the last
    `history_limit` are not part of the history, but excluded from the answer.
    """
    eligible = _eligible(data, min_events)
    candidates = _capped(data, leaves, leaf_limit, seed)
    cases = [
        _case(user, history_limit, candidates=candidates) for user in sample(eligible, users, seed)
    ]
    lacking = f"no user has {min_events} events"
    return training_before(data, _ends(eligible)), non_empty(cases, data, lacking)


def exclusion(
    data: Dataset,
    *,
    seed: int = 0,
    users: int | None = None,
    share: float = 0.5,
    min_events: int = 5,
) -> Split:
    """A share of the catalogue is excluded; users are those whose last event is not excluded.

    The excluded items depend on the seed only.
    """
    ids = sorted(item.id for item in data.items)
    excluded = frozenset(sample(ids, round(share * len(ids)), seed))
    eligible = _eligible(data, min_events)
    chosen = [user for user in eligible if user.history[-1] not in excluded]
    cases = [_case(user, excluded=excluded) for user in sample(chosen, users, seed)]
    lacking = f"no user has {min_events} events, the last of them not excluded"
    return training_before(data, _ends(eligible)), non_empty(cases, data, lacking)


def complement(
    data: Dataset,
    groups: Mapping[str, str],
    *,
    seed: int = 0,
    users: int | None = None,
    newest: int = 5,
    min_events: int = 5,
) -> Split:
    """The last event of users for whom it is in another group than the `newest` ones before it.

    `groups` gives the category of each item. What is chosen next to such a history goes with it,
    and is not more of the same.
    """
    eligible = _eligible(data, min_events)
    chosen = [
        user
        for user in eligible
        if groups.get(user.history[-1], "")
        not in {"", *(groups.get(item, "") for item in user.history[-newest - 1 : -1])}
    ]
    cases = [_case(user) for user in sample(chosen, users, seed)]
    lacking = f"no user has {min_events} events, the last of them in another category"
    return training_before(data, _ends(eligible)), non_empty(cases, data, lacking)


def _eligible(data: Dataset, min_events: int) -> list[DatasetUser]:
    return [user for user in data.users if len(user.history) >= max(min_events, 2)]


def _ends(users: Sequence[DatasetUser]) -> dict[str, int]:
    return {user.id: len(user.history) - 1 for user in users}


def _case(
    user: DatasetUser,
    history_limit: int | None = None,
    *,
    candidates: tuple[str, ...] | None = None,
    excluded: frozenset[str] = frozenset(),
) -> Case:
    history = user.history[:-1]
    if history_limit is not None and len(history) > history_limit:
        excluded |= frozenset(history[:-history_limit])
        history = history[-history_limit:]
    at = user.times[-1] if user.times else None
    query = Query(user.id, history, user.profile, candidates, excluded, at=at)
    return Case(query, frozenset(user.history[-1:]), bucket_of(len(history)))


def _capped(
    data: Dataset, leaves: Mapping[str, str], leaf_limit: int, seed: int
) -> tuple[str, ...]:
    """At most `leaf_limit` items of each leaf, in the order of the catalogue."""
    members: dict[str, list[str]] = {}
    for item in data.items:
        if item.id in leaves:
            members.setdefault(leaves[item.id], []).append(item.id)
    drawn: set[str] = set()
    for leaf, ids in members.items():
        drawn.update(
            Random(f"{seed}/{leaf}").sample(sorted(ids), leaf_limit)
            if len(ids) > leaf_limit
            else ids
        )
    return tuple(item.id for item in data.items if item.id in drawn)

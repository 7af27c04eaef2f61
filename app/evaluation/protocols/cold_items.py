"""`cold-items`: quality for items that no training history has, and for the others."""

from app.evaluation.case import Case, Query, Training
from app.evaluation.dataset import Dataset
from app.evaluation.protocols.sampling import Split, before, non_empty, sample, without

_KINDS = ("known items", "new items")


def cold_items(
    data: Dataset,
    *,
    seed: int = 0,
    users: int | None = None,
    share: float = 0.15,
    min_events: int = 5,
) -> Split:
    """The target is the last event of each user, as in `leave_last_out`, in two buckets.

    A share of the items with events, which depends on the seed only, is in no history of the
    training data: such targets are new items. Each bucket has `users` users.
    """
    had = sorted({item for user in data.users for item in user.history})
    new = frozenset(sample(had, round(share * len(had)), seed))
    eligible = [user for user in data.users if len(user.history) >= max(min_events, 2)]
    last = {user.id for user in eligible}
    training = [
        without(before(user, len(user.history) - (user.id in last)), new) for user in data.users
    ]
    cases = []
    for is_new, kind in enumerate(_KINDS):
        some = [user for user in eligible if (user.history[-1] in new) == bool(is_new)]
        cases += [
            Case(
                Query(user.id, user.history[:-1], user.profile),
                frozenset(user.history[-1:]),
                kind,
            )
            for user in sample(some, users, seed)
        ]
    lacking = f"no user has {min_events} events"
    seen = [user for user in training if user.history]
    return Training(data.items, seen), non_empty(cases, data, lacking)

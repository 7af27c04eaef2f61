"""`known_item`: the query is a wish in words, the targets are the items that it was written for."""

from collections.abc import Sequence

from app.evaluation.case import Case, Query, Training
from app.evaluation.dataset import Dataset
from app.evaluation.formats.wishes import Wish
from app.evaluation.protocols.sampling import Split, non_empty

UNKNOWN_TARGET = "wish for items that the catalogue lacks"
NO_OWNER = "wish for items that no user had after another one"


def known_item(data: Dataset, wishes: Sequence[Wish], *, with_history: bool = False) -> Split:
    """One case per wish, among the whole catalogue.

    A wish is of a user without history or, `with_history`, of the first user who had one of its
    targets after something else, with what they had before it. Targets that the catalogue lacks
    are left out. A wish without any other, or without such a user, is left out and counted in
    `data.skipped`. All events are training data except those of users with a wish.

    Raises DataError where no wish is left.
    """
    known = {item.id for item in data.items}
    owners = _owners(data) if with_history else {}
    cases, asking = [], set()
    for number, wish in enumerate(wishes, 1):
        targets = known.intersection(wish.targets)
        owned = [owners[one] for one in wish.targets if one in owners]
        if not targets:
            data.skipped.add(UNKNOWN_TARGET, f"wish {number}")
        elif with_history and not owned:
            data.skipped.add(NO_OWNER, f"wish {number}")
        else:
            user, history = owned[0] if owned else (None, ())
            asking.add(user)
            query = Query(f"wish {number}", history, wish=wish.words)
            cases.append(Case(query, frozenset(targets.difference(history))))
    training = [user for user in data.users if user.id not in asking]
    return Training(data.items, training), non_empty(cases, data, "no wish is for its items")


def _owners(data: Dataset) -> dict[str, tuple[str, tuple[str, ...]]]:
    """By item: the first user who had something before it, and what they had before it."""
    owners: dict[str, tuple[str, tuple[str, ...]]] = {}
    for user in data.users:
        for place, item in enumerate(user.history[1:], 1):
            owners.setdefault(item, (user.id, user.history[:place]))
    return owners

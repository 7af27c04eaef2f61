"""`known_item`: the query is a wish in words, the targets are the items that it was written for."""

from collections.abc import Sequence

from app.evaluation.case import Case, Query, Training
from app.evaluation.dataset import Dataset
from app.evaluation.formats.wishes import Wish
from app.evaluation.protocols.sampling import Split, non_empty

UNKNOWN_TARGET = "wish for items that the catalogue lacks"


def known_item(data: Dataset, wishes: Sequence[Wish]) -> Split:
    """One case per wish, by a user without history, among the whole catalogue.

    Targets that the catalogue lacks are left out; a wish without any other is left out and counted
    in `data.skipped`. All events are training data, as a wish is not one of them.

    Raises DataError where no wish is left.
    """
    known = {item.id for item in data.items}
    cases = []
    for number, wish in enumerate(wishes, 1):
        targets = known.intersection(wish.targets)
        if targets:
            query = Query(f"wish {number}", (), wish=wish.words)
            cases.append(Case(query, frozenset(targets)))
        else:
            data.skipped.add(UNKNOWN_TARGET, f"wish {number}")
    return Training(data.items, data.users), non_empty(cases, data, "no wish is for its items")

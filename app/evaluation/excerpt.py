"""`excerpt`: a part of a data set, or the same without some fields of its items."""

from collections.abc import Collection
from dataclasses import replace

from app.evaluation.choices import LeftOut
from app.evaluation.dataset import DataError, Dataset, DatasetUser
from tree.item import Item


def excerpt(
    data: Dataset,
    only: Collection[str] | None = None,
    without: Collection[LeftOut] = (),
) -> Dataset:
    """The data with `only` these items and their events, and `without` these fields of the items.

    Raises DataError where no item is left.
    """
    if only is None and not without:
        return data
    items = [item for item in data.items if only is None or item.id in only]
    if not items:
        raise DataError(f"{data.name}: none of its items is among those to keep.")
    if without:
        defaults = {field.value: Item.model_fields[field].default for field in without}
        items = [item.model_copy(update=defaults) for item in items]
    if only is None:
        return replace(data, items=items)
    kept = {item.id for item in items}
    users = [user for user in (_among(kept, user) for user in data.users) if user.history]
    return replace(data, items=items, users=users)


def _among(kept: Collection[str], user: DatasetUser) -> DatasetUser:
    """The user with events of kept items only. Impressions are lists of other items: left out."""
    places = [at for at, each in enumerate(user.history) if each in kept]
    return replace(
        user,
        history=tuple(user.history[at] for at in places),
        times=tuple(user.times[at] for at in places) if user.times else (),
        candidates=tuple(each for each in user.candidates if each in kept),
        impressions=(),
    )

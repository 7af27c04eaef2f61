"""Why an item was recommended, in one sentence, without a model."""

import time
from collections.abc import Sequence
from typing import Literal

import numpy as np

from app.ranking import Need, strongest
from tree.item import Item
from tree.snapshot import SemanticTree
from tree.store.protocol import ItemRecords

_LONGEST, _LONGEST_LINE = 80, 200


async def reasons(
    tree: SemanticTree,
    need: Need,
    rows: Sequence[int],
    items: Sequence[Item],
    explain: Literal["none", "brief", "full"],
    store: ItemRecords,
    inverse_temperature: float,
) -> list[str | None]:
    """One sentence for each of these rows, whose items are `items`; None if none is wanted.

    `full` names the history item behind it, if that item may be shown, and says what an item is
    that matches a wish: its line uses the words in which people ask for it.
    """
    if explain == "none" or not rows:
        return [None] * len(rows)
    if need.is_empty:
        return ["a first suggestion from this catalogue"] * len(rows)
    nearest = strongest(tree, need, np.array(rows, np.int32), inverse_temperature).tolist()
    directions = [need.directions[at] for at in nearest]
    known = {direction.source for direction in directions if direction.source in tree}
    records, now = await store.items(known) if explain == "full" else {}, time.time()
    found: list[str | None] = []
    for direction, item in zip(directions, items, strict=True):
        interest, source = need.interest_of(direction), direction.source
        if interest.origin == "wish":
            reason = f"matches what you said: “{_cut(interest.name)}”"
            if explain == "full" and item.line is not None:
                reason += f" — {_cut(item.line.text, _LONGEST_LINE)}"
        elif interest.origin == "title":
            reason = f"because you mentioned “{_cut(interest.name)}”"
        else:
            reason = f"because of your interest in {_cut(interest.name)}"
            if source in records and records[source].is_shown(now):
                reason += f"; closest to “{_cut(records[source].title)}” in your history"
        found.append(reason)
    return found


def _cut(text: str, most: int = _LONGEST) -> str:
    text = " ".join(text.split())
    return text if len(text) <= most else text[: most - 1] + "…"

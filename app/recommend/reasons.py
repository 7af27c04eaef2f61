"""Why an item was recommended, in a sentence: from interest and history, without a model."""

from collections.abc import Sequence
from typing import Literal

import numpy as np

from app.ranking import Need, strongest
from tree.snapshot import SemanticTree
from tree.store.protocol import TreeStore

_LONGEST = 80


async def reasons(
    tree: SemanticTree,
    need: Need,
    rows: Sequence[int],
    explain: Literal["none", "brief", "full"],
    store: TreeStore,
    sharpness: float,
) -> list[str | None]:
    """One per row; None where none was asked for. `full` names the history item behind it."""
    if explain == "none" or not rows:
        return [None] * len(rows)
    if need.is_empty:
        return ["a first suggestion from this catalogue"] * len(rows)
    nearest = strongest(tree, need, np.array(rows, np.int32), sharpness).tolist()
    known = {need.sources[at] for at in nearest if need.sources[at] in tree}
    records = await store.items(known) if explain == "full" else {}
    found: list[str | None] = []
    for at in nearest:
        interest, source = need.interests[int(need.owner[at])], need.sources[at]
        if interest.said == "wish":
            reason = f"matches what you said: “{_cut(interest.name)}”"
        elif interest.said == "title":
            reason = f"because you mentioned “{_cut(interest.name)}”"
        else:
            reason = f"because of your interest in {_cut(interest.name)}"
            if source in records:
                reason += f"; closest to “{_cut(records[source].title)}” in your history"
        found.append(reason)
    return found


def _cut(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"

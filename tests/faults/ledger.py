"""What the traffic was told, to be held against what the store holds at the end."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

Content: TypeAlias = dict[str, Any]  # an item as it is sent


@dataclass
class Ledger:
    """What was acknowledged, and what should never have been answered."""

    held: dict[str, Content] = field(default_factory=dict)
    gone: dict[str, int] = field(default_factory=dict)  # a new number for every deletion
    counts: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)

    def put(self, contents: Sequence[Content]) -> None:
        """Acknowledged."""
        for content in contents:
            self.held[content["id"]] = content
        self.counts["writes"] += len(contents)

    def deleted(self, ids: Sequence[str]) -> None:
        """Acknowledged."""
        for item_id in ids:
            self.held.pop(item_id, None)
            self.counts["deletes"] += 1
            self.gone[item_id] = self.counts["deletes"]

    def returning(self, contents: Sequence[Content]) -> None:
        """Somebody is about to write these: from now on they may be seen again."""
        for content in contents:
            self.gone.pop(content["id"], None)

    def fault(self, text: str) -> None:
        self.faults.append(text)

    def __str__(self) -> str:
        return ", ".join(f"{name}: {count}" for name, count in sorted(self.counts.items()))

    def assert_clean(self) -> None:
        assert not self.faults, "\n".join([f"{len(self.faults)} faults", *self.faults[:20]])

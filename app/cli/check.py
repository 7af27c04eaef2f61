"""What `doctor` says of one thing that it has looked at."""

from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at."""

    name: str
    status: Literal["ok", "warn", "fail"]
    finding: str
    advice: str = ""
    flaws: list[str] = field(default_factory=list)

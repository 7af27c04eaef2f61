"""`Check`: the result of one check of `doctor`."""

from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True, slots=True)
class Check:
    """The result of one check."""

    name: str
    status: Literal["ok", "warn", "fail"]
    finding: str
    advice: str = ""
    flaws: list[str] = field(default_factory=list)

"""`Effort`: what a model is asked for, and what it may cost."""

from dataclasses import dataclass

from app.options import EffortName


@dataclass(frozen=True, slots=True)
class CallLimits:
    """The most calls and tokens of a request."""

    calls: int
    tokens: int  # input and output


@dataclass(frozen=True, slots=True)
class Effort:
    """What a model is asked for, and what a request may spend on it."""

    limits: CallLimits
    name: EffortName | None = None  # None: that of a strategy
    expects: bool = False  # whether it is asked what the items are called that the user may want
    candidates: int = 60  # in the slate of items
    wanted: int = 20  # items that it is asked to pick from the slate


ECONOMY = Effort(CallLimits(calls=3, tokens=8_000), "economy")
BALANCED = Effort(CallLimits(calls=5, tokens=12_000), "balanced", expects=True)


def effort_of(name: EffortName, *, has_words: bool) -> Effort:
    """The effort of that name; `auto` is what earns its tokens for the need.

    For words a model finds what vectors do not; for a history it ranks.
    """
    match name:
        case "economy":
            return ECONOMY
        case "balanced":
            return BALANCED
        case "auto":
            return BALANCED if has_words else ECONOMY

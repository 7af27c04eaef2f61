"""`Attempt`: a call to an endpoint, in words."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Attempt:
    """One call: what was sent and what came back."""

    model: str
    sent: str
    outcome: str

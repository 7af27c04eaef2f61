"""How soon a busy service ends when it is told to, and what is there after the next start."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

from tests.benchmarks.figures import Figure
from tests.benchmarks.living import tell
from tests.faults.stopping import WAYS, stopped
from tests.servers.hostile import HostileServer

_ITEMS = 64_000
_ENDS_S = 10


def sigterm(items: int = _ITEMS) -> Iterator[Figure]:
    """A figure for each way of being busy, and how many acknowledged writes were lost in all."""
    hostile = HostileServer()
    lost = acknowledged = 0
    try:
        with tempfile.TemporaryDirectory(prefix="unillmrec-bench-") as folder:
            tell(f"importing {items:,} items")
            outcomes = stopped(Path(folder), hostile, items, WAYS.values())
            for name, outcome in zip(WAYS, outcomes, strict=True):
                tell(f"ended beside {name}: {outcome.lost[:3] or 'nothing is lost'}")
                yield Figure(f"SIGTERM beside {name}", outcome.seconds, "s", "≤", _ENDS_S)
                lost += len(outcome.lost)
                acknowledged += outcome.acknowledged
    finally:
        hostile.stop()
    yield Figure("writes acknowledged meanwhile", acknowledged)
    yield Figure("of these, and of imports, lost", lost, "", "=", 0)

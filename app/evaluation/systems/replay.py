"""`Replay`: the events of training users in the order of their times, up to a moment."""

from app.evaluation.case import Training
from app.evaluation.dataset import DataError
from app.event_types import EventRules
from app.storage.feedback import Event
from app.storage.memory_feedback import MemoryFeedback

_AT_ONCE = 1_000


class Replay:
    """Feedback as it was at `now`, in seconds since the epoch: it never holds an event of later."""

    def __init__(self, training: Training, half_life_s: float | None) -> None:
        """Raises DataError where an event has no time."""
        if not all(len(user.times) == len(user.history) for user in training.users):
            raise DataError("counts that fade need the time of each event; the data lack some")
        self._rules = EventRules(half_life_s=half_life_s)
        self._events = sorted(
            (
                Event(f"{user.id} {item}", user.id, item, round(time * 1_000_000) + place)
                for user in training.users
                for place, (item, time) in enumerate(zip(user.history, user.times, strict=True))
            ),
            key=lambda event: event.at,
        )
        self.restart()

    def restart(self) -> None:
        """Begin anew, before all events."""
        self.feedback = MemoryFeedback()
        self.now = float("-inf")
        self._next = 0

    async def go_on(self, until: float) -> None:
        """Record all events before that time, which is now the present. It never goes back."""
        end = round(until * 1_000_000)
        while self._next < len(self._events) and self._events[self._next].at < end:
            some = self._events[self._next : self._next + _AT_ONCE]
            due = [event for event in some if event.at < end]
            await self.feedback.record(due, self._rules)
            self._next += len(due)
        self.now = until

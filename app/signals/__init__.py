"""What users did, as a part of the score: popularity, co-occurrence, freshness."""

from app.signals.evidence import Evidence
from app.signals.feeding import UserEvent, UserHistory, UserId, events_of, feed
from app.signals.freshness import freshness
from app.signals.owned import OwnedDocuments, erase
from app.signals.signals import Signals

__all__ = [
    "Evidence",
    "OwnedDocuments",
    "Signals",
    "UserEvent",
    "UserHistory",
    "UserId",
    "erase",
    "events_of",
    "feed",
    "freshness",
]

"""What users did, as a part of the score: popularity, co-occurrence, freshness."""

from app.signals.event_files import RowMeaning, events_in
from app.signals.event_scores import EventScores
from app.signals.events import UserEvent, UserHistory, count_events, events_of
from app.signals.freshness import freshness
from app.signals.signals import Signals, SignalsConfig
from app.signals.user_documents import UserDocuments, erase
from app.signals.user_lines import user_lines

__all__ = [
    "EventScores",
    "RowMeaning",
    "Signals",
    "SignalsConfig",
    "UserDocuments",
    "UserEvent",
    "UserHistory",
    "count_events",
    "erase",
    "events_in",
    "events_of",
    "freshness",
    "user_lines",
]

"""What users did, as a part of the score: popularity, co-occurrence, freshness."""

from app.signals.evidence import Evidence
from app.signals.freshness import freshness
from app.signals.owned import OwnedDocuments, erase
from app.signals.signals import Signals

__all__ = ["Evidence", "OwnedDocuments", "Signals", "erase", "freshness"]

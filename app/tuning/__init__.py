"""Learns from a catalogue's histories how its vectors should change, and whether they should."""

from app.tuning.choice import Tuning, TuningFigures, chosen
from app.tuning.examples import Examples, TooFewHistories, split
from app.tuning.learner import AdapterLearner
from app.tuning.trial import ItemRanks, Ranked

__all__ = [
    "AdapterLearner",
    "Examples",
    "ItemRanks",
    "Ranked",
    "TooFewHistories",
    "Tuning",
    "TuningFigures",
    "chosen",
    "split",
]

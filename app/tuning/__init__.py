"""Learns from a catalogue's histories how its vectors should change, and whether they should."""

from app.tuning.choice import Confirmed, Tuning, TuningFigures, cases_to_rank, chosen
from app.tuning.examples import Examples, TooFewHistories, positions, split
from app.tuning.learner import AdapterLearner
from app.tuning.training_events import TrainingEvents
from app.tuning.trial import ItemRanks, Ranked, RankOptions

__all__ = [
    "AdapterLearner",
    "Confirmed",
    "Examples",
    "ItemRanks",
    "RankOptions",
    "Ranked",
    "TooFewHistories",
    "TrainingEvents",
    "Tuning",
    "TuningFigures",
    "cases_to_rank",
    "chosen",
    "positions",
    "split",
]

"""Who is compared: ours, those of the paper, conventional ones, and trained networks."""

from app.evaluation.systems.ours import Trees
from app.evaluation.systems.registry import NAMES, Surroundings, UnknownSystem, systems
from app.evaluation.systems.scored import MissingLibrary

__all__ = [
    "NAMES",
    "MissingLibrary",
    "Surroundings",
    "Trees",
    "UnknownSystem",
    "systems",
]

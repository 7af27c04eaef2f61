"""The systems: the service, simple and collaborative baselines, and neural networks."""

from app.evaluation.systems.factory import NAMES, EvalContext, UnknownSystem, systems
from app.evaluation.systems.scoring_baseline import MissingLibrary
from app.evaluation.systems.service_system import Trees

__all__ = [
    "NAMES",
    "EvalContext",
    "MissingLibrary",
    "Trees",
    "UnknownSystem",
    "systems",
]

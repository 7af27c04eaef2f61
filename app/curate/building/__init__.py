"""Trees of whole catalogues, built on the cores of this machine or on a Ray cluster."""

from app.curate.building.builder import build, labels_of
from app.curate.building.engine import OpenEngine, engine_for, local
from app.curate.building.sources import ItemSource, ListSource

__all__ = ["ItemSource", "ListSource", "OpenEngine", "build", "engine_for", "labels_of", "local"]

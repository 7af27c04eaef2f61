"""What curators do with a catalogue: put and delete items, import files, rebuild the tree."""

from app.curate.curator import Curator

__all__ = ["Curator"]

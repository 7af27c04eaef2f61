"""What curators do with a catalogue: put and delete items, import files, rebuild the tree."""

from app.curate.curator import Curator, RebuildParams
from app.curate.importer import ImportParams
from app.curate.texts import TextReader
from app.curate.writer import TooManyWrites

__all__ = ["Curator", "ImportParams", "RebuildParams", "TextReader", "TooManyWrites"]

"""Files of items on their way into a catalogue: uploaded, read, and staged."""

from app.curate.imports.importer import Importer, ImportParams, forget_upload

__all__ = ["ImportParams", "Importer", "forget_upload"]

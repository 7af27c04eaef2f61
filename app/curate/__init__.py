"""What curators do with a catalogue: put and delete items, import files, rebuild the tree."""

from app.curate.batch_encoder import BatchEncoder
from app.curate.curator import Curator
from app.curate.imports import ImportParams, forget_upload
from app.curate.job_runs import RebuildParams
from app.curate.writes import LineResult, TooManyWrites

__all__ = [
    "BatchEncoder",
    "Curator",
    "ImportParams",
    "LineResult",
    "RebuildParams",
    "TooManyWrites",
    "forget_upload",
]

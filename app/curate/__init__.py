"""What curators do with a catalogue: put and delete items, import files, rebuild the tree."""

from app.curate.batch_encoder import BatchEncoder
from app.curate.curator import Curator
from app.curate.enrichment.enrichment import EnrichmentParams
from app.curate.imports import ImportParams, forget_upload
from app.curate.job_runs import RebuildParams
from app.curate.owner_settings import EnrichmentOptions, OwnerSettings, newest_options
from app.curate.tuner import TuningParams
from app.curate.writes import LineResult, TooManyWrites

__all__ = [
    "BatchEncoder",
    "Curator",
    "EnrichmentOptions",
    "EnrichmentParams",
    "ImportParams",
    "LineResult",
    "OwnerSettings",
    "RebuildParams",
    "TooManyWrites",
    "TuningParams",
    "forget_upload",
    "newest_options",
]

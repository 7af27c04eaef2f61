"""Protocols: from a data set to what trained systems may see, and to the cases that are asked.

Each takes a seed and how many readers to ask (None for all): the first so many after a seeded
shuffle. None shows a trained system a target of the reader that it belongs to, and candidates never
depend on a target. All raise DataError where nobody can be asked.
"""

from app.evaluation.choices import DomainBy
from app.evaluation.protocols.coldstart import coldstart
from app.evaluation.protocols.crossdomain import crossdomain
from app.evaluation.protocols.last_out import exclusion, leave_last_out, paper
from app.evaluation.protocols.observed import impressions, temporal
from app.evaluation.protocols.sampling import BUCKETS, Split, bucket_of, training_share

__all__ = [
    "BUCKETS",
    "DomainBy",
    "Split",
    "bucket_of",
    "coldstart",
    "crossdomain",
    "exclusion",
    "impressions",
    "leave_last_out",
    "paper",
    "temporal",
    "training_share",
]

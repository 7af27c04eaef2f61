"""Protocols: each splits a data set into training data and cases.

Each takes a seed and the number of users (None for all): the first ones after a seeded shuffle. No
target is in the training data of its user, and candidates never depend on a target. All raise
DataError where no user has the events that the protocol needs.
"""

from app.evaluation.choices import DomainBy
from app.evaluation.protocols.cold_items import cold_items
from app.evaluation.protocols.coldstart import coldstart
from app.evaluation.protocols.crossdomain import crossdomain
from app.evaluation.protocols.known_item import known_item
from app.evaluation.protocols.last_out import complement, exclusion, leave_last_out, paper
from app.evaluation.protocols.observed import impressions, temporal
from app.evaluation.protocols.sampling import BUCKETS, Split, bucket_of, training_share

__all__ = [
    "BUCKETS",
    "DomainBy",
    "Split",
    "bucket_of",
    "cold_items",
    "coldstart",
    "complement",
    "crossdomain",
    "exclusion",
    "impressions",
    "known_item",
    "leave_last_out",
    "paper",
    "temporal",
    "training_share",
]

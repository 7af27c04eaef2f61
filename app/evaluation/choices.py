"""Options of an evaluation, and their defaults."""

from enum import StrEnum

COMPARED = ("embedded", "semantic", "popular", "random", "bm25")
SHARES = (0.1, 0.2, 0.4, 0.6, 0.8, 1.0)
SIZES = (1_000, 10_000, 100_000, 1_000_000)
DIVERSITIES = (0.0, 0.15, 0.3, 0.5, 0.7)
CUTOFFS = (1, 5, 10, 20, 50)
PER_LEAF = (1, 3, 5, 8, 10)
HALF_LIVES_DAYS = (0.0, 0.05, 0.25, 1.0, 3.0, 10.0, 30.0, 365.0)  # 0: none


class DataFormat(StrEnum):
    """Formats of data sets."""

    PLAIN = "plain"
    MIND = "mind"
    AMAZON = "amazon"
    MOVIELENS = "movielens"


class DomainBy(StrEnum):
    """How the domain of an item is determined."""

    DOMAIN = "domain"
    CATEGORY = "category"  # the broadest category, for data of a single domain


class LeftOut(StrEnum):
    """Fields of items that an evaluation can leave out of their text."""

    DESCRIPTION = "description"
    CATEGORIES = "categories"
    KEYWORDS = "keywords"


class Protocol(StrEnum):
    """How a data set is split into training data and cases."""

    LEAVE_LAST_OUT = "leave-last-out"
    TEMPORAL = "temporal"
    PAPER = "paper"
    IMPRESSIONS = "impressions"
    CANDIDATES = "candidates"
    EXCLUSION = "exclusion"
    COLDSTART = "coldstart"
    COLD_ITEMS = "cold-items"
    CROSSDOMAIN = "crossdomain"
    COMPLEMENT = "complement"

"""Errors of trees and their store. `app.api` maps them to HTTP, in one place."""


class TreeError(Exception):
    """Base of every error of this package; `code` is its stable name for other programs."""

    code = "tree_error"


class UnknownNode(TreeError, LookupError):
    """No node of that id in this version of the tree."""

    code = "unknown_node"


class UnknownVersion(TreeError, LookupError):
    """The version is not stored, or no longer."""

    code = "unknown_version"


class CatalogDeleted(TreeError, LookupError):
    """The catalogue was deleted: nothing is read from it or written to it any more."""

    code = "unknown_catalog"


class InvalidEdit(TreeError, ValueError):
    """The edit contradicts the tree it is applied to; nothing was changed."""

    code = "conflict"


class TooManyDomains(TreeError, ValueError):
    """The item would bring one more domain than a catalogue may have."""

    code = "too_many_domains"


class StaleVersion(TreeError):
    """Another writer committed first: load and decide again."""

    code = "conflict"


class Overtaken(StaleVersion):
    """Lines of items were set meanwhile: read the items again."""


class StoreUnavailable(TreeError):
    """The store does not answer, or refuses to write; the message says what to do.

    `detail` is the message of the client library. It may name hosts and paths, so it is part of the
    text for operators only, and not of `advice`, which clients read.
    """

    code = "store_unavailable"

    def __init__(self, advice: str, detail: object = "") -> None:
        super().__init__(f"{advice} ({detail})" if str(detail) else advice)
        self.advice = advice


class StoreUnreachable(StoreUnavailable):
    """The store does not answer at all: waiting requests need not try, too."""


class StoreBusy(StoreUnreachable):
    """The store was not asked: all connections of this process are in use."""

    code = "store_busy"


class StoreFull(StoreUnavailable):
    """The store has no memory or disk left for new data; stored data can be read."""

    code = "store_full"


class CorruptSnapshot(TreeError):
    """Stored data is missing or damaged; the message names it."""

    code = "store_corrupt"


class EmbedderUnavailable(TreeError):
    """The text model of a catalogue does not answer or is missing; the message says which."""

    code = "embedder_unavailable"


class EmbedderBudgetSpent(EmbedderUnavailable):
    """The text model is not asked, because a limit of what it may cost is reached."""

    code = "embedder_budget"


class EmbedderUnusable(EmbedderUnavailable):
    """A mistake in the settings, which no retry helps: a wrong key, an unknown model."""

    code = "embedder_unusable"

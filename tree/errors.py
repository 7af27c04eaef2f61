"""What can go wrong with a tree; raised here, mapped to HTTP once, in `app.api`."""


class TreeError(Exception):
    """Base of every error of this package; `code` is its stable name for other programs."""

    code = "tree_error"


class UnknownNode(TreeError, LookupError):
    """No node of that id in this version of the tree."""

    code = "unknown_node"


class UnknownVersion(TreeError, LookupError):
    """That version is not kept, or not any more."""

    code = "unknown_version"


class InvalidEdit(TreeError, ValueError):
    """The edit contradicts the tree it is applied to; nothing was changed."""

    code = "conflict"


class StaleVersion(TreeError):
    """Somebody else committed first: load again and decide again."""

    code = "conflict"


class StoreUnavailable(TreeError):
    """The store does not answer, or refuses to write; the message says what to do."""

    code = "store_unavailable"


class StoreUnreachable(StoreUnavailable):
    """The store does not answer at all: whoever waits for it behind others need not try too."""


class CorruptSnapshot(TreeError):
    """What the store holds cannot be read back whole; the message names what is missing."""

    code = "store_corrupt"


class EmbedderUnavailable(TreeError):
    """The text model of a catalogue cannot be had; the message says what is missing."""

    code = "embedder_unavailable"


class EmbedderUnusable(EmbedderUnavailable):
    """Our own mistake, which no other try mends: a wrong key, a model that is not there."""

    code = "embedder_unusable"

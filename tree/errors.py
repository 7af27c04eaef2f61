"""What can go wrong with a tree; raised here, mapped to HTTP once, in `app.api`."""


class TreeError(Exception):
    """Base of every error of this package."""


class UnknownNode(TreeError, LookupError):
    """No node of that id in this version of the tree."""


class UnknownVersion(TreeError, LookupError):
    """That version is not kept, or not any more."""


class InvalidEdit(TreeError, ValueError):
    """The edit contradicts the tree it is applied to; nothing was changed."""


class StaleVersion(TreeError):
    """Somebody else committed first: load again and decide again."""


class StoreUnavailable(TreeError):
    """The store does not answer, or refuses to write; the message says what to do."""


class StoreUnreachable(StoreUnavailable):
    """The store does not answer at all: whoever waits for it behind others need not try too."""


class CorruptSnapshot(TreeError):
    """What the store holds cannot be read back whole; the message names what is missing."""

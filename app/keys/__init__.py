"""API keys: who sends a request, what they may do, and how much."""

from app.keys.daily_budget import DailyBudget
from app.keys.key import (
    COMMAND,
    OPEN,
    ROOT,
    Caller,
    Key,
    Scope,
    redacted,
)
from app.keys.key_request import KeyRequest, KeyView, NewKey, new_key
from app.keys.keyring import Keyring, TooManyKeys

__all__ = [
    "COMMAND",
    "OPEN",
    "ROOT",
    "Caller",
    "DailyBudget",
    "Key",
    "KeyRequest",
    "KeyView",
    "Keyring",
    "NewKey",
    "Scope",
    "TooManyKeys",
    "new_key",
    "redacted",
]

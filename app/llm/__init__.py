"""Models: one protocol, one function that calls them, and the forms of their replies."""

from app.llm.access import Models, works
from app.llm.account import STAGES, Account, AnswerDegraded, Degraded, Stage, StageModel
from app.llm.ask import Line, Price, Spent, ask
from app.llm.chat import (
    ChatModel,
    Message,
    OfflineChat,
    Reply,
    ScriptedChat,
    TokenUsage,
    Turn,
)
from app.llm.errors import InvalidReply, ModelError, ModelRejected, ModelUnavailable
from app.llm.slates import ReplyMode

__all__ = [
    "STAGES",
    "Account",
    "AnswerDegraded",
    "ChatModel",
    "Degraded",
    "InvalidReply",
    "Line",
    "Message",
    "ModelError",
    "ModelRejected",
    "ModelUnavailable",
    "Models",
    "OfflineChat",
    "Price",
    "Reply",
    "ReplyMode",
    "ScriptedChat",
    "Spent",
    "Stage",
    "StageModel",
    "TokenUsage",
    "Turn",
    "ask",
    "works",
]

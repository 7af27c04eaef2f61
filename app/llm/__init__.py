"""Models: one protocol, one function that calls them, and the forms of their replies."""

from app.llm.ask import CallContext, Price, UsageTotals, ask
from app.llm.chat import (
    ChatModel,
    Message,
    OfflineChat,
    Picture,
    Reply,
    ScriptedChat,
    TokenUsage,
    Turn,
)
from app.llm.errors import InvalidReply, ModelError, ModelRejected, ModelUnavailable
from app.llm.ledger import STAGES, AnswerDegraded, Degraded, RequestLedger, Stage, StageModel
from app.llm.models import Models, works
from app.llm.sight import Sighted
from app.llm.slates import ReplyMode

__all__ = [
    "STAGES",
    "AnswerDegraded",
    "CallContext",
    "ChatModel",
    "Degraded",
    "InvalidReply",
    "Message",
    "ModelError",
    "ModelRejected",
    "ModelUnavailable",
    "Models",
    "OfflineChat",
    "Picture",
    "Price",
    "Reply",
    "ReplyMode",
    "RequestLedger",
    "ScriptedChat",
    "Sighted",
    "Stage",
    "StageModel",
    "TokenUsage",
    "Turn",
    "UsageTotals",
    "ask",
    "works",
]

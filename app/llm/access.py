"""`Models`: which models the stages ask, and in which mode, found out once."""

import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256

from app.llm.account import STAGES, Stage, StageModel
from app.llm.chat import ChatModel, OfflineChat
from app.llm.errors import InvalidReply, ModelRejected, UnsupportedReplyMode
from app.llm.slates import ReplyMode, Slate, read, turn_of
from prompts import load
from tree.store.documents import Documents

logger = logging.getLogger(__name__)

_REMEMBERED_S = 86_400
_PROBED = (ReplyMode.JSON_SCHEMA, ReplyMode.JSON_OBJECT, ReplyMode.TEXT)


@dataclass(slots=True)
class Models:
    """The models of a service. `mode` None: probed once per endpoint and model, and remembered.

    `endpoint` names where they are, for that memory.
    """

    of: Mapping[Stage, StageModel]
    documents: Documents
    mode: ReplyMode | None = None
    timeout_s: float = 20.0
    endpoint: str = ""

    @classmethod
    def none(cls, documents: Documents) -> "Models":
        """A permanent outage."""
        return cls(dict.fromkeys(STAGES, StageModel(OfflineChat())), documents)

    @property
    def configured(self) -> bool:
        return not isinstance(self.of["recall"].model, OfflineChat)

    async def reply_mode(self, timeout_s: float = math.inf) -> ReplyMode:
        """The mode in which slates are asked.

        Raises ModelUnavailable and ModelRejected from the first probe.
        """
        if self.mode is None:
            model = self.of["recall"].model
            key = sha256(f"{self.endpoint}\0{model.name}".encode()).hexdigest()
            if (kept := await self.documents.get("mode", key)) is not None:
                self.mode = ReplyMode(kept.decode())
            else:
                self.mode = await probed(model, min(timeout_s, self.timeout_s))
                await self.documents.put("mode", key, self.mode.encode(), _REMEMBERED_S)
                logger.info("%s answers in the reply mode %s", model.name, self.mode)
        return self.mode

    async def check(self) -> list[str]:
        """Ask every model a tiny question; which of them gave no usable answer, and in what mode.

        Raises ModelUnavailable, and ModelRejected where the mistake is ours.
        """
        mode = await self.reply_mode()
        asked = {
            (found.model.name, mode.for_text if stage == "profile" else mode): found.model
            for stage, found in self.of.items()
        }
        unusable = []
        for (name, form), model in asked.items():
            try:
                fine = await works(model, form, self.timeout_s)
            except ModelRejected:
                if form is mode:
                    raise
                fine = False  # an endpoint for decisions may write no text
            if not fine:
                unusable.append(f"{name} as {form}")
        return unusable


async def probed(model: ChatModel, timeout_s: float) -> ReplyMode:
    """The first of json_schema, json_object and text in which a model can be asked.

    Raises ModelUnavailable, ModelRejected.
    """
    for mode in _PROBED[:-1]:
        if await works(model, mode, timeout_s):
            return mode
    return _PROBED[-1]


async def works(model: ChatModel, mode: ReplyMode, timeout_s: float) -> bool:
    """Whether a model answers a tiny slate in this mode. Raises ModelUnavailable, ModelRejected."""
    slate = Slate(load("recall"), ["Red paint", "Green tea"], "Something to drink", (), 2)
    try:
        reply = await model.complete(turn_of(slate, mode, timeout_s=timeout_s, seed=0))
        read(slate, mode, reply)
    except (UnsupportedReplyMode, InvalidReply):
        return False
    return True

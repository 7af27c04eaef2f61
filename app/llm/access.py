"""`Models`: which models the stages ask, and in which mode, found out once."""

import asyncio
import logging
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import sha256

from app.llm.account import STAGES, Stage, StageModel
from app.llm.chat import ChatModel, OfflineChat
from app.llm.errors import InvalidReply, ModelRejected, ModelUnavailable, UnsupportedReplyMode
from app.llm.slates import ReplyMode, Slate, read, turn_of
from prompts import load
from tree.store.documents import Documents

logger = logging.getLogger(__name__)

_REMEMBERED_S = 86_400
_AGAIN_S = 10.0
_PROBED = (ReplyMode.JSON_SCHEMA, ReplyMode.JSON_OBJECT, ReplyMode.TEXT)


@dataclass(slots=True)
class Models:
    """The models of a service. `mode` None: probed once per endpoint and model, and remembered.

    `endpoint` names where they are, for that memory. `labels` writes the labels of trees, None
    where nobody does; what it has answered is kept, so that no label is paid for twice.
    """

    of: Mapping[Stage, StageModel]
    documents: Documents
    mode: ReplyMode | None = None
    probes: bool = field(init=False)
    timeout_s: float = 20.0
    endpoint: str = ""
    max_tokens: int = 1_000_000  # of one request, whatever it asks for
    max_cost_usd: float | None = None
    labels: StageModel | None = None
    _probe: "asyncio.Task[ReplyMode] | None" = None
    _probe_at: float = 0.0  # one that found no mode is repeated after this

    def __post_init__(self) -> None:
        self.probes = self.mode is None

    @classmethod
    def none(cls, documents: Documents) -> "Models":
        """A permanent outage."""
        return cls(dict.fromkeys(STAGES, StageModel(OfflineChat())), documents)

    @property
    def configured(self) -> bool:
        return not isinstance(self.of["recall"].model, OfflineChat)

    async def reply_mode(self, timeout_s: float = math.inf) -> ReplyMode:
        """The mode in which slates are asked.

        Raises ModelUnavailable and ModelRejected from the first probe, which is made once for
        all who wait; it goes on when one of them has waited `timeout_s`.
        """
        if self.mode is None:
            if self._probe is None or (self._probe.done() and time.monotonic() > self._probe_at):
                self._probe = asyncio.create_task(self._found_mode())
            done, _ = await asyncio.wait([self._probe], timeout=min(timeout_s, self.timeout_s))
            if not done:
                raise ModelUnavailable("the model has not answered yet", timed_out=True)
            self.mode = self._probe.result()
        return self.mode

    async def forget_mode(self) -> None:
        """The endpoint does not take the probed mode any more: the next request probes again."""
        if self.probes:
            self.mode, self._probe_at = None, 0.0
            await self.documents.delete("mode", self._mode_key())

    async def _found_mode(self) -> ReplyMode:
        model = self.of["recall"].model
        if (kept := await self.documents.get("mode", self._mode_key())) is not None:
            return ReplyMode(kept.decode())
        try:
            mode = await probed(model, self.timeout_s)
        except InvalidReply as error:
            self._probe_at = time.monotonic() + _AGAIN_S
            raise ModelUnavailable(str(error)) from error
        await self.documents.put("mode", self._mode_key(), mode.encode(), _REMEMBERED_S)
        logger.info("%s answers in the reply mode %s", model.name, mode)
        return mode

    def _mode_key(self) -> str:
        name = f"{self.endpoint}\0{self.of['recall'].model.name}"
        return sha256(name.encode()).hexdigest()

    async def check(self) -> list[str]:
        """Ask every model a tiny question; which of them gave no usable answer, and in what mode.

        Raises ModelUnavailable, and ModelRejected where the mistake is ours.
        """
        mode = await self.reply_mode()
        asked = {
            (found.model.name, mode.for_text if stage == "profile" else mode): found.model
            for stage, found in self.of.items()
        }
        if self.labels is not None:
            asked.setdefault((self.labels.model.name, mode.for_text), self.labels.model)
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

    Raises InvalidReply when it says nothing sensible in any; ModelUnavailable, ModelRejected.
    """
    for mode in _PROBED:
        if await works(model, mode, timeout_s):
            return mode
    raise InvalidReply("the model gives no usable answer in any reply mode")


async def works(model: ChatModel, mode: ReplyMode, timeout_s: float) -> bool:
    """Whether a model answers a tiny slate in this mode. Raises ModelUnavailable, ModelRejected."""
    slate = Slate(load("recall"), ["Red paint", "Green tea"], "Something to drink", (), 2)
    try:
        reply = await model.complete(turn_of(slate, mode, timeout_s=timeout_s, seed=0))
        read(slate, mode, reply)
    except (UnsupportedReplyMode, InvalidReply):
        return False
    return True

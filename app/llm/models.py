"""`Models`: which model each stage asks, and in which reply mode."""

import logging
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from hashlib import sha256
from typing import TYPE_CHECKING

from app.llm.chat import ChatModel, OfflineChat
from app.llm.endpoint.known import KnownEndpoint
from app.llm.endpoint.outages import Outages
from app.llm.errors import (
    InvalidReply,
    ModelError,
    ModelRejected,
    ModelUnavailable,
    NoReplyMode,
    SpentOnThinking,
    UnsupportedReplyMode,
)
from app.llm.ledger import STAGES, Stage, StageModel
from app.llm.slates import ReplyMode, Slate, read, turn_of
from app.storage.documents import Documents
from prompts import load
from tree.worker import SingleFlight, result_of

if TYPE_CHECKING:  # it imports the client library, which takes a second
    from app.llm.batches import BatchApi

logger = logging.getLogger(__name__)

_MODE_TTL_S = 86_400
_PROBE_PAUSE_S = 10.0
_TRIES = 2  # of a mode in a probe: one bad reply would choose a weaker mode for a day
_PROBED = (ReplyMode.JSON_SCHEMA, ReplyMode.JSON_OBJECT, ReplyMode.TEXT)


@dataclass(slots=True)
class Models:
    """The models of a service.

    With `mode` None, the reply mode is probed once per endpoint and model, and stored under the
    name of the `endpoint`. `labels` writes the labels of trees, and `lines` those of items; None
    when no model does.
    """

    of: Mapping[Stage, StageModel]
    documents: Documents
    mode: ReplyMode | None = None
    probes: bool = field(init=False)
    timeout_s: float = 20.0
    endpoint: str = ""
    max_tokens: int = 1_000_000  # of one request
    max_cost_usd: float | None = None
    labels: StageModel | None = None
    lines: StageModel | None = None
    line_batches: "BatchApi | None" = None  # of the model of lines
    outages: Outages = field(default_factory=Outages)
    known: Mapping[str, KnownEndpoint] = field(default_factory=dict)  # by the name of the model
    _probe: SingleFlight[ReplyMode] = field(init=False)
    _probe_at: float = 0.0  # a probe that found no mode is repeated after this time

    def __post_init__(self) -> None:
        self.probes = self.mode is None
        self._probe = SingleFlight("asking a model how it replies", self._found_mode, ModelError)

    async def aclose(self) -> None:
        """End a probe that is running; the models stay open."""
        await self._probe.aclose()

    @classmethod
    def none(cls, documents: Documents) -> "Models":
        """No models: every call fails, as in an outage."""
        return cls(dict.fromkeys(STAGES, StageModel(OfflineChat())), documents)

    @property
    def room(self) -> int:
        """The largest room of a model: see ChatModel."""
        return max(found.model.room for found in self.of.values())

    def learned(self) -> dict[str, list[str]]:
        """What the endpoint accepts from each model that it restricts, in words."""
        told = {name: known.dialect.words() for name, known in self.known.items()}
        return {name: words for name, words in told.items() if words}

    @property
    def configured(self) -> bool:
        return not isinstance(self.of["recall"].model, OfflineChat)

    async def reply_mode(self, timeout_s: float = math.inf, *, strict: bool = False) -> ReplyMode:
        """The mode in which slates are asked.

        All callers share one probe, which continues when a caller has waited `timeout_s`. Raises
        ModelUnavailable, also as NoReplyMode; ModelRejected, unless the model has answered before:
        then what its endpoint refuses is an outage, except to a `strict` caller.
        """
        if self.mode is None:
            probe = self._probe.begin(anew=time.monotonic() > self._probe_at)
            try:
                self.mode = await result_of(probe, min(timeout_s, self.timeout_s))
            except TimeoutError as error:
                raise ModelUnavailable("the model has not answered yet", timed_out=True) from error
            except ModelRejected as error:
                if strict or not self._has_replied():
                    raise
                raise ModelUnavailable(str(error)) from error
        return self.mode

    def _has_replied(self) -> bool:
        """Whether the model has answered, to this or another process: the settings are right."""
        known = self.known.get(self.of["recall"].model.name)
        return known is not None and known.has_answered

    async def forget_mode(self) -> None:
        """Make the next request probe again: the endpoint has refused the probed mode."""
        if self.probes:
            self.mode, self._probe_at = None, 0.0
            await self.documents.delete("mode", self._mode_key())

    async def _found_mode(self) -> ReplyMode:
        model = self.of["recall"].model
        if (stored := await self.documents.get("mode", self._mode_key())) is not None:
            return ReplyMode(stored.decode())
        try:
            mode = await probed(model, self.timeout_s)
        except InvalidReply as error:
            self._probe_at = time.monotonic() + _PROBE_PAUSE_S
            raise NoReplyMode from error
        await self.documents.put("mode", self._mode_key(), mode.encode(), _MODE_TTL_S)
        logger.info("%s answers in the reply mode %s", model.name, mode)
        return mode

    def _mode_key(self) -> str:
        name = f"{self.endpoint}\0{self.of['recall'].model.name}"
        return sha256(name.encode()).hexdigest()

    async def check(self) -> list[str]:
        """The models that give no usable answer to a tiny question, each with its reply mode.

        Raises ModelUnavailable, and ModelRejected for a mistake in the settings.
        """
        mode = await self.reply_mode(strict=True)
        asked = {
            (found.model.name, mode.for_text if stage == "profile" else mode): found.model
            for stage, found in self.of.items()
        }
        for writer in filter(None, (self.labels, self.lines)):
            asked.setdefault((writer.model.name, mode.for_text), writer.model)
        unusable = []
        for (name, form), model in asked.items():
            try:
                usable = await works(model, form, self.timeout_s)
            except ModelRejected:
                if form is mode:
                    raise
                usable = False  # an endpoint for decisions may write no text
            if not usable:
                unusable.append(f"{name} as {form}")
        return unusable


async def probed(model: ChatModel, timeout_s: float) -> ReplyMode:
    """The first of json_schema, json_object and text in which a model gives a usable answer.

    Raises InvalidReply when there is none; ModelUnavailable, ModelRejected.
    """
    doubtful: list[ReplyMode] = []
    for mode in _PROBED:
        try:
            if await _usable(model, mode, timeout_s, _TRIES):
                break
        except UnsupportedReplyMode as error:
            if error.perhaps:
                doubtful.append(mode)
    else:
        raise InvalidReply("the model gives no usable answer in any reply mode")
    for better in doubtful:  # an outage may have passed
        if await works(model, better, timeout_s):
            return better
    return mode


async def works(model: ChatModel, mode: ReplyMode, timeout_s: float) -> bool:
    """Whether a model answers a tiny slate in this mode. Raises ModelUnavailable, ModelRejected."""
    try:
        return await _usable(model, mode, timeout_s, 1)
    except UnsupportedReplyMode:
        return False


async def _usable(model: ChatModel, mode: ReplyMode, timeout_s: float, tries: int) -> bool:
    """Whether one of so many answers to a tiny slate can be used.

    Raises ModelUnavailable, ModelRejected, UnsupportedReplyMode.
    """
    slate = Slate(load("recall"), ["Red paint", "Green tea"], "Something to drink", (), 2)
    turn = replace(turn_of(slate, mode, timeout_s=timeout_s, seed=0), probe=True)
    while True:
        try:
            read(slate, mode, await model.complete(turn))
        except SpentOnThinking as error:
            if not error.more_room:
                return False
        except InvalidReply:
            if (tries := tries - 1) <= 0:
                return False
            turn = replace(turn, seed=turn.seed + 1)
        else:
            return True

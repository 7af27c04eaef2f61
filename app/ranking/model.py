"""`ModelRanker`: a model scores any number of options, slate by slate."""

import asyncio
import random
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np

from app.budget import BudgetExceeded
from app.llm.account import Account, Stage
from app.llm.ask import ask
from app.llm.chat import Turn
from app.llm.errors import InvalidReply, ModelUnavailable
from app.llm.slates import ReplyMode, Scored, Slate, read, turn_of
from app.ranking.fusion import FloatArray, Indices, Judged, calibrated
from prompts import Prompt

_T = TypeVar("_T")
ANCHORS = 6  # options that all slates of a question hold, where it takes more than one


@dataclass(frozen=True, slots=True)
class Question:
    """Options to be judged for a person.

    `near` is float32[options, interests], what the embedded ranker makes of them: it chooses the
    anchors and stands in for a model that fails. `seed` decides the order in which they are shown.
    """

    prompt: Prompt
    options: Sequence[str]
    near: FloatArray
    need: str
    interests: Sequence[str]
    wanted: int
    seed: int
    max_chars: int = 110
    anchors: int = ANCHORS


class ModelRanker:
    """Scores options by asking a model, on the account of one request."""

    def __init__(self, account: Account, mode: ReplyMode) -> None:
        self._account = account
        self._mode = mode

    async def score(self, stage: Stage, question: Question, looks: int = 1) -> FloatArray:
        """float32[options, interests]: comparable scores, whatever happens.

        `looks` asks as often at once, in another order each time, and takes the mean: what a
        place in the slate adds evens out (permutation self-consistency, Tang et al. 2023).

        As few slates as possible are asked at once; anchors make them comparable. A slate that
        fails twice, the second time with half of its options, gets the embedded scores, brought
        to the scale of the others. Raises ModelRejected.
        """
        if not len(question.options):
            return np.zeros((0, max(1, len(question.interests))), np.float32)
        self._account.begin_round(stage)
        views = (replace(question, seed=question.seed + look) for look in range(looks))
        marks = await _together([self._look(stage, view) for view in views])
        heard = [look for look in marks if look is not None]
        # Embedded scores are on another scale: no part of a mean with the model's.
        return np.mean(heard, axis=0, dtype=np.float32) if heard else question.near.copy()

    async def _look(self, stage: Stage, question: Question) -> FloatArray | None:
        """One order's scores; None when every slate has failed."""
        parts, anchors = packed(question, self._mode.width)
        judged = await _together([self._judge(stage, question, part) for part in parts])
        heard = [part for part in judged if part is not None]
        if not heard:
            return None
        for part in heard:  # a slate that was halved may have lost some
            anchors = np.intersect1d(anchors, part.indices)
        values = calibrated(heard, len(question.options), anchors)
        return _completed(values, question.near)

    async def _judge(self, stage: Stage, question: Question, part: Indices) -> Judged | None:
        slate = _slate(question, part)
        half = replace(slate, options=slate.options[: max(1, len(part) // 2)])
        tries = iter((slate, half))
        asked = slate

        def turn_of_next() -> Turn:
            nonlocal asked
            asked = next(tries)
            timeout_s = self._account.timeout_s
            return turn_of(asked, self._mode, timeout_s=timeout_s, seed=question.seed)

        try:
            scored: Scored = await ask(
                self._account.line(stage),
                turn_of_next(),
                lambda reply: read(asked, self._mode, reply),
                # The last look refines an order that is there already: no second try for it.
                again=None if stage == "rerank" else turn_of_next,
            )
        except (ModelUnavailable, InvalidReply, BudgetExceeded) as error:
            self._account.fall_back(stage, error)
            return None
        self._account.spent[stage].flaws.update(scored.flaws)
        return Judged(part[: len(asked.options)], scored.values)


async def _together(calls: Sequence[Coroutine[None, None, _T]]) -> list[_T]:
    """What all of them return. An error ends the others, which nobody would wait for."""
    tasks = [asyncio.ensure_future(call) for call in calls]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()


def packed(question: Question, width: int) -> tuple[list[Indices], Indices]:
    """The options of each slate, in the order in which they are shown, and the shared anchors.

    Every slate gets its share of the options that the embedded ranker likes, so that none is
    judged against weak company only. Their order within a slate is random but repeatable: models
    favour what comes first (LLMRank), and similarity must not choose who that is.
    """
    count = len(question.options)
    order = np.argsort(-question.near.max(axis=1), kind="stable")
    shuffle = random.Random(question.seed).shuffle
    if count <= width:
        parts, anchors = [order], order[:0]
    else:
        shared = min(question.anchors, width // 4)
        anchors, rest = order[: 2 * shared : 2], np.delete(order, np.s_[: 2 * shared : 2])
        slates = -(-len(rest) // (width - shared))
        parts = [np.concatenate([anchors, rest[at::slates]]) for at in range(slates)]
    shown = []
    for part in parts:
        places = sorted(part.tolist())  # the same seed and options: the same order, whoever asks
        shuffle(places)
        shown.append(np.array(places, np.int64))
    return shown, anchors


def _slate(question: Question, part: Indices) -> Slate:
    return Slate(
        question.prompt,
        [question.options[at] for at in part],
        question.need,
        question.interests,
        min(question.wanted, len(part)),
        question.max_chars,
    )


def _completed(values: FloatArray, near: FloatArray) -> FloatArray:
    """Options that no slate scored get their embedded score, on the scale of the scored ones.

    The line through both means with the ratio of both deviations as its slope.
    """
    unheard = np.isnan(values).any(axis=1)
    if not unheard.any():
        return values
    ours, theirs = near[~unheard], values[~unheard]
    spread = float(ours.std())
    slope = float(theirs.std()) / spread if spread else 0.0
    values[unheard] = theirs.mean() + slope * (near[unheard] - ours.mean())
    return values

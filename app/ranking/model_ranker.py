"""`ModelRanker`: a model scores any number of options, slate by slate."""

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from app.budget import BudgetExceeded
from app.llm.ask import ask
from app.llm.chat import Turn
from app.llm.errors import InvalidReply, ModelUnavailable
from app.llm.ledger import RequestLedger, Stage
from app.llm.slates import ReplyMode, Scored, Slate, read, turn_of
from app.ranking.fusion import FloatArray, Indices, SlateScores, calibrated
from prompts import Prompt, one_line
from tree.worker import together

ANCHORS = 6  # options that all slates of a question hold, where it takes more than one


@dataclass(frozen=True, slots=True)
class Question:
    """Options that a model is to score for a user.

    `similarity` is float32[options, interests], the scores of the embedded ranker: they choose the
    anchors and replace those of a model that fails. `seed` decides the order in which a model
    sees the options.
    """

    prompt: Prompt
    options: Sequence[str]
    similarity: FloatArray
    need: str
    interests: Sequence[str]
    wanted: int
    seed: int
    max_chars: int = 110
    anchors: int = ANCHORS


class ModelRanker:
    """Scores options by asking a model, within the budget of one request."""

    def __init__(self, ledger: RequestLedger, mode: ReplyMode) -> None:
        self._ledger = ledger
        self._mode = mode

    async def score(self, stage: Stage, question: Question) -> FloatArray:
        """float32[options, interests]: comparable scores, also when the model fails.

        The options are in as few slates as possible; anchors make the slates comparable. A slate
        that fails twice, the second time with half of its options, gets the embedded scores, on the
        scale of the others. Raises ModelRejected.
        """
        if not len(question.options):
            return np.zeros((0, max(1, len(question.interests))), np.float32)
        self._ledger.begin_round(stage)
        shown, line_of = distinct_lines(question)
        parts, anchors = packed(shown, self._mode.width)
        judged = await together(self._judge(stage, shown, part) for part in parts)
        answered = [part for part in judged if part is not None]
        if not answered:
            return question.similarity.copy()
        for part in answered:  # a slate that was halved may lack some
            anchors = np.intersect1d(anchors, part.indices)
        values = calibrated(answered, len(shown.options), anchors)
        return _completed(values, shown.similarity)[line_of]

    async def _judge(self, stage: Stage, question: Question, part: Indices) -> SlateScores | None:
        slate = _slate(question, part)
        half = replace(slate, options=slate.options[: max(1, len(part) // 2)])
        tries = iter((slate, half))
        asked = slate

        def turn_of_next() -> Turn:
            nonlocal asked
            asked = next(tries)
            timeout_s = self._ledger.timeout_s
            return turn_of(asked, self._mode, timeout_s=timeout_s, seed=question.seed)

        try:
            scored: Scored = await ask(
                self._ledger.call_context(stage),
                turn_of_next(),
                lambda reply: read(asked, self._mode, reply),
                # The last look refines an order that is there already: no second try for it.
                again=None if stage == "rerank" else turn_of_next,
            )
        except (ModelUnavailable, InvalidReply, BudgetExceeded) as error:
            self._ledger.fall_back(stage, error)
            return None
        self._ledger.totals[stage].flaws.update(scored.flaws)
        return SlateScores(part[: len(asked.options)], scored.values)


def distinct_lines(question: Question) -> tuple[Question, Indices]:
    """The question with each line once, and for every option the place of its line there.

    A model cannot tell options apart that read the same: they get one score.
    """
    places: dict[str, int] = {}
    first: list[int] = []
    line_of = np.zeros(len(question.options), np.int64)
    for at, option in enumerate(question.options):
        place = places.setdefault(one_line(option, question.max_chars), len(places))
        if place == len(first):
            first.append(at)
        line_of[at] = place
    if len(first) == len(question.options):
        return question, line_of
    options = [question.options[at] for at in first]
    return replace(question, options=options, similarity=question.similarity[first]), line_of


def packed(question: Question, width: int) -> tuple[list[Indices], Indices]:
    """The options of each slate, in the order in which they are shown, and the shared anchors.

    Every slate gets the same share of the best options by similarity, so that no option is only
    compared with weak ones. The order within a slate is random but repeatable: models favour the
    first options (LLMRank), and those must not be the most similar ones.
    """
    count = len(question.options)
    order = np.argsort(-question.similarity.max(axis=1), kind="stable")
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
        places = sorted(part.tolist())  # the same seed and options give the same order
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


def _completed(values: FloatArray, similarity: FloatArray) -> FloatArray:
    """Options that no slate scored get their embedded score, on the scale of the scored ones.

    The line through both means with the ratio of both deviations as its slope.
    """
    missing = np.isnan(values).any(axis=1)
    if not missing.any():
        return values
    ours, theirs = similarity[~missing], values[~missing]
    spread = float(ours.std())
    slope = float(theirs.std()) / spread if spread else 0.0
    values[missing] = theirs.mean() + slope * (similarity[missing] - ours.mean())
    return values

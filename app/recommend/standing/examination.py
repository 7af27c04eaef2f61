"""`Examiner`: asks a model about slates whose answer is known."""

import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from hashlib import sha256

import numpy as np
import numpy.typing as npt

from app.budget import Budget
from app.llm import Models, ReplyMode, RequestLedger, UsageTotals
from app.ranking.fusion import FloatArray
from app.recommend.candidates import CandidatePool
from app.recommend.config import RecommendConfig
from app.recommend.context import (
    PromptConfig,
    StageClock,
    history_of,
    with_model,
)
from app.recommend.effort import ECONOMY
from app.recommend.opening import ContextOpener
from app.recommend.profile import Profile, narrowed
from app.recommend.recall import recall
from app.recommend.standing.exam_slates import ExamSlate, ExamWriter
from app.recommend.standing.standing import (
    CHANCE,
    LEAST_SLATES,
    Standing,
    factor_of,
    mean_and_error,
)
from app.recommend.varied_request import VariedRequest
from prompts import load
from tree.rows import IntArray
from tree.snapshot import SemanticTree
from tree.store.protocol import ItemRecords
from tree.worker import together

SLATES = 24
TOKENS = 20_000  # of one examination, input and output
_CLAIMED = 19_000  # of these: a provider may count more than was estimated before a call
AT_ONCE = 4  # slates: users' calls come first
_LONGEST_S = 600.0


@dataclass(frozen=True, slots=True)
class Mark:
    """What one slate has shown: of the model (None where it did not answer), of the vectors."""

    by_model: float | None
    by_vectors: float


@dataclass(frozen=True, slots=True)
class _Offered:
    """See Retriever: the rows of a slate."""

    rows: IntArray
    weight: float = 1.0

    async def retrieve(self, *_: object) -> IntArray:
        """See Retriever."""
        return self.rows


class Examiner:
    """Examines the model of the stage `recall` on one catalogue.

    The slates go through the same prompt, reading and calibration as those of requests.
    """

    def __init__(
        self,
        store: ItemRecords,
        pool: CandidatePool,
        opener: ContextOpener,
        models: Models,
        config: RecommendConfig,
        prompts: PromptConfig,
    ) -> None:
        self._store = store
        self._pool = pool
        self._opener = opener
        self._models = models
        self._config = config
        self._prompts = prompts

    @property
    def fingerprint(self) -> str:
        """Stands for all that a standing depends on, beside the catalogue."""
        models, perspective = self._models, self._prompts.perspective
        mode = "auto" if models.probes else str(models.mode)
        prompt = load("recall", perspective).fingerprint
        asked = (models.endpoint, models.of["recall"].model.name, mode, prompt)
        return sha256("\0".join(asked).encode()).hexdigest()

    async def slates(
        self, tree: SemanticTree, histories: Sequence[Sequence[str]], seed: int
    ) -> list[ExamSlate]:
        """What an examination with this seed asks; empty for a catalogue that is too small."""
        return await ExamWriter(tree, self._pool, seed).slates(histories, SLATES)

    async def examine(
        self,
        tree: SemanticTree,
        histories: Sequence[Sequence[str]],
        seed: int,
        so_far: Callable[[Standing], Awaitable[None]] | None = None,
    ) -> Standing | None:
        """The standing; None where the catalogue is too small, or the endpoint fails.

        Ends early when the model has earned its whole weight. `so_far` is called with what a part
        of the slates has shown. Raises ModelRejected, ModelUnavailable, StoreUnavailable.
        """
        slates = await self.slates(tree, histories, seed)
        if len(slates) < LEAST_SLATES:
            return None
        mode = await self._models.reply_mode()
        budget = Budget(2 * SLATES, _CLAIMED, deadline=time.monotonic() + _LONGEST_S)
        began = time.time()
        marks: list[Mark] = []
        spent = UsageTotals()
        at_once = AT_ONCE if self._models.room == 1 else 1  # claims of thoughts are large
        for start in range(0, len(slates), at_once):
            some = slates[start : start + at_once]
            marks += await together(self._mark(tree, one, budget, mode, spent) for one in some)
            standing = self._standing(marks, spent, began)
            if standing is not None:
                if so_far is not None:
                    await so_far(standing)
                if standing.slates >= LEAST_SLATES and standing.factor == 1:
                    break
        answered = standing.slates if standing else 0
        return standing if answered >= max(LEAST_SLATES, len(marks) // 2) else None

    async def _mark(
        self,
        tree: SemanticTree,
        slate: ExamSlate,
        budget: Budget,
        mode: ReplyMode,
        spent: UsageTotals,
    ) -> Mark:
        """What the model, and the vectors, made of one slate."""
        opened = await self._opener.open(
            VariedRequest(slate.request, self._config.weights),
            tree,
            StageClock(),
            lambda _, __: None,
        )
        history = await history_of(slate.request, tree, opened.resolved, self._store)
        models = self._models
        ledger = RequestLedger(models.of, models.timeout_s, budget, models.endpoint)
        context = with_model(opened, self._prompts, history, ECONOMY, ledger, 1.0).in_mode(mode)
        profile = Profile(narrowed(opened.need))
        offered = _Offered(slate.rows)
        found = await recall(context, self._pool, self._config.slates, profile, [offered])
        _add(spent, ledger.totals["recall"])
        right = np.isin(found.rows, list(slate.right))
        similarity = self._pool.ranker.scores(tree, opened.need, found.rows)
        by_vectors = pairs_in_order(similarity, right)
        match ledger.degraded:
            case None:
                return Mark(pairs_in_order(found.by_model.max(axis=1), right), by_vectors)
            case "llm_invalid":  # as good as a guess
                return Mark(CHANCE, by_vectors)
            case _:
                return Mark(None, by_vectors)

    def _standing(self, marks: Sequence[Mark], spent: UsageTotals, at: float) -> Standing | None:
        """The standing by the slates that the model has answered; None without any."""
        answered = [mark for mark in marks if mark.by_model is not None]
        if not answered:
            return None
        accuracy, error = mean_and_error([mark.by_model or 0.0 for mark in answered])
        embedded, _ = mean_and_error([mark.by_vectors for mark in answered])
        return Standing(
            self.fingerprint,
            self._models.of["recall"].model.name,
            len(answered),
            round(accuracy, 4),
            round(error, 4),
            round(embedded, 4),
            factor_of(accuracy, error),
            spent.input_tokens + spent.output_tokens,
            spent.cost_usd,
            at,
        )


def pairs_in_order(scores: FloatArray, right: npt.NDArray[np.bool_]) -> float:
    """The share of pairs of a right and a wrong option with the right one above; equals half."""
    above = scores[right][:, None] - scores[~right][None, :]
    if not above.size:
        return CHANCE
    return float((above > 0).mean() + (above == 0).mean() / 2)


def _add(spent: UsageTotals, used: UsageTotals) -> None:
    spent.input_tokens += used.input_tokens
    spent.output_tokens += used.output_tokens
    spent.cost_usd += used.cost_usd

"""The first stage: what a user looks for, in the words of a model where there is one."""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

import msgspec
import numpy as np

from app.budget import BudgetExceeded
from app.llm import InvalidReply, ModelRejected, ModelUnavailable, ReplyMode, ask
from app.ranking import Need, calibrated
from app.ranking.fusion import FloatArray, SlateScores
from app.recommend.candidates import CandidatePool
from app.recommend.context import ModelContext
from app.recommend.prompt_lines import need_lines
from app.recommend.query_encoder import QueryEncoder
from app.recommend.resolve import TextVectors
from app.recommend.topics import (
    MAX_TOPICS,
    History,
    Topics,
    opening_turn,
    profile_key,
    read_opening,
    read_topics,
    regrouped,
    topics_turn,
    topics_without_directions,
)
from tree.errors import EmbedderUnavailable, StoreUnavailable
from tree.node import Node

WANTED_BRANCHES = 24  # branches worth a score
_RECENT = 5  # titles repeated in every prompt: the last few do as well as fifty (LLMRank)


@dataclass(frozen=True, slots=True)
class Profile:
    """What a user looks for: the need, grouped by the topics of a model where it named some."""

    need: Need
    topics: Topics | None = None

    def interest_names(self) -> list[str]:
        """The interests for which options are scored separately.

        A single one is named, too, so that the words that ask for it are the same for all users.
        """
        return [interest.name for interest in self.need.interests]

    def text(self, history: History) -> str:
        """The description of the person, for the end of a prompt."""
        interests = [(interest.name, interest.weight) for interest in self.need.interests]
        avoid = [*self.need.dislikes, *(self.topics.avoid if self.topics else ())]
        return need_lines(interests, history.choices[:_RECENT], history.wishes, avoid)


def announced(context: ModelContext, profile: Profile) -> Profile:
    """The same profile, after the listener has heard of it."""
    context.record.need = profile.need
    interests = [
        {"name": interest.name, "weight": round(interest.weight, 4)}
        for interest in profile.need.interests
    ]
    by = "embedded" if profile.topics is None else "model"
    context.notify("profile", {"interests": interests, "by": by})
    return profile


class ProfileStage:
    """Asks a model for the topics of users, and remembers them for `ttl_s`."""

    def __init__(self, pool: CandidatePool, encoder: QueryEncoder, ttl_s: int) -> None:
        self._pool = pool
        self._encoder = encoder
        self._ttl_s = ttl_s

    async def run(
        self, context: ModelContext, branches: Sequence[Node]
    ) -> tuple[Profile, FloatArray | None]:
        """The profile, and the scores of the branches where the same call gave them."""
        profile, scores = Profile(context.need), None
        if not context.history.is_empty:
            key = _key(context)
            stored = await context.documents.get("profile", key)
            if stored is not None:
                topics = msgspec.json.decode(stored, type=Topics)
                profile = await self._apply_topics(context, topics)
            else:
                profile, scores = await self._profile_with_model(context, branches, key)
        return announced(context, replace(profile, need=narrowed(profile.need))), scores

    async def _profile_with_model(
        self, context: ModelContext, branches: Sequence[Node], key: str
    ) -> tuple[Profile, FloatArray | None]:
        """The profile of a new user and, where the form allows it, the scores of the branches."""
        mode = context.mode.for_text
        context.ledger.begin_round("profile")
        try:
            if mode is not context.mode or mode is ReplyMode.TEXT:
                topics, scores = await _topics(context, mode), None
            else:
                topics, scores = await self._topics_and_scores(context, branches, mode)
        except (ModelUnavailable, InvalidReply, BudgetExceeded) as error:
            context.ledger.fall_back("profile", error)
            return Profile(context.need), None
        except ModelRejected as error:
            # An endpoint for decisions may write no text; the slates will tell of a wrong key.
            if context.mode not in (ReplyMode.DECISIONS, ReplyMode.PREDICATES):
                raise
            context.ledger.fall_back("profile", error)
            return Profile(context.need), None
        with suppress(StoreUnavailable):  # the next request asks again
            await context.documents.put("profile", key, msgspec.json.encode(topics), self._ttl_s)
        return await self._apply_topics(context, topics), scores

    async def _topics_and_scores(
        self, context: ModelContext, branches: Sequence[Node], mode: ReplyMode
    ) -> tuple[Topics, FloatArray]:
        """The topics, and float32[branches, topics]."""
        turn = opening_turn(
            context.history,
            [self._pool.branch(context.tree, branch) for branch in branches],
            mode,
            context.prompt("opening"),
            language=context.language,
            wanted=WANTED_BRANCHES,
            timeout_s=context.ledger.timeout_s,
        )
        topics, scored = await ask(
            context.ledger.call_context("profile"),
            turn,
            lambda reply: read_opening(len(branches), reply),
            again=lambda: replace(turn, seed=turn.seed + 1),
        )
        context.ledger.totals["profile"].flaws.update(scored.flaws)
        every = np.arange(len(branches))
        return topics, calibrated([SlateScores(every, scored.values)], len(branches), every[:0])

    async def _apply_topics(self, context: ModelContext, topics: Topics) -> Profile:
        """The need under the topics. A topic without a direction is encoded by its words."""
        vectors: TextVectors = {}
        try:
            async with asyncio.timeout(max(0.0, context.ledger.budget.seconds_left)):
                texts = topics_without_directions(context.need, topics)
                vectors = await self._encoder.encode(context.tree, context.request, texts)
        except (EmbedderUnavailable, TimeoutError):
            # Topics that stand on the user's own choices are enough.
            context.ledger.degrade("embedder_unavailable")
        return Profile(regrouped(context.need, topics, vectors), topics)


async def _topics(context: ModelContext, mode: ReplyMode) -> Topics:
    turn = topics_turn(
        context.history,
        mode,
        context.prompt("profile"),
        language=context.language,
        timeout_s=context.ledger.timeout_s,
    )
    call = context.ledger.call_context("profile")
    again = replace(turn, seed=turn.seed + 1)  # the same again would be the same answer
    return await ask(call, turn, lambda reply: read_topics(mode, reply), again=lambda: again)


def _key(context: ModelContext) -> str:
    model = (context.ledger.endpoint, context.ledger.models["profile"].model.name)
    prompts = [context.prompt(name).fingerprint for name in ("profile", "opening")]
    return profile_key(context.history, model, context.mode, prompts, context.language)


def narrowed(need: Need, most: int = MAX_TOPICS) -> Need:
    """The need with at most `most` interests; the weakest are folded into the last that stays.

    A wish of the user is never folded away: it outweighs the past.
    """
    if len(need.interests) <= most:
        return need
    order = sorted(
        range(len(need.interests)),
        key=lambda at: (need.interests[at].origin != "wish", -need.interests[at].weight),
    )
    place = {old: min(new, most - 1) for new, old in enumerate(order)}
    directions = tuple(
        replace(direction, interest_index=place[direction.interest_index])
        for direction in need.directions
    )
    kept = [need.interests[at] for at in order[:most]]
    rest = sum(need.interests[at].weight for at in order[most - 1 :])
    kept[-1] = replace(kept[-1], weight=rest)
    return replace(need, interests=tuple(kept), directions=directions)

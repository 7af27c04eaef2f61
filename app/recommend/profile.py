"""The first stage: what a user looks for, and what a model expects such items to be called."""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

import msgspec
import numpy as np

from app.budget import BudgetExceeded
from app.llm import InvalidReply, ModelRejected, ModelUnavailable, ReplyMode, ask
from app.ranking import Need
from app.recommend.candidates import CandidatePool
from app.recommend.config import ProfileConfig
from app.recommend.context import ModelContext
from app.recommend.expected import (
    Expected,
    expected_key,
    expected_turn,
    prompt_name,
    read_expected,
)
from app.recommend.history import History
from app.recommend.prompt_lines import need_lines
from app.recommend.query_encoder import QueryEncoder
from app.recommend.request import HistoryEntry
from app.recommend.resolve import resolve_request
from tree.errors import StoreUnavailable

MAX_INTERESTS = 5
_TIME_SHARE = 0.4
_EXAMPLES = 10  # titles that show how a catalogue words things


@dataclass(frozen=True, slots=True)
class Profile:
    """What a user looks for.

    `expected` is the need of the titles that a model expects, and of the wish; None where no model
    was asked or it gave none.
    """

    need: Need
    expected: Need | None = None
    titles: Sequence[str] = ()

    def interest_names(self) -> list[str]:
        """The interests for which options are scored separately; none for a single one."""
        names = [interest.name for interest in self.need.interests]
        return names if len(names) > 1 else []

    def text(self, history: History) -> str:
        """The description of the person, for the end of a prompt."""
        interests = [
            (interest.name, interest.weight)
            for interest in self.need.interests
            if interest.origin != "wish" or len(self.need.interests) > 1
        ]
        avoided = self.need.dislikes
        return need_lines(interests, history.choices, history.wishes, avoided, history.dislikes)


def announced(context: ModelContext, profile: Profile) -> Profile:
    """The same profile, after the listener has heard of it."""
    context.record.need = profile.need
    context.record.expected = tuple(profile.titles)
    interests = [
        {"name": interest.name, "weight": round(interest.weight, 4)}
        for interest in profile.need.interests
    ]
    told = {"interests": interests, "expected": list(profile.titles)}
    context.notify("profile", {**told, "by": "model" if profile.titles else "embedded"})
    return profile


class ProfileStage:
    """Asks a model what items users may want are called, and remembers it."""

    def __init__(
        self, catalog: str, pool: CandidatePool, encoder: QueryEncoder, config: ProfileConfig
    ) -> None:
        """`catalog` is the id of the catalogue, to which the titles belong."""
        self._catalog = catalog
        self._pool = pool
        self._encoder = encoder
        self._config = config

    async def run(self, context: ModelContext) -> Profile:
        """The profile. Raises ModelRejected, StoreUnavailable."""
        profile = Profile(narrowed(context.need))
        if context.effort.expects and not context.history.is_empty:
            expected = await self._expected(context)
            if expected is not None:
                need = await self._need_of(context, expected)
                if need is not None:
                    profile = replace(profile, expected=need, titles=expected.titles)
        return announced(context, profile)

    async def _expected(self, context: ModelContext) -> Expected | None:
        """The titles that are stored for this user and wish, or those of a model."""
        mode = context.mode.for_text
        prompt = context.prompt(prompt_name(context.history))
        request, model = context.request, context.ledger.models["profile"].model.name
        whose = (self._catalog, request.domains, request.task, context.ledger.endpoint, model)
        key = expected_key(context.history, whose, mode, prompt)
        if (stored := await context.documents.get("profile", key)) is not None:
            return msgspec.json.decode(stored, type=Expected)
        turn = expected_turn(
            context.history,
            await self._examples(context),
            mode,
            prompt,
            timeout_s=_timeout_s(context),
        )
        context.ledger.begin_round("profile")
        try:
            expected = await ask(
                context.ledger.call_context("profile"),
                turn,
                lambda reply: read_expected(mode, reply),
                # The same again would be the same answer.
                again=lambda: replace(turn, seed=turn.seed + 1, timeout_s=_timeout_s(context)),
            )
        except (ModelUnavailable, InvalidReply, BudgetExceeded) as error:
            context.ledger.fall_back("profile", error)
            return None
        except ModelRejected as error:
            # An endpoint for decisions may write no text; the slates will tell of a wrong key.
            if context.mode not in (ReplyMode.DECISIONS, ReplyMode.PREDICATES):
                raise
            context.ledger.fall_back("profile", error)
            return None
        with suppress(StoreUnavailable):  # the next request asks again
            data = msgspec.json.encode(expected)
            await context.documents.put("profile", key, data, self._config.model_profile_ttl_s)
        return expected

    async def _examples(self, context: ModelContext) -> list[str]:
        """Lines of some items that the user may see; nearly the same for all users."""
        if not context.history.wishes:
            return []
        tree, rows = context.tree, np.flatnonzero(context.allowed)
        if len(rows) > _EXAMPLES:
            rows = rows[np.linspace(0, len(rows) - 1, _EXAMPLES).astype(np.int64)]
        return list((await self._pool.lines(tree, rows.tolist())).values())

    async def _need_of(self, context: ModelContext, expected: Expected) -> Need | None:
        """The need of a user whose history are these titles and who says the same.

        None where the words have no vectors: then those of the request have to do.
        """
        latest_last = [HistoryEntry(title=title) for title in reversed(expected.titles)]
        request = context.request.model_copy(update={"history": latest_last})
        try:
            async with asyncio.timeout(max(0.0, context.ledger.budget.seconds_left)):
                vectors, failed = await self._encoder.encode_request(context.tree, request)
        except TimeoutError:
            failed = "embedder_unavailable"
        if failed:
            context.ledger.degrade(failed)
            return None
        need = resolve_request(
            context.tree, request, vectors, context.weights, self._config.history_items
        ).need
        if need.is_empty:
            return None
        return replace(need, tilt=context.need.tilt, disliked=context.need.disliked)


def _timeout_s(context: ModelContext) -> float:
    """Time for the titles: most of it is for the slate, which can do without them."""
    return min(context.ledger.timeout_s, _TIME_SHARE * context.ledger.budget.seconds_left)


def narrowed(need: Need, most: int = MAX_INTERESTS) -> Need:
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

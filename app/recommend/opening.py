"""`ContextOpener`: from a request to its context, before any model is asked."""

from dataclasses import replace
from functools import partial

import numpy as np

from app.attribution import new_list_id
from app.event_types import DEFAULT_RULES, EventRules
from app.recommend.candidates import SPARE, allowed_rows, unknown_domains
from app.recommend.columns import Mask
from app.recommend.config import RecommendConfig
from app.recommend.context import ChainRecord, RequestContext, StageClock, StepListener
from app.recommend.dislikes import Dislikes
from app.recommend.fields import Fields
from app.recommend.past import unknown_types
from app.recommend.query_encoder import QueryEncoder
from app.recommend.request import HistoryEntry, RecommendRequest
from app.recommend.resolve import ResolvedRequest, resolve_request
from app.recommend.response import AnswerWarning
from app.recommend.tasks import TASKS, TaskWeights
from app.recommend.varied_request import VariedRequest
from app.signals import Signals, UserDocuments
from app.storage.documents import Documents
from app.storage.feedback import Feedback
from tree.scan import off_loop
from tree.snapshot import SemanticTree

_PER_ITEM = 5  # candidates per item of the answer, for diversity to choose from
_LEAST = 50


class ContextOpener:
    """Opens the contexts of one catalogue's requests."""

    def __init__(
        self,
        catalog_id: str,
        documents: Documents,
        encoder: QueryEncoder,
        fields: Fields,
        feedback: Feedback,
        signals: Signals,
        config: RecommendConfig,
    ) -> None:
        self._catalog_id = catalog_id
        self._documents = documents
        self._encoder = encoder
        self._fields = fields
        self._feedback = feedback
        self._signals = signals
        self._config = config
        self._dislikes = Dislikes()

    async def open(
        self,
        varied: VariedRequest,
        tree: SemanticTree,
        clock: StageClock,
        notify: StepListener,
        rules: EventRules = DEFAULT_RULES,
    ) -> RequestContext:
        """The context, with the need and the rows that are allowed.

        `rules` say what the types of a history mean. Raises AnswerDegraded, FilterTooLarge,
        StoreUnavailable.
        """
        request = varied.request
        unknown = unknown_types(request, rules)
        task = TASKS[request.task]
        weights = task.weights(varied.weights, request)
        request = task.narrowed(await self._with_stored_user(request))
        with clock.stage("profile"):
            vectors, degraded = await self._encoder.encode_request(tree, request)
            resolved = resolve_request(
                tree, request, vectors, weights, self._config.profile.history_items, rules
            )
        with clock.stage("search"):
            allowed, warnings = await self._allowed(tree, resolved, request)
            warnings += [_no_such_type(name, rules) for name in unknown]
            if resolved.need.dislikes:
                allowed &= await self._dislikes.allowed(tree, resolved.need.dislikes)
            resolved = await self._with_evidence(tree, request, resolved, task)
        limit = request.limit
        return RequestContext(
            id=new_list_id(self._catalog_id),
            request=request,
            tree=tree,
            resolved=resolved,
            allowed=allowed,
            wanted=max(_LEAST, _PER_ITEM * limit) if weights.diversity else limit + SPARE,
            variant=varied.variant,
            documents=self._documents_of(request),
            clock=clock,
            notify=notify,
            record=ChainRecord(resolved.need),
            warnings=warnings,
            degraded=degraded,
        )

    def _documents_of(self, request: RecommendRequest) -> Documents:
        if request.user_id is None:
            return self._documents
        return UserDocuments(self._documents, self._feedback, request.user_id)

    async def _with_stored_user(self, request: RecommendRequest) -> RecommendRequest:
        """The request with the stored history and profile of its user, where it has none."""
        if request.user_id is None or (request.history and request.profile):
            return request
        user = await self._feedback.user(request.user_id)
        if user is None:
            return request
        history = [HistoryEntry(item_id=one.item_id, type=one.type) for one in user.history]
        return request.model_copy(
            update={
                "history": request.history or history,
                "profile": request.profile or user.profile or None,
            }
        )

    async def _allowed(
        self, tree: SemanticTree, resolved: ResolvedRequest, request: RecommendRequest
    ) -> tuple[Mask, list[AnswerWarning]]:
        """The rows that may be in the answer, and warnings of unknown domains and fields."""
        work = partial(allowed_rows, tree, resolved.hidden, request.exclude_items, request.domains)
        allowed = await off_loop(tree.size, work)
        warnings = [
            AnswerWarning(code="unknown_domain", message=message)
            for message in await unknown_domains(tree, request.domains or ())
        ]
        if request.filter is not None and request.filter.conditions:
            passing = await self._fields.passing(tree, request.filter)
            allowed &= passing.rows
            warnings += [
                AnswerWarning(code="unknown_field", message=message) for message in passing.unknown
            ]
        return allowed, warnings

    async def _with_evidence(
        self,
        tree: SemanticTree,
        request: RecommendRequest,
        resolved: ResolvedRequest,
        task: TaskWeights,
    ) -> ResolvedRequest:
        """The need with what users' events say, and with the tilt of the task.

        Co-occurrence with the history has the weight that the history has in the need. The less is
        known of the user, the more counts weigh: a profile or few items fit much of a catalogue. A
        wish says what is wanted now, whatever others had. Where popularity counts against an item,
        it does so alike for all users.
        """
        newest = [tree.rows.id(row) for row in reversed(resolved.seen)]
        need = replace(resolved.need, tilt=task.tilt(tree, resolved.seen))
        event_scores = await self._signals.of(
            tree, newest, need.rank_weights, rising=bool(task.rising)
        )
        if event_scores is None:
            return replace(resolved, need=need)
        is_wish = np.array(
            [need.interest_of(one).origin == "wish" for one in need.directions], bool
        )
        is_instruction = np.array(
            [one.source == request.instruction for one in need.directions], bool
        )
        unknown = (1 - float(need.weights[is_instruction].sum())) / (1 + int((~is_wish).sum()))
        share = 1 - float(need.weights[is_wish].sum())
        prior = 1 + (need.rank_weights.cold_start_prior - 1) * unknown
        event_scores = event_scores.weighed(
            history=share if task.cooccurrence is None else task.cooccurrence,
            prior=prior if task.popularity > 0 else 1.0,
        )
        return replace(resolved, need=replace(need, event_scores=event_scores))


def _no_such_type(name: str, rules: EventRules) -> AnswerWarning:
    known = ", ".join(rules.types)
    message = f"the history has events of type {name!r}, which say nothing here: known are {known}"
    return AnswerWarning(code="unknown_event_type", message=message)

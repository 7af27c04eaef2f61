"""The items most similar to an item."""

import secrets
from functools import partial
from typing import Annotated

import msgspec
import numpy as np
from pydantic import ConfigDict, Field

from app.ranking import Direction, Need, words_of
from app.recommend.answer import recommended
from app.recommend.answer_fields import fields_of
from app.recommend.candidates import SPARE, CandidatePool, Candidates, allowed_rows
from app.recommend.choice import ChoiceRules, Chooser, choose
from app.recommend.columns import Mask
from app.recommend.config import RecommendConfig
from app.recommend.fields import Fields
from app.recommend.filters import Filter, StrictModel
from app.recommend.pages import MOST_SHOWN, CursorExpired, CursorOfAnother, Page
from app.recommend.request import Cursor, FieldNames
from app.recommend.resolve import path_name
from app.recommend.response import AnswerWarning, SimilarItems
from app.storage.documents import Documents
from tree.item import WHOLE, StoredId
from tree.scan import off_loop
from tree.snapshot import SemanticTree
from tree.store.keys import name_of


class SimilarRequest(StrictModel):
    """An item, and which of the items like it are wanted."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "item_id": "book-dune",
                    "limit": 5,
                    "filter": {"all": [{"field": "domain", "eq": "films"}]},
                    "fields": ["title", "year"],
                }
            ]
        },
    )

    item_id: StoredId
    limit: Annotated[int, Field(ge=1, le=100), WHOLE] = 10
    cursor: Cursor | None = Field(
        default=None, description="`next_cursor` of the page before, with the same request."
    )
    filter: Filter | None = None
    exclude_items: Annotated[list[StoredId], Field(max_length=10_000, fail_fast=True)] = Field(
        default=[]
    )
    fold: bool = Field(
        default=True,
        description="Whether near-duplicates appear once, and those of the item itself not at all.",
    )
    fields: FieldNames = Field(
        default=["title"], description="Item fields and attributes to answer with."
    )
    timeout_ms: Annotated[int, Field(ge=1, le=600_000), WHOLE] = 10_000


class _StoredList(msgspec.Struct, frozen=True):
    """What the next page of similar items needs."""

    item_id: str
    page: Page


class SimilarFinder:
    """Finds what is similar to an item, in one catalogue; no model is asked."""

    def __init__(
        self,
        catalog_id: str,
        pool: CandidatePool,
        fields: Fields,
        documents: Documents,
        config: RecommendConfig,
    ) -> None:
        self._catalog_id = catalog_id
        self._pool = pool
        self._fields = fields
        self._documents = documents
        self._config = config

    async def find(
        self, tree: SemanticTree, request: SimilarRequest, *, pages: bool
    ) -> SimilarItems | None:
        """The most similar items; None if the item may not be shown or does not exist.

        With `pages`, a full answer has a cursor, for which it is stored. Raises CursorExpired,
        CursorOfAnother, FilterTooLarge, StoreUnavailable.
        """
        pool, row = self._pool, tree.row(request.item_id)
        if row is None or not await pool.shows(tree, row):
            return None
        page = await self._page(request)
        shown = list(page.shown) if page else []
        allowed, warnings = await self._allowed(tree, request, row, shown)
        need = self._need(tree, row)
        if page is None:
            found = await pool.best(tree, need, allowed, request.limit + SPARE)
        else:
            found = await page.candidates(pool, tree, need, allowed, request.limit + SPARE)
        records = await pool.store.items([request.item_id, *shown])
        own = records.get(request.item_id)
        before = [records[one] for one in shown if one in records]
        rules = ChoiceRules(request.limit, request.filter, request.fold)
        chooser = Chooser(pool, tree, rules, apart_from=own, before=before)

        async def more(left: Mask, wanted: int) -> Candidates:
            return await pool.best(tree, need, left, wanted)

        order = range(len(found.rows))
        found = await choose(chooser, found, order, allowed, more)
        contents, cut = fields_of([one.item for one in chooser.chosen], request.fields)
        cursor = None
        if pages and len(chooser.chosen) == request.limit < np.count_nonzero(allowed):
            after = Page.after(page, tree, chooser, found, order)
            if len(after.shown) < MOST_SHOWN:
                cursor = await self._kept(_StoredList(request.item_id, after))
        return SimilarItems(
            catalog=name_of(self._catalog_id),
            tree_version=tree.version,
            item_id=request.item_id,
            items=[
                recommended(tree, found, one, rank, content, None)
                for rank, (one, content) in enumerate(zip(chooser.chosen, contents, strict=True), 1)
            ],
            folded=chooser.folded,
            next_cursor=cursor,
            warnings=[*warnings, *cut],
        )

    def _need(self, tree: SemanticTree, row: int) -> Need:
        label = path_name(tree.path(int(tree.rows.leaf[row])))
        return Need(
            directions=(Direction(tree.rows.vectors[row], 1.0, 0, label),),
            words=words_of(tree, [(row, 1.0)], 1.0, ()),
            rank_weights=self._config.weights,
        )

    async def _allowed(
        self, tree: SemanticTree, request: SimilarRequest, row: int, shown: list[str]
    ) -> tuple[Mask, list[AnswerWarning]]:
        excluded = [*request.exclude_items, *shown]
        allowed = await off_loop(tree.size, partial(allowed_rows, tree, (row,), excluded, None))
        if request.filter is None or not request.filter.conditions:
            return allowed, []
        passing = await self._fields.passing(tree, request.filter)
        unknown = [AnswerWarning(code="unknown_field", message=text) for text in passing.unknown]
        return allowed & passing.rows, unknown

    async def _page(self, request: SimilarRequest) -> Page | None:
        if request.cursor is None:
            return None
        data = await self._documents.get("page", f"{self._catalog_id}/{request.cursor}")
        if data is None:
            raise CursorExpired("the pages before are no longer stored: ask without the cursor")
        stored = msgspec.json.decode(data, type=_StoredList)
        if stored.item_id != request.item_id:
            raise CursorOfAnother("the cursor belongs to the list of another item")
        return stored.page

    async def _kept(self, stored: _StoredList) -> str:
        cursor = f"sim_{secrets.token_urlsafe(12)}"
        name, ttl_s = f"{self._catalog_id}/{cursor}", self._config.answer.trace_ttl_s
        await self._documents.put("page", name, msgspec.json.encode(stored), ttl_s)
        return cursor

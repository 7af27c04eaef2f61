"""The items most similar to an item."""

from app.rank_weights import RankWeights
from app.ranking import Direction, Need, words_of
from app.recommend.answer import recommended
from app.recommend.candidates import SPARE, CandidatePool, Candidates, allowed_rows
from app.recommend.choice import ChoiceRules, Chooser, choose
from app.recommend.columns import Mask
from app.recommend.resolve import path_name
from app.recommend.response import SimilarItems
from tree.snapshot import SemanticTree


async def similar_items(
    pool: CandidatePool,
    tree: SemanticTree,
    item_id: str,
    rules: ChoiceRules,
    weights: RankWeights,
    catalog: str,
) -> SimilarItems | None:
    """The most similar items, best first; None if the item may not be shown or does not exist."""
    row = tree.row(item_id)
    if row is None or not await pool.shows(tree, row):
        return None
    label = path_name(tree.path(int(tree.rows.leaf[row])))
    need = Need(
        directions=(Direction(tree.rows.vectors[row], 1.0, 0, label),),
        words=words_of(tree, [(row, 1.0)], 1.0, ()),
        rank_weights=weights,
    )
    allowed = allowed_rows(tree, (row,), (), None)
    found = await pool.best(tree, need, allowed, rules.limit + SPARE)

    async def more(left: Mask, wanted: int) -> Candidates:
        return await pool.best(tree, need, left, wanted)

    record = (await pool.records(tree, [row])).get(row)
    chooser = Chooser(pool, tree, rules, apart_from=record)
    found = await choose(chooser, found, range(len(found.rows)), allowed, more)
    items = [
        recommended(tree, found, one, rank, {"title": one.item.title}, None)
        for rank, one in enumerate(chooser.chosen, 1)
    ]
    return SimilarItems(
        catalog=catalog,
        tree_version=tree.version,
        item_id=item_id,
        items=items,
        folded=chooser.folded,
    )
